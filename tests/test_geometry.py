"""The crop mathematics against the reference's figures and pixels, and its laws."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.descriptors import load_skeleton
from rtmpose.geometry import (
    box_to_center_scale,
    compose,
    crop_matrix,
    crop_to_image,
    fix_aspect,
    flip_points,
    half_body,
    pad_box,
    transform_points,
    warp,
)
from tests.support import assert_golden, golden, realdata

COCO = load_skeleton("coco17")
SIZES = {"192x256": (192, 256), "288x384": (288, 384), "256x256": (256, 256)}


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return dict(np.load(golden("transforms.npz")))


def boxes_xywh(corners: Any) -> np.ndarray:
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float64)


@pytest.mark.parametrize("tag", SIZES)
@pytest.mark.parametrize("mode", ["plain", "udp"])
def test_crops_equal_the_reference(tag: str, mode: str, reference: dict[str, Any]) -> None:
    size, boxes = SIZES[tag], boxes_xywh(reference["bboxes_xyxy"])
    center, scale = box_to_center_scale(boxes, size[0] / size[1])
    assert_golden(center, reference[f"{tag}_{mode}_center"])
    assert_golden(pad_box(boxes)[1], reference[f"{tag}_{mode}_scale_raw_then_fixed"][:, 0])
    assert_golden(scale, reference[f"{tag}_{mode}_scale_raw_then_fixed"][:, 1])
    points = reference["ann_keypoints"][0, :, :2]
    for i, rotation in enumerate(reference["rotations_deg"]):
        matrix = crop_matrix(center[i], scale[i], rotation, size, udp=mode == "udp")
        assert_golden(matrix, reference[f"{tag}_{mode}_warp"][i])
        np.testing.assert_allclose(
            transform_points(points, matrix), reference[f"{tag}_{mode}_kpts"][i], rtol=2e-6, atol=2e-4
        )


@pytest.mark.parametrize(
    ("name", "rotation", "most"), [("plain", 0, 4), ("udp", 0, 4), ("plain_rot25", 25, 5)]
)
def test_warped_pixels_equal_the_reference(
    name: str, rotation: int, most: int, reference: dict[str, Any]
) -> None:
    # One value of 147,456 of the turned crop is 5 levels off: OpenCV 5 interpolates exactly, 4.11 in steps of
    # 1/32 px.
    image = cv2.imread(str(realdata("coco_wholebody/val2017/000000000785.jpg")))
    assert image is not None
    center, scale = box_to_center_scale(reference["ann_bbox_xywh"], 192 / 256)
    matrix = crop_matrix(center, scale, rotation, (192, 256), udp=name == "udp")
    difference = np.abs(warp(image, matrix, (192, 256)).astype(int) - reference[f"crop_192x256_{name}"])
    assert difference.max() <= most and (difference > 4).sum() <= 1
    assert (difference <= 1).mean() >= 0.98
    points = reference["ann_keypoints"][0, :, :2]
    assert_golden(transform_points(points, matrix), reference[f"crop_192x256_{name}_kpts"][0])


def test_flip_equals_the_reference(reference: dict[str, Any]) -> None:
    width = int(reference["img_shape"][1])
    flipped = flip_points(reference["ann_keypoints"][0, :, :2], width, COCO.flip)
    assert_golden(flipped, reference["flip_kpts"][0])
    center, _ = pad_box(reference["ann_bbox_xywh"])
    assert_golden((width - 1 - center[0], center[1]), reference["flip_center"][0])


def test_half_body_equals_the_reference(reference: dict[str, Any]) -> None:
    points = reference["ann_keypoints"][0]
    center, scale = half_body(points[:, :2], points[:, 2], COCO.upper)
    assert_golden(center, reference["halfbody_upper_center"])
    assert_golden(scale, reference["halfbody_upper_scale"])


side = st.floats(2, 2000)
place = st.floats(-500, 2500)
angle = st.floats(-180, 180)
size = st.sampled_from([(192, 256), (96, 128), (256, 256), (288, 384)])


@settings(max_examples=60, deadline=None)
@given(place, place, side, side, angle, size, st.booleans())
def test_there_and_back(
    x: float, y: float, w: float, h: float, turn: float, wh: tuple[int, int], udp: bool
) -> None:
    center, scale = box_to_center_scale((x, y, w, h), wh[0] / wh[1])
    matrix = crop_matrix(center, scale, turn, wh, udp)
    points = np.array([[x, y], [x + w, y + h], [0.0, 0.0]])
    back = cv2.invertAffineTransform(matrix)
    np.testing.assert_allclose(transform_points(transform_points(points, matrix), back), points, atol=1e-6)
    np.testing.assert_allclose(compose(back, matrix), [[1, 0, 0], [0, 1, 0]], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(place, place, side, side, size, st.booleans())
def test_decoded_points_come_home(
    x: float, y: float, w: float, h: float, wh: tuple[int, int], udp: bool
) -> None:
    center, scale = box_to_center_scale((x, y, w, h), wh[0] / wh[1])
    points = np.array([[[x, y], [x + w, y + h], [x + w / 3, y]]])  # (1, 3, 2)
    inside = transform_points(points, crop_matrix(center, scale, 0, wh, udp))
    if udp:  # what the UDP decoder does to its frame of W - 1 steps
        inside = inside * wh / (np.array(wh) - 1)
    np.testing.assert_allclose(crop_to_image(inside, center[None], scale[None], wh), points, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(side, side, st.floats(0.3, 3))
def test_aspect_is_fixed_by_growing(w: float, h: float, aspect: float) -> None:
    fixed = fix_aspect((w, h), aspect)
    assert fixed[0] / fixed[1] == pytest.approx(aspect)
    assert fixed[0] >= w - 1e-9 and fixed[1] >= h - 1e-9
    assert min(fixed[0] - w, fixed[1] - h) == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4000))
def test_flipping_twice_is_nothing(seed: int, width: int) -> None:
    points = np.random.default_rng(seed).uniform(-50, 4000, (2, 17, 2))
    np.testing.assert_allclose(flip_points(flip_points(points, width, COCO.flip), width, COCO.flip), points)


def test_a_mirrored_udp_crop_is_the_crop_mirrored() -> None:
    """UDP's reason to be: the middle of the crop is the middle of the box, for odd and even sizes alike."""
    matrix = crop_matrix((100.0, 80.0), (192.0, 256.0), 0, (192, 256), udp=True)
    left, right = transform_points([[100 - 30.0, 80], [100 + 30.0, 80]], matrix)
    assert left[0] + right[0] == pytest.approx(191)
