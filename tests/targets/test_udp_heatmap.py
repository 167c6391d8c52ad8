import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.files import UserError
from rtmpose.targets import UDPHeatmap
from rtmpose.targets.udp_heatmap import HESSIAN_EPS, _newton_step
from tests.support import assert_golden, det_rng, golden

SIZES = {"192x256": (192, 256), "288x384": (288, 384), "256x256": (256, 256)}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(golden("codec_udp.npz")))


def encode(reference: dict[str, np.ndarray], tag: str) -> tuple[torch.Tensor, torch.Tensor]:
    keypoints, visible = (torch.from_numpy(reference[f"{tag}_{name}"]) for name in ("keypoints", "visible"))
    return UDPHeatmap(SIZES[tag]).encode(keypoints, visible)


@pytest.mark.parametrize("tag", SIZES)
def test_encode_equals_the_reference(reference: dict[str, np.ndarray], tag: str) -> None:
    heatmaps, weights = encode(reference, tag)
    expected = reference[f"{tag}_heatmaps"]
    np.testing.assert_array_equal(weights, reference[f"{tag}_weights"])
    assert_golden(heatmaps[: len(expected)], expected)
    np.testing.assert_allclose(heatmaps.double().sum((-2, -1)), reference[f"{tag}_hm_sum"], atol=1e-4)


@pytest.mark.parametrize("tag", SIZES)
def test_decode_equals_the_reference(reference: dict[str, np.ndarray], tag: str) -> None:
    """Of targets and of noisy maps; where the reference divides 0 by 0 the score is 0 and the
    point finite.
    """
    codec, (heatmaps, _) = UDPHeatmap(SIZES[tag]), encode(reference, tag)
    keypoints, scores = codec.decode(heatmaps)
    assert_golden(scores, reference[f"{tag}_scores"])
    defined = np.isfinite(reference[f"{tag}_decoded"]).all(-1)
    assert_golden(keypoints.numpy()[defined], reference[f"{tag}_decoded"][defined])
    assert not defined.all() and torch.isfinite(keypoints).all()
    assert (scores.numpy()[~defined] == 0).all()

    noise = np.abs(det_rng(f"hm_{tag}").standard_normal(heatmaps[0].shape))
    noisy, rounding = (0.8 * heatmaps[0].numpy() + 0.05 * noise).astype(np.float32), 0.0
    decoded = reference[f"{tag}_noisy_decoded"]
    if tag == "192x256":  # where a map is nearly flat, the last bit counts: of its input, and of logarithms
        noisy = reference["192x256_noisy_heatmaps"]
        exact = refined(noisy, reference["192x256_noisy_blurred"], SIZES[tag])
        rounding = float(np.abs(decoded - exact).max())
        assert rounding < 2e-4, "the reference's own float32 from float64, on its own blurred maps"
    keypoints, scores = codec.decode(torch.from_numpy(noisy)[None])
    assert_golden(scores, reference[f"{tag}_noisy_scores"])
    assert_golden(keypoints, decoded, rounding)


