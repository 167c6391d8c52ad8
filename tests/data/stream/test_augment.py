"""The augmentation draws from the published distributions, and moves pixels and keypoints together."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.config import AugmentConfig
from rtmpose.data.stream.augment import (
    Augmenter,
    Draws,
    Part,
    choose_half,
    cut_hole,
    draw,
    jitter_hsv,
    truncated_normal,
)
from rtmpose.descriptors import load_skeleton
from rtmpose.geometry import box_to_center_scale, crop_matrix, transform_points
from tests.support import assert_golden, golden

COCO = load_skeleton("coco17")
N = 50_000
STRONG = AugmentConfig()
WEAK = AugmentConfig(shift=0.0, scale=0.25, rotate=60.0, hole=0.5)
OFF = AugmentConfig(
    flip=0, half_body=0, shift=0, shift_prob=0, scale=0, rotate=0, rotate_prob=0, hue=0, saturation=0,
    value=0, hole=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def stats() -> dict[str, Any]:
    return dict(json.loads(golden("transforms_stats.json").read_text()))


@cache
def drawn(config: AugmentConfig) -> list[Draws]:
    return [draw(config, np.random.default_rng((7, i))) for i in range(N)]


BODY8, HAND = AugmentConfig(scale=0.5, rotate=90.0), AugmentConfig(scale=0.5, rotate=180.0)


@pytest.mark.parametrize(
    ("config", "stage"), [(STRONG, "stage1"), (WEAK, "stage2"), (BODY8, "body8_stage1"), (HAND, "hand")]
)
def test_box_jitter(config: AugmentConfig, stage: str, stats: dict[str, Any]) -> None:
    expected, draws = stats[stage], drawn(config)
    levels = expected["quantile_levels"]
    share = 4 * np.sqrt(0.25 / N)  # four standard errors of a share
    scale = np.array([one.scale for one in draws])
    assert scale.mean() == pytest.approx(expected["scale_mean"], abs=0.004)
    assert scale.std() == pytest.approx(expected["scale_std"], rel=0.01)
    np.testing.assert_allclose(np.percentile(scale, levels), expected["scale_quantiles"], atol=0.008)
    turn = np.array([one.rotation for one in draws])
    assert (turn != 0).mean() == pytest.approx(expected["p_rot_nonzero"], abs=share)
    assert turn[turn != 0].std() == pytest.approx(expected["rot_given_std"], rel=0.01)
    np.testing.assert_allclose(
        np.percentile(turn[turn != 0], levels), expected["rot_given_quantiles"], atol=0.02 * config.rotate
    )
    shift = np.array([one.shift for one in draws])
    moved = shift[:, 0] != 0
    assert (moved == (shift[:, 1] != 0)).all()
    assert moved.mean() == pytest.approx(expected["p_shift_nonzero"], abs=share)
    if moved.any():
        assert shift[moved].std() == pytest.approx(expected["shift_given_std"], rel=0.015)
        np.testing.assert_allclose(
            np.percentile(shift[moved], levels), expected["shift_given_quantiles"], atol=0.004
        )
        assert abs(np.corrcoef(shift[moved].T)[0, 1]) < 0.03
    assert np.mean([one.flip for one in draws]) == pytest.approx(0.5, abs=share)


def test_truncated_normal(stats: dict[str, Any]) -> None:
    values = [truncated_normal(u) for u in (np.arange(N) + 0.5) / N]
    assert np.std(values) == pytest.approx(stats["truncnorm_unit"]["std"], abs=1e-4)
    assert truncated_normal(0.0) == pytest.approx(-1) and truncated_normal(1 - 1e-12) == pytest.approx(1)


def test_hsv_gains(stats: dict[str, Any]) -> None:
    gains, expected = np.array([one.gains for one in drawn(STRONG)]), stats["hsv"]
    np.testing.assert_allclose((gains == 0).mean(axis=0), expected["p_zero"], atol=0.008)
    assert gains.min(axis=0).tolist() == expected["min"] and gains.max(axis=0).tolist() == expected["max"]
    np.testing.assert_allclose(gains.std(axis=0), expected["std"], rtol=0.015)
    for hue, share in expected["hue_values"].items():
        assert (gains[:, 0] == int(hue)).mean() == pytest.approx(share, abs=0.008)


def test_half_body_choice(stats: dict[str, Any]) -> None:
    draws = drawn(STRONG)
    for case, expected in stats["halfbody"]["empirical"].items():
        upper, lower = (int(part.strip("uperlow")) for part in case.split("_")[1:])
        visible = np.zeros(17)
        visible[list(COCO.upper)[:upper]] = visible[list(COCO.lower)[:lower]] = 1
        chosen = [choose_half(visible, COCO, one.prefer_upper) if one.half_body else None for one in draws]
        for name, half in (("none", None), ("upper", COCO.upper), ("lower", COCO.lower)):
            share = np.mean([choice == half for choice in chosen])
            assert share == pytest.approx(expected[name], abs=0.012), (case, name)


def test_hsv_equals_the_reference() -> None:
    reference = np.load(golden("transforms.npz"))
    image = np.ascontiguousarray(reference["crop_192x256_plain"][..., ::-1])
    for case in ("seed5", "manual"):
        gains = tuple(int(gain) for gain in reference[f"hsv_{case}_gains"])
        assert len(gains) == 3
        difference = np.abs(jitter_hsv(image, gains).astype(int) - reference[f"hsv_{case}_img"][..., ::-1])
        assert (difference <= 1).mean() > 0.98 and difference.max() <= 4


def holes(config: AugmentConfig, count: int) -> tuple[np.ndarray, float]:
    """(y, x, h, w) of the black holes that are left in white 256x192 images, and the share without one."""
    found, none = [], 0
    for seed in range(count):
        white = np.full((256, 192), 255, np.uint8)
        cut_hole(white, draw(config, np.random.default_rng(seed)).hole)
        black = 255 - white
        x, y, w, h = cv2.boundingRect(black)
        if w == 0:
            none += 1
            continue
        assert cv2.countNonZero(black) == h * w  # one rectangle
        found.append((y, x, h, w))
    return np.array(found), none / count


@pytest.mark.parametrize("stage", ["1.0", "0.5"])
def test_one_hole_of_the_published_size(stage: str, stats: dict[str, Any]) -> None:
    expected = stats[f"coarse_dropout_p{stage}"]
    found, none = holes(OFF.model_copy(update={"hole": float(stage)}), N)
    assert none == pytest.approx(expected["p_none"], abs=0.01)
    for column, side in ((2, "hole_h"), (3, "hole_w")):
        low, mean, high = expected[side]
        assert low <= found[:, column].min() <= low + 1 and high - 1 <= found[:, column].max() <= high
        assert found[:, column].mean() == pytest.approx(mean, rel=0.01)
    assert abs(np.corrcoef(found[:, 2], found[:, 3])[0, 1]) < 0.02  # drawn independently
    assert (found[:, 2] * found[:, 3] / (256 * 192)).mean() == pytest.approx(
        expected["mean_area_fraction"], rel=0.01
    )
    for column, axis in ((0, "y"), (1, "x")):
        low, high = expected[axis]
        assert low <= found[:, column].min() <= low + 2 and high - 6 <= found[:, column].max() <= high + 3


def whole(image: np.ndarray) -> Part:
    return lambda low, high: (image, (0, 0))


def scene() -> tuple[np.ndarray, dict[str, Any], np.ndarray, np.ndarray]:
    """A 160x120 crop with a white dot at the first keypoint of a person, as a shard holds it."""
    rng = np.random.default_rng(5)
    points = rng.uniform((45, 25), (115, 95), (17, 2))
    image = np.zeros((120, 160, 3), np.uint8)
    points[0] = np.round(points[0])
    cv2.circle(image, (int(points[0, 0]), int(points[0, 1])), 3, (255, 255, 255), -1)
    fields = {"box": [40, 20, 80, 80], "origin": [30, 10], "scale": [0.5, 0.5]}
    return image, fields, points, np.full(17, 2)


@pytest.mark.parametrize("udp", [False, True])
def test_pixels_and_keypoints_move_together(udp: bool) -> None:
    image, fields, points, visible = scene()
    config = STRONG.model_copy(update={"half_body": 0.5, "hole": 0.0})
    augmenter, seen = Augmenter(config, COCO, (96, 128), udp), 0
    for seed in range(80):
        shown, moved, _ = augmenter(whole(image), fields, points, visible, np.random.default_rng(seed))
        weight = np.where(shown[..., 1] > 60, shown[..., 1], 0).astype(
            float
        )  # nothing but the nose's dot is bright
        x, y = moved[0]
        if weight.sum() < 2000 or not (8 < x < 88 and 8 < y < 120):
            continue
        ys, xs = np.mgrid[:128, :96]
        seen += 1
        found = ((xs * weight).sum() / weight.sum(), (ys * weight).sum() / weight.sum())
        np.testing.assert_allclose(found, moved[0], atol=0.6)
    assert seen > 30


def test_no_augmentation_is_the_plain_crop() -> None:
    image, fields, points, visible = scene()
    shown, moved, _ = Augmenter(OFF, COCO, (96, 128), False)(
        whole(image), fields, points, visible, np.random.default_rng(0)
    )
    left, top = (40 + 0.5) * 2 - 0.5 + 30, (20 + 0.5) * 2 - 0.5 + 10
    matrix = crop_matrix(*box_to_center_scale((left, top, 160, 160), 96 / 128), 0, (96, 128), False)
    assert_golden(moved, transform_points((points + 0.5) * 2 - 0.5 + (30, 10), matrix))
    assert shown.shape == (128, 96, 3) and shown.dtype == np.uint8


@pytest.mark.parametrize("udp", [False, True])
def test_mirror_swaps_left_and_right(udp: bool) -> None:
    image, fields, points, visible = scene()
    fields["box"] = [39.5, 20, 80, 80]
    plain = Augmenter(OFF, COCO, (96, 128), udp)(
        whole(image), fields, points, visible, np.random.default_rng(0)
    )
    mirror = OFF.model_copy(update={"flip": 1.0})
    flipped = Augmenter(mirror, COCO, (96, 128), udp)(
        whole(image), fields, points, visible, np.random.default_rng(0)
    )
    last = 95 if udp else 96
    np.testing.assert_allclose(flipped[1][:, 0], last - plain[1][list(COCO.flip), 0], atol=1e-6)
    np.testing.assert_allclose(flipped[1][:, 1], plain[1][list(COCO.flip), 1], atol=1e-6)
    labelled = visible.copy()
    labelled[COCO.names.index("left_wrist")] = 0
    _, _, weights = Augmenter(mirror, COCO, (96, 128), udp)(
        whole(image), fields, points, labelled, np.random.default_rng(0)
    )
    assert (weights == labelled[list(COCO.flip)]).all() and (weights != labelled).any(), (
        "flags go with their points"
    )
    if udp:  # pixel centres: the mirrored crop is the crop, mirrored
        assert np.abs(flipped[0][:, ::-1].astype(int) - plain[0]).max() <= 2


def test_the_same_generator_gives_the_same_sample() -> None:
    image, fields, points, visible = scene()
    augmenter = Augmenter(STRONG, COCO, (96, 128), False)
    first = augmenter(whole(image), fields, points, visible, np.random.default_rng(3))
    other = augmenter(whole(image), fields, points, visible, np.random.default_rng(4))
    again = augmenter(whole(image), fields, points, visible, np.random.default_rng(3))
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert (first[0] != other[0]).any()


def test_a_part_of_the_crop_is_enough() -> None:
    """Only what the view shows, and two pixels around it, is asked for; the rest may be anything."""
    rng = np.random.default_rng(1)
    image, fields, points, visible = scene()
    image = rng.integers(0, 255, image.shape, dtype=np.uint8)
    augmenter, smaller = Augmenter(STRONG, COCO, (96, 128), False), 0

    def part(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        nonlocal smaller
        (left, top), (right, bottom) = (
            np.clip(np.floor(low), 0, (160, 120)).astype(int),
            np.ceil(high).astype(int),
        )
        shown = np.ascontiguousarray(image[top:bottom, left:right])
        smaller += shown.size < image.size / 2
        return (shown, (left, top)) if shown.size else (np.zeros((1, 1, 3), np.uint8), (0, 0))

    for seed in range(60):
        first, _, _ = augmenter(whole(image), fields, points, visible, np.random.default_rng(seed))
        other, _, _ = augmenter(part, fields, points, visible, np.random.default_rng(seed))
        assert (
            np.percentile(np.abs(first.astype(int) - other), 99.9) <= 12
        )  # a level of the warp, more of the hue
    assert smaller > 5


def test_a_half_body_on_one_pixel_keeps_the_whole() -> None:
    image, fields, points, visible = scene()
    points[:] = points[0]
    augmenter = Augmenter(STRONG.model_copy(update={"half_body": 1.0}), COCO, (96, 128), False)
    for seed in range(20):
        shown, moved, _ = augmenter(whole(image), fields, points, visible, np.random.default_rng(seed))
        assert np.isfinite(moved).all() and shown.shape == (128, 96, 3)


def test_what_has_no_sides_is_not_mirrored() -> None:
    """At flip 1 every image is mirrored, but none of a skeleton without left and right points."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :10] = 255  # white on the left
    fields = {"origin": [0, 0], "scale": [1.0, 1.0], "box": [0.0, 0.0, 40.0, 40.0]}
    always = OFF.model_copy(update={"flip": 1.0})
    for skeleton, mirrored in ((load_skeleton("cephalometric38"), False),
                               (load_skeleton("coco_wholebody_hand"), True), (COCO, True)):  # fmt: skip
        count = skeleton.num_keypoints
        augmenter = Augmenter(always, skeleton, (32, 32), udp=True)
        points = np.tile([5.0, 20.0], (count, 1))
        image, moved, _ = augmenter(
            lambda low, high: (pixels, (0, 0)), fields, points, np.full(count, 2), np.random.default_rng(0)
        )
        left, right = image[:, :16].mean(), image[:, 16:].mean()
        assert (right > left) == mirrored and (moved[0, 0] > 16) == mirrored, skeleton.name
