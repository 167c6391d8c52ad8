import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.files import UserError
from rtmpose.targets import SimCC
from tests.support import assert_golden, det_rng, golden

SIZES = {"192x256": (192, 256), "288x384": (288, 384), "256x256": (256, 256)}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(golden("codec_simcc.npz")))


@pytest.mark.parametrize("tag", SIZES)
def test_encode_equals_the_reference(reference: dict[str, np.ndarray], tag: str) -> None:
    """Six sets: ordinary, out of bounds, invisible, quarter-pixel rounding, exact edges of the 3-sigma
    window.
    """
    codec = SimCC(SIZES[tag])
    assert codec.sigma == tuple(reference[f"{tag}_sigma"])
    keypoints, visible = (torch.from_numpy(reference[f"{tag}_{name}"]) for name in ("keypoints", "visible"))
    labels, weights = codec.encode(keypoints, visible)
    np.testing.assert_array_equal(weights, reference[f"{tag}_weights"])
    for axis, label in zip("xy", labels, strict=True):
        expected = reference[f"{tag}_{axis}_labels"]
        assert_golden(label[: len(expected)], expected)
        assert_golden(label.double().sum(-1), reference[f"{tag}_{axis}_sum"])
        np.testing.assert_array_equal(label.argmax(-1), reference[f"{tag}_{axis}_argmax"])


@pytest.mark.parametrize("tag", SIZES)
def test_decode_equals_the_reference(reference: dict[str, np.ndarray], tag: str) -> None:
    """Of targets, and of raw outputs with all-negative and all-zero rows and ties."""
    codec = SimCC(SIZES[tag])
    labels, _ = codec.encode(
        *(torch.from_numpy(reference[f"{tag}_{name}"]) for name in ("keypoints", "visible"))
    )
    width, height = codec.bins
    px = det_rng(f"px_{tag}").standard_normal((2, 17, width)).astype(np.float32)
    py = det_rng(f"py_{tag}").standard_normal((2, 17, height)).astype(np.float32)
    px[0, 0], py[0, 1], px[0, 2], px[0, 3], py[0, 3], px[0, 4, [100, 200]] = -1, -2, 0, 1, 1, 50
    for prefix, outputs in (("", labels), ("raw_", (torch.from_numpy(px), torch.from_numpy(py)))):
        keypoints, scores = codec.decode(outputs)
        np.testing.assert_array_equal(keypoints, reference[f"{tag}_{prefix}decoded"])
        assert_golden(scores, reference[f"{tag}_{prefix}scores"])


def test_halves_round_to_even_and_absent_scores_decode_to_minus_half() -> None:
    codec = SimCC((192, 256))
    (x, y), _ = codec.encode(torch.tensor([[[10.25, 10.75]]]), torch.ones(1, 1))
    assert (x.argmax().item(), y.argmax().item()) == (20, 22)  # 20.5 -> 20, 21.5 -> 22
    keypoints, scores = codec.decode((x * 0, y))
    assert scores.item() == 0
    assert keypoints.flatten().tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    ("size", "split", "expected"),
    [
        ((192, 256), 2.0, (4.9, 5.66)),
        ((288, 384), 2.0, (6.0, 6.93)),
        ((256, 256), 2.0, (5.66, 5.66)),
        ((96, 128), 2.0, (math.sqrt(12), 4.0)),
        ((192, 256), 1.0, (math.sqrt(12), 4.0)),
    ],
)
def test_default_sigma(size: tuple[int, int], split: float, expected: tuple[float, float]) -> None:
    assert SimCC(size, split_ratio=split).sigma == pytest.approx(expected, abs=1e-12)


def test_sigma_is_a_number_or_a_pair() -> None:
    assert SimCC((96, 128), sigma=3).sigma == (3.0, 3.0)
    assert SimCC((96, 128), sigma=[2.0, 5.0]).sigma == (2.0, 5.0)
    assert SimCC((96, 128), sigma=np.array([2, 5])).sigma == (2.0, 5.0)  # type: ignore[arg-type]
    assert SimCC((96, 128), sigma=np.float32(3)).sigma == (3.0, 3.0)  # type: ignore[arg-type]
    (x, y), _ = SimCC((96, 128), sigma=(2.0, 5.0)).encode(torch.tensor([[[40.0, 60.0]]]), torch.ones(1, 1))
    assert x[0, 0, 84].item() == pytest.approx(math.exp(-(4**2) / 8))
    assert y[0, 0, 125].item() == pytest.approx(math.exp(-(5**2) / 50))


@pytest.mark.parametrize("bad", [0, -1.0, (4.9, 0.0), (1.0, 2.0, 3.0), float("nan")])
def test_bad_sigma_is_one_clear_line(bad: object) -> None:
    with pytest.raises(UserError, match=r"^SimCC: sigma must be > 0[^\n]*$"):
        SimCC((192, 256), sigma=bad)  # type: ignore[arg-type]


def test_bad_sizes_are_refused() -> None:
    for arguments in ({"input_size": (0, 256)}, {"input_size": (192, 256), "split_ratio": 0.0}):
        with pytest.raises(UserError, match="SimCC"):
            SimCC(**arguments)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_decode_undoes_encode(data: st.DataObject) -> None:
    """To half a bin, in the dtype of the keypoints, for any size, split ratio and sigma."""
    size = (data.draw(st.integers(32, 300)), data.draw(st.integers(32, 300)))
    codec = SimCC(size, data.draw(st.none() | st.floats(0.5, 8)), data.draw(st.sampled_from([1.0, 2.0, 3.0])))
    share = data.draw(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    keypoints = torch.tensor([share], dtype=dtype) * (torch.tensor(size) - 1)
    labels, weights = codec.encode(keypoints, torch.ones(keypoints.shape[:2]))
    decoded, scores = codec.decode(labels)
    assert {labels[0].dtype, weights.dtype, decoded.dtype, scores.dtype} == {dtype}
    assert (decoded - keypoints).abs().max() <= 0.5 / codec.split_ratio + 1e-3
    assert (scores == 1).all() and (weights == 1).all()


def test_invisible_points_leave_no_trace_even_when_their_coordinates_are_nan() -> None:
    (x, y), weights = SimCC((96, 128)).encode(torch.full((1, 2, 2), math.nan), torch.tensor([[0.0, 0.4]]))
    assert x.abs().sum() == 0 and y.abs().sum() == 0
    assert weights.tolist() == [[0.0, pytest.approx(0.4)]]


def test_bfloat16_outputs_keep_their_bin() -> None:
    x, y = torch.zeros(1, 1, 384), torch.zeros(1, 1, 512)
    x[..., 301], y[..., 511] = 1, 1
    keypoints, _ = SimCC((192, 256)).decode((x.bfloat16(), y.bfloat16()))
    assert keypoints.tolist() == [[[150.5, 255.5]]]


def test_flip_average_undoes_the_mirror() -> None:
    """Bin i of the image is bin W-1-i of its mirror image, where left and right change names; y stays."""
    codec, swap = SimCC((96, 128)), (0, 2, 1)
    rng = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 3, 192, generator=rng), torch.rand(2, 3, 256, generator=rng)
    mirrored = (x.flip(-1)[:, [0, 2, 1]], y[:, [0, 2, 1]])
    for merged, original in zip(codec.flip_average((x, y), mirrored, swap), (x, y), strict=True):
        torch.testing.assert_close(merged, original)
    merged_x, _ = codec.flip_average((x, y), (torch.zeros_like(x), y), swap)
    torch.testing.assert_close(merged_x, x / 2)
