"""The one way from boxes to points, with networks that know where a colour is."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rtmpose import topdown
from rtmpose.files import UserError
from rtmpose.geometry import box_to_center_scale, crop_matrix, warp
from rtmpose.models import MEAN, STD, autocast
from rtmpose.skeleton import Skeleton
from rtmpose.targets import Codec, SimCC, UDPHeatmap, at_least_float32
from rtmpose.topdown import (
    WIDENED,
    Network,
    ThroughArrays,
    TopDown,
    crop_box,
    crop_boxes,
    in_precision,
    input_of,
    one_thread,
    planes_of,
)

SIZE = (96, 128)
COLOURS = Skeleton(
    name="colours", names=("red", "left_green", "right_blue"), limbs=(), flip=(0, 2, 1),
    sigmas=(0.05, 0.05, 0.05), upper=(), lower=(),
)  # fmt: skip
TRUTH = np.array([[120.0, 60.0], [160.0, 90.0], [140.0, 130.0]])


def photograph() -> np.ndarray:
    """One bright spot of each colour on black, 300x200 px."""
    y, x = np.mgrid[:200, :300]
    spots = [np.exp(-((x - px) ** 2 + (y - py) ** 2) / 50) for px, py in TRUTH]
    return np.round(255 * np.stack(spots, -1)).astype(np.uint8)


def brightest(images: Tensor) -> tuple[Tensor, Tensor]:
    """A network whose SimCC vectors are largest where a colour is brightest."""
    maps = (images + 2.2).clamp_min(0)
    return maps.amax(-2).repeat_interleave(2, -1), maps.amax(-1).repeat_interleave(2, -1)


def maps(images: Tensor) -> Tensor:
    """The same as heatmaps."""
    size = (images.shape[2] // 4, images.shape[3] // 4)
    positive = (images + 2.2).clamp_min(0)
    return torch.nn.functional.interpolate(positive, size, mode="bilinear", align_corners=True)


@pytest.mark.parametrize(
    ("network", "codec"), [(brightest, SimCC(SIZE)), (maps, UDPHeatmap(SIZE))], ids=["simcc", "heatmap"]
)
@pytest.mark.parametrize("box", [[90.0, 40.0, 100.0, 110.0], [110, 50, 300, 90], [-20, -10, 300, 200]])
def test_points_come_back_to_where_they_are(network: Network, codec: Codec, box: list[float]) -> None:
    way = TopDown(network, codec, COLOURS)
    crops = [way.crop(photograph(), box)] * 2
    points, scores = way.points(crops)
    assert points.shape == (2, 3, 2) and scores.shape == (2, 3) and points.dtype == np.float64
    image_px = crops[0].scale[0] / SIZE[0]  # for one input px
    assert np.abs(points - TRUTH).max() < 1.5 * image_px + 1 and (scores > 0).all()
    np.testing.assert_array_equal(points[0], points[1])


@pytest.mark.parametrize("udp", [False, True])
def test_all_boxes_of_an_image_are_cut_as_each_alone(udp: bool) -> None:
    """Also those over the border or beside the image, and of a photograph that lies apart in memory."""
    boxes = np.array([[90.0, 40, 100, 110], [-20, -10, 300, 200], [250, 150, 90.5, 70.25], [900, 900, 5, 5]])
    image = photograph()
    for pixels in (image, image[::2, ::-1]):
        together = crop_boxes(pixels, boxes, SIZE, udp=udp)
        alone = [crop_box(pixels, box, SIZE, udp=udp) for box in boxes]
        assert len(together) == 4 and together.pixels.shape == (4, 128, 96, 3)
        assert together.pixels[0].any() and not together.pixels[3].any()
        for row, crop in enumerate(alone):
            center, scale = box_to_center_scale(boxes[row], SIZE[0] / SIZE[1])
            expected = warp(pixels, crop_matrix(center, scale, 0.0, SIZE, udp), SIZE)
            np.testing.assert_array_equal(together.pixels[row], expected)
            np.testing.assert_array_equal(crop.pixels, expected)
            np.testing.assert_array_equal(together.center[row], crop.center)
            np.testing.assert_array_equal(together.scale[row], crop.scale)


NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
SIDE = st.floats(0.1, 400)
PLACE = st.floats(-500, 500)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(PLACE, PLACE, SIDE, SIDE), min_size=1, max_size=3), st.booleans())
@pytest.mark.parametrize(("widened", "largest"), [(0, 1e9), (WIDENED, 1e9), (1e6, 1e9), (1e6, 100)])
def test_a_fourth_channel_changes_no_pixel(
    widened: float, largest: float, boxes: list[tuple[float, float, float, float]], udp: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topdown, "WIDENED", widened)
        patch.setattr(topdown, "LARGEST", largest)
        crops = crop_boxes(NOISE, boxes, (24, 32), udp=udp)
    for pixels, center, scale in zip(crops.pixels, crops.center, crops.scale, strict=True):
        expected = warp(NOISE, crop_matrix(center, scale, 0.0, (24, 32), udp), (24, 32))
        np.testing.assert_array_equal(pixels, expected)


def test_no_boxes_are_no_crops() -> None:
    crops = crop_boxes(NOISE, np.empty((0, 4)), (24, 32), udp=True)
    assert len(crops) == 0 and planes_of(crops.pixels, MEAN, STD).shape == (0, 3, 32, 24)


def test_planes_are_the_values_of_the_input() -> None:
    crops = crop_boxes(NOISE, [[5, 5, 60, 70], [30, 2, 20, 25]], (24, 32), udp=True)
    planes = planes_of(crops.pixels, MEAN, STD)
    assert planes.flags.c_contiguous and planes.dtype == np.float32
    np.testing.assert_array_equal(planes, input_of(crops, MEAN, STD).numpy())


def test_a_batch_gives_the_points_that_its_crops_give() -> None:
    way = TopDown(brightest, SimCC(SIZE), COLOURS)
    boxes = [[90, 40, 100, 110], [110, 50, 300, 90]]
    together, alone = way.crops(photograph(), boxes), [way.crop(photograph(), box) for box in boxes]
    for ours, theirs in zip(way.points(together), way.points(alone), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_box_that_is_none_is_named_among_others() -> None:
    with pytest.raises(UserError, match=r"^box \[7, 8, 0, 0\]: give x, y, w, h"):
        crop_boxes(photograph(), [[10, 10, 20, 20], [7, 8, 0, 0]], SIZE, udp=False)


def test_a_runtime_gives_the_very_points_of_the_network() -> None:
    buffers: list[np.ndarray] = []

    def runtime(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reuses its output buffers, as some do."""
        assert images.flags.c_contiguous and images.dtype == np.float32
        x, y = brightest(torch.from_numpy(images))
        buffers[:] = buffers or [np.empty(x.shape, np.float32), np.empty(y.shape, np.float32)]
        buffers[0][:], buffers[1][:] = x.numpy(), y.numpy()
        return buffers[0], buffers[1]

    results = []
    for network in (brightest, ThroughArrays(runtime)):
        way = TopDown(network, SimCC(SIZE), COLOURS, flip_test=True)
        results.append(way.points([way.crop(photograph(), [90, 40, 100, 110])]))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_pytorch_keeps_to_one_thread_around_a_runtime() -> None:
    seen: dict[str, list[int]] = {"runtime": [], "decode": []}

    class Watched(SimCC):
        def decode(self, outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            seen["decode"].append(torch.get_num_threads())
            return super().decode(outputs)

    def runtime(images: np.ndarray) -> tuple[np.ndarray, ...]:
        seen["runtime"].append(torch.get_num_threads())
        return tuple(part.numpy() for part in brightest(torch.from_numpy(images)))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for network in (ThroughArrays(runtime), brightest):
            way = TopDown(network, Watched(SIZE), COLOURS)
            way.points([way.crop(photograph(), [90, 40, 100, 110])])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {"runtime": [2], "decode": [1, 2]}, "a runtime that is PyTorch itself keeps its threads"


def test_the_models_own_mean_and_deviation_are_used() -> None:
    seen: list[Tensor] = []

    def network(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(images)
        return brightest(images)

    crop = crop_box(np.full((200, 300, 3), 100, np.uint8), [100, 50, 60, 80], SIZE, udp=False)
    for mean, std in ((MEAN, STD), ((0.0, 100.0, 50.0), (1.0, 2.0, 50.0))):
        TopDown(network, SimCC(SIZE), COLOURS, mean=mean, std=std).points([crop])
        expected = (100 - torch.tensor(mean)) / torch.tensor(std)
        torch.testing.assert_close(seen[-1][0, :, 64, 48], expected)
        torch.testing.assert_close(input_of([crop], mean, std), seen[-1])


@pytest.mark.parametrize(
    "box",
    [
        [10, 10, 0, 0],
        [10, 10, -5, -5],
        [math.nan, 10, 20, 20],
        [10, math.inf, 20, 20],
        [10, 10, math.nan, 20],
        [10, 10, 20, math.inf],
        [0, 0, 1.7e308, 1.7e308],
    ],
)
def test_a_box_that_is_none_is_one_line(box: list[float]) -> None:
    with pytest.raises(UserError, match=r"^box \[[^\n]*give x, y, w, h[^\n]*$"):
        crop_box(photograph(), box, SIZE, udp=False)


def test_half_precision_is_lifted_before_it_is_averaged() -> None:
    """bfloat16 keeps 8 digits: the mean of two neighbouring values would be one of them."""
    model = torch.nn.Conv2d(3, 3, 1)
    images = torch.randn(2, 3, 128, 96)
    with torch.inference_mode():
        plain, half = (in_precision(model, "cpu", precision)(images) for precision in ("fp32", "bf16"))
    assert isinstance(plain, Tensor) and isinstance(half, Tensor)
    assert plain.dtype == torch.float32 and half.dtype == torch.bfloat16
    assert at_least_float32(half).dtype == torch.float32
    assert at_least_float32(plain) is plain and at_least_float32(plain.double()).dtype == torch.float64
    assert at_least_float32(torch.arange(300)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16), autocast("cpu", "fp32"):
        assert model(images).dtype == torch.float32

    points = []
    for precision in ("fp32", "bf16"):
        way = TopDown(_rounding(precision), SimCC(SIZE), COLOURS, flip_test=True)
        points.append(way.points([way.crop(photograph(), [90, 40, 100, 110])])[0])
    assert np.abs(points[0] - points[1]).max() < 5


def _rounding(precision: str) -> Network:
    def network(images: Tensor) -> tuple[Tensor, Tensor]:
        x, y = brightest(images)
        return (x.bfloat16(), y.bfloat16()) if precision == "bf16" else (x, y)

    return network


def test_what_has_no_sides_is_not_mirrored() -> None:
    """The flip test shows the network a mirror image, but none of a pose that has no left and right."""
    seen: list[Tensor] = []

    def network(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(images)
        return brightest(images)

    for flip, mirror, calls in (((0, 1, 2), None, 1), ((0, 1, 2), True, 2), ((0, 2, 1), None, 2)):
        seen.clear()
        skeleton = replace(COLOURS, flip=flip, mirror=mirror)
        way = TopDown(network, SimCC(SIZE), skeleton, flip_test=True)
        points, _ = way.points([way.crop(photograph(), [90.0, 40.0, 100.0, 110.0])])
        assert len(seen) == calls and np.abs(points[0] - TRUTH).max() < (2 if flip == (0, 1, 2) else 50)


def test_blocks_of_one_thread_side_by_side_leave_the_number_as_it_was() -> None:
    """A thread that enters while another one is inside does not take that one's 1 for the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)

    def work() -> None:
        for _ in range(1000):
            with one_thread():
                assert torch.get_num_threads() == 1

    try:
        for _ in range(5):
            with ThreadPoolExecutor(6) as threads:
                for done in [threads.submit(work) for _ in range(6)]:
                    done.result()
            with ThreadPoolExecutor(1) as fresh:
                assert fresh.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
