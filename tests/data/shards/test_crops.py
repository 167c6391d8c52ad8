"""A crop is as good as its photograph: it holds every pixel that augmentation can show, at the resolution it
needs.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from rtmpose.config import AugmentConfig
from rtmpose.data.raw.annotations import Person
from rtmpose.data.shards.crops import FINER, CutFor, crop_region, cut_crop
from rtmpose.data.shards.sample import tileable
from rtmpose.data.stream.augment import MIRROR, Augmenter, draw
from rtmpose.descriptors import load_skeleton
from rtmpose.geometry import clip_box, compose, crop_to_photograph, photograph_to_crop, transform_points, warp

COCO = load_skeleton("coco17")
CUT = CutFor((96, 128))


def person(box: tuple[float, float, float, float], seed: int = 0) -> Person:
    rng = np.random.default_rng(seed)
    points = np.array(box[:2]) + rng.uniform(0, 1, (17, 2)) * box[2:]
    return Person(1, 1, box, points.astype(np.float32), np.full(17, 2, np.uint8), 1.0, False, "coco17")


def photograph(width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize(("scale", "rotate"), [(0.4, 80.0), (0.5, 180.0)])
@pytest.mark.parametrize(
    "box", [(200.0, 100, 60, 150), (5.0, 300, 400, 120), (250.0, 30, 380, 440), (600.0, 400, 30, 70)]
)
def test_every_pixel_that_augmentation_shows_is_in_the_crop(
    box: tuple[float, float, float, float], scale: float, rotate: float
) -> None:
    image, someone = photograph(640, 480), person(box)
    region, reduction = crop_region(someone, COCO, CutFor((96, 128), scale=scale, rotate=rotate), 640, 480)
    crop = cut_crop(image, region, reduction)
    augmenter = Augmenter(AugmentConfig(scale=scale, rotate=rotate), COCO, (96, 128), udp=False)
    x, y, w, h = clip_box(someone.box, 640, 480)
    left, top = photograph_to_crop((x, y), crop.origin, crop.scale)
    fields = {
        "box": (left, top, w * crop.scale[0], h * crop.scale[1]), "origin": crop.origin, "scale": crop.scale,
    }  # fmt: skip
    to_image = crop_to_photograph(crop.origin, crop.scale)
    rng, halves = np.random.default_rng(3), 0
    for _ in range(60):
        drawn = draw(augmenter.config, rng)
        halves += drawn.half_body
        matrix, *_ = augmenter.place(fields, someone.keypoints, someone.visible, to_image, drawn)
        matrix = compose(matrix, MIRROR) if drawn.flip else matrix
        whole, cut = warp(image, matrix, (96, 128)), warp(crop.pixels, compose(matrix, to_image), (96, 128))
        inside = warp(np.full_like(image, 255), matrix, (96, 128))[..., 0] == 255
        inside = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
        difference = np.abs(whole.astype(int) - cut)[inside]
        # The picture changes slowly, so only a missing pixel or a shifted one makes a large difference.
        assert difference.size == 0 or np.percentile(difference, 99) <= 12
    assert halves > 5


def test_crops_are_never_enlarged_and_keep_what_the_input_needs() -> None:
    small = crop_region(person((300.0, 200, 20, 50)), COCO, CUT, 640, 480)
    assert small[1] == 1
    region, reduction = crop_region(person((10.0, 10, 600, 460)), COCO, CUT, 640, 480)
    # padded 600 x 460 -> 750 x 1000 at 3:4, shown at 0.6 of that in 96 x 128 px
    assert reduction == pytest.approx(FINER * 96 / (750 * 0.6))
    crop = cut_crop(photograph(640, 480), region, reduction)
    assert crop.scale[0] >= reduction and crop.scale[1] >= reduction
    assert crop.pixels.shape[0] == math.ceil((region[3] - region[1]) * reduction)
    assert crop.pixels.shape[1] == tileable(math.ceil((region[2] - region[0]) * reduction))


def test_a_region_is_as_large_as_the_strongest_augmentation() -> None:
    """A square box in the middle of a huge image: the half diagonal of its 3:4 crop, times 1.4, and the
    shift.
    """
    alone = person((5000.0, 5000, 100, 100))
    alone.visible[:] = 0
    (left, top, right, bottom), _ = crop_region(alone, COCO, CUT, 10_000, 10_000)
    width, height = 125.0, 125 / 0.75
    reach = 1.4 / 2 * np.hypot(width, height) + 0.16 * 125
    assert bottom - 5050 == pytest.approx(reach, abs=2)
    # aligned to the photograph's blocks, and made wider until it divides into tiles
    assert 0 <= 5050 - left - reach < 9 and 0 <= 5050 - top - reach < 9 and left % 8 == top % 8 == 0
    assert reach - 2 <= right - 5050 <= reach + 32 and tileable(right - left) == right - left


def test_a_region_holds_the_half_bodies() -> None:
    """Upper points at the box's left side but for one: their mean lies there, their extent is the
    whole box.
    """
    someone = person((5000.0, 5000, 100, 200))
    someone.keypoints[:] = (5000, 5000)
    someone.keypoints[0] = (5100, 5200)
    someone.visible[list(COCO.lower)] = 0
    (left, _, _, _), _ = crop_region(someone, COCO, CUT, 10_000, 10_000)
    height, mean = 200 * 1.5, 5000 + 100 / 11
    reach = 1.4 / 2 * np.hypot(height * 0.75, height) + 0.16 * 100 * 1.5
    assert 0 <= mean - left - reach < 9


def test_points_keep_their_pixels() -> None:
    """A dark dot lies where its keypoint says, in the photograph, in the reduced crop, and on the
    way back.
    """
    image = np.full((480, 640, 3), 255, np.uint8)
    cv2.circle(image, (300, 200), 6, (0, 0, 0), -1)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8)  # nothing finer than the reduced pixels
    crop = cut_crop(image, (101, 53, 620, 470), 0.37)
    point = photograph_to_crop((300, 200), crop.origin, crop.scale)
    weight = 255.0 - crop.pixels[..., 0]
    ys, xs = np.mgrid[: weight.shape[0], : weight.shape[1]]
    found = np.array([(xs * weight).sum(), (ys * weight).sum()]) / weight.sum()
    np.testing.assert_allclose(found, point, atol=0.05)
    np.testing.assert_allclose(
        transform_points(point, crop_to_photograph(crop.origin, crop.scale)), (300, 200)
    )


def test_box_is_clipped_as_the_reference_clips_it() -> None:
    assert clip_box((-10, -20, 50, 600), 640, 480) == (0, 0, 40, 479)
    assert clip_box((600, 5, 100, 10), 640, 480) == (600, 5, 39, 10)
