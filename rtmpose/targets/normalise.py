"""Pixel normalisation, on the batch's device."""

from __future__ import annotations

from torch import Tensor

#: Mean and standard deviation of the RGB channels, in grey levels (those of ImageNet, as the published weights expect).
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def normalise(images: Tensor) -> Tensor:
    """uint8 RGB crops (B, H, W, 3) to the network's input (B, 3, H, W), float32, (pixel - mean) / std per channel.

    The result is a view whose memory is still NHWC, that is `torch.channels_last`: convolutions need no copy of it.
    """
    values = images.float()
    mean, std = values.new_tensor(MEAN), values.new_tensor(STD)
    return ((values - mean) / std).permute(0, 3, 1, 2)  # (B, 3, H, W)