def refined(maps: np.ndarray, blurred: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Points (K, 2) px of maps (K, H, W) by one Newton step on the logarithm of the blurred ones, in float64,
    which computers agree on.
    """
    logs = np.log(np.clip(np.pad(blurred.astype(np.float64), ((0, 0), (1, 1), (1, 1)), "edge"), 1e-3, 50))
    points = []
    for one, log in zip(maps, logs, strict=True):
        row, column = np.unravel_index(one.argmax(), one.shape)
        (a, up, _), (left, mid, right), (_, down, b) = log[row : row + 3, column : column + 3]
        across = (b - right - down + 2 * mid - left - up + a) / 2
        hessian = [[right - 2 * mid + left, across], [across, down - 2 * mid + up]]
        hessian += np.eye(2) * np.finfo(np.float32).eps
        points.append((column, row) - np.linalg.solve(hessian, [(right - left) / 2, (down - up) / 2]))
    return np.array(points) * size / (np.array(maps.shape[:0:-1]) - 1)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_maps_without_a_positive_value_decode_to_finite_points(value: float) -> None:
    keypoints, scores = UDPHeatmap((192, 256)).decode(torch.full((2, 3, 64, 48), value))
    assert (scores == value).all()
    assert torch.isfinite(keypoints).all() and (keypoints < 0).all()


def test_flat_maps_are_not_refined() -> None:
    """The Hessian of a constant is zero: there is no Newton step, the maximum stays where argmax puts it."""
    heatmaps = torch.zeros(1, 1, 64, 48)
    heatmaps[..., 30, 20] = 1e-4  # everything below the range of the logarithm
    keypoints, _ = UDPHeatmap((192, 256)).decode(heatmaps)
    torch.testing.assert_close(keypoints[0, 0], torch.tensor([20 / 47 * 192, 30 / 63 * 256]))


def test_there_is_no_step_where_the_hessian_has_no_inverse() -> None:
    half = HESSIAN_EPS / 2  # cancels the term that usually keeps the Hessian regular
    patch = torch.tensor([[-half, 0, 0], [0, half, 0], [0, 0, -half]])
    assert _newton_step(patch[None, None]).tolist() == [[[0.0, 0.0]]]


def test_a_window_that_touches_the_map_keeps_its_weight() -> None:
    """The reference's edge: 7 px outside the window ends beside the map and the weight stays, 8 px outside it
    is 0.
    """
    codec = UDPHeatmap((192, 256))
    stretch = torch.tensor([191 / 47, 255 / 63])
    keypoints = torch.tensor(
        [[[-7.6, 30.0], [-8.6, 30.0], [20.0, -7.6], [20.0, -8.6], [53.4, 30.0], [53.6, 30.0]]]
    )
    heatmaps, weights = codec.encode(keypoints * stretch, torch.ones(1, 6))
    assert weights.tolist() == [[1, 0, 1, 0, 1, 0]]
    assert (heatmaps.amax((-2, -1)) > 0).tolist() == [[False, False, False, False, True, False]]


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 40), st.integers(16, 40), st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_decode_undoes_encode_but_for_the_stretch(columns: int, rows: int, x: float, y: float) -> None:
    """The decoder answers in w/(w-1) input px, which the crop's W-1 steps undo."""
    size = torch.tensor([columns * 4, rows * 4], dtype=torch.float64)
    keypoints = (torch.tensor([[[x, y]]], dtype=torch.float64)) * (size - 1)
    codec = UDPHeatmap([columns * 4, rows * 4])
    heatmaps, weights = codec.encode(keypoints, torch.ones(1, 1))
    decoded, scores = codec.decode(heatmaps)
    assert heatmaps.dtype == decoded.dtype == torch.float64 and weights.item() == 1
    assert scores.item() > 0.9
    # The blur sees the Gaussian cut at 3 sigma, which costs a few hundredths of a pixel.
    assert (decoded / size * (size - 1) - keypoints).abs().max() < 0.1


def test_half_precision_is_decoded_in_float32(reference: dict[str, np.ndarray]) -> None:
    heatmaps, _ = encode(reference, "192x256")
    rounded = heatmaps.bfloat16()
    keypoints, scores = UDPHeatmap((192, 256)).decode(rounded)
    expected, _ = UDPHeatmap((192, 256)).decode(rounded.float())
    assert keypoints.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(keypoints, expected)


def test_autocast_does_not_touch_the_decoding(reference: dict[str, np.ndarray]) -> None:
    heatmaps, _ = encode(reference, "192x256")
    expected, _ = UDPHeatmap((192, 256)).decode(heatmaps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        keypoints, _ = UDPHeatmap((192, 256)).decode(heatmaps)
    torch.testing.assert_close(keypoints, expected, rtol=0, atol=0)


def test_heatmap_size_is_a_quarter_by_default_and_may_be_given() -> None:
    assert UDPHeatmap((96, 128)).heatmap_size == (24, 32)
    assert UDPHeatmap((96, 128), (48, 64)).encode(torch.zeros(1, 2, 2), torch.ones(1, 2))[0].shape == (
        1,
        2,
        64,
        48,
    )


def test_bad_arguments_are_one_clear_line() -> None:
    for sigma in (0.0, -2.0, float("nan")):
        with pytest.raises(UserError, match=r"^UDPHeatmap: sigma must be > 0[^\n]*$"):
            UDPHeatmap((192, 256), sigma=sigma)
    with pytest.raises(UserError, match="heatmap_size"):
        UDPHeatmap((4, 4))


def test_flip_average_undoes_the_mirror() -> None:
    codec = UDPHeatmap((96, 128))
    maps = torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    merged = codec.flip_average(maps, maps.flip(-1)[:, [0, 2, 1]], (0, 2, 1))
    torch.testing.assert_close(merged, maps)
    torch.testing.assert_close(codec.flip_average(maps, torch.zeros_like(maps), (0, 2, 1)), maps / 2)
