import torch

from rtmpose.models import normalise


def test_normalise_is_per_channel_in_rgb_order_and_channels_last() -> None:
    images = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    images[..., 0], images[..., 2] = 255, 100
    result = normalise(images)
    assert result.shape == (2, 3, 4, 6) and result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    expected = torch.tensor([(255 - 123.675) / 58.395, -116.28 / 57.12, (100 - 103.53) / 57.375])
    torch.testing.assert_close(result[1, :, 2, 3], expected)
