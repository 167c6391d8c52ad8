"""The one crop mathematics: boxes to centre and scale, affine crops, points there and back.

Sizes are (w, h), points (x, y) px, boxes (x, y, w, h) px. A crop is described by its centre and its scale,
the side lengths in image px that are laid onto the network's input. Two conventions of where a pixel lies are
in use:

- plain: pixel corners, input px = (x - left) * W / scale. SimCC's targets use it.
- udp: pixel centres, W - 1 steps between the first and the last pixel (UDP, Huang et al., arXiv 1911.07524):
  flipping
  the input then mirrors the points exactly. Heatmaps use it.

For one angle the two rotate in opposite directions; the trained reference weights carry this convention, so
it stays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]

PADDING = 1.25  # a box grows by this factor before it becomes a crop, in training and in inference alike
HALF_BODY_PADDING = 1.5  # the same for the box around half of the keypoints


def clip_box(box: ArrayLike, width: float, height: float) -> tuple[float, float, float, float]:
    """An xywh box px cut to [0, width-1] x [0, height-1]; a side of a box outside the image comes out
    negative or 0.
    """
    x, y, w, h = map(float, np.asarray(box))
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + w, width - 1.0) - left, min(y + h, height - 1.0) - top


def pad_box(box: ArrayLike, padding: float = PADDING) -> tuple[Floats, Floats]:
    """Box (..., 4) xywh px -> centre (..., 2) and padded side lengths (..., 2), aspect ratio as the box has
    it.
    """
    box = np.asarray(box, np.float64)
    return box[..., :2] + box[..., 2:] / 2, box[..., 2:] * padding


def fix_aspect(scale: ArrayLike, aspect: float) -> Floats:
    """Lengthen the shorter side of scale (..., 2) until w / h = `aspect`."""
    scale = np.asarray(scale, np.float64)
    width = np.maximum(scale[..., 0], scale[..., 1] * aspect)
    return width[..., None] / (1.0, aspect)


def box_to_center_scale(box: ArrayLike, aspect: float, padding: float = PADDING) -> tuple[Floats, Floats]:
    """Box (..., 4) xywh px -> centre (..., 2), scale (..., 2) px of its crop at w / h = `aspect`."""
    center, scale = pad_box(box, padding)
    return center, fix_aspect(scale, aspect)


def crop_matrix(
    center: ArrayLike, scale: ArrayLike, rotation_deg: float, size: tuple[int, int], udp: bool
) -> Floats:
    """The (2, 3) matrix that takes image px to px of a `size` crop; `scale` (2,) must have the crop's aspect
    ratio.

    plain: W/w * R^T about the centre -> (W/2, H/2); udp: diag((W-1)/w, (H-1)/h) * R -> ((W-1)/2, (H-1)/2),
    with R = [[cos, -sin], [sin, cos]].
    """
    (width, height), (x, y) = (map(float, pair) for pair in (np.asarray(scale), np.asarray(center)))
    right, bottom = (side - (1 if udp else 0) for side in size)
    across, down = right / width, (bottom / height if udp else right / width)
    angle = math.radians(rotation_deg if udp else -rotation_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, c, d = across * cos, -across * sin, down * sin, down * cos
    return np.array([[a, b, right / 2 - a * x - b * y], [c, d, bottom / 2 - c * x - d * y]])


def compose(second: ArrayLike, first: ArrayLike) -> Floats:
    """The (2, 3) matrix that applies `first`, then `second`."""
    a, b = np.asarray(second, np.float64), np.asarray(first, np.float64)
    both = a[:, :2] @ b
    both[:, 2] += a[:, 2]
    return both


def crop_to_photograph(origin: tuple[int, int], scale: tuple[float, float]) -> Floats:
    """The (2, 3) matrix from px of a stored crop to px of its photograph, which begins at `origin` there and
    has `scale` crop px per photograph px; pixel centres map to pixel centres, as area resampling has them.
    """
    (x, y), (sx, sy) = origin, scale
    return np.array([[1 / sx, 0.0, 0.5 / sx - 0.5 + x], [0.0, 1 / sy, 0.5 / sy - 0.5 + y]])


def photograph_to_crop(points: ArrayLike, origin: tuple[int, int], scale: tuple[float, float]) -> Floats:
    """Points (..., 2) px of a photograph -> px of its stored crop: `crop_to_photograph` backwards."""
    return (np.asarray(points, np.float64) - origin + 0.5) * scale - 0.5


def transform_points(points: ArrayLike, matrix: ArrayLike) -> Floats:
    """Points (..., 2) through a (2, 3) matrix."""
    matrix = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def warp(
    image: NDArray[np.uint8], matrix: ArrayLike, size: tuple[int, int], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The uint8 crop (H, W, 3) of `size` (w, h): bilinear, black outside the image; written into `out` where
    it is given.
    """
    matrix = np.asarray(matrix, np.float64)
    return cv2.warpAffine(image, matrix, size, dst=out, flags=cv2.INTER_LINEAR)


def crop_to_image(points: ArrayLike, center: ArrayLike, scale: ArrayLike, size: tuple[int, int]) -> Floats:
    """Decoded points (..., K, 2) in input px -> image px, for crops of centre and scale (..., 2) without
    rotation.

    Holds for both codecs: the UDP decoder already stretches its W - 1 steps over W.
    """
    center, scale = np.asarray(center, np.float64)[..., None, :], np.asarray(scale, np.float64)[..., None, :]
    return np.asarray(points, np.float64) / np.asarray(size, np.float64) * scale + center - scale / 2


def flip_points(points: ArrayLike, width: float, flip: ArrayLike) -> Floats:
    """Points (..., K, 2) of an image `width` px wide -> their places in its mirror image: x to width-1-x,
    pairs swapped.
    """
    mirrored = np.array(points, np.float64)[..., np.asarray(flip), :]
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    return mirrored


def half_body(keypoints: ArrayLike, visible: ArrayLike, half: Sequence[int]) -> tuple[Floats, Floats]:
    """Centre (2,) and side lengths (2,) of the crop around the visible keypoints (K, 2) whose indices are in
    `half`.

    The centre is the mean of the points, the sides are their extent times 1.5 (the half-body augmentation of
    RTMPose's recipe); no further padding follows.
    """
    # Plain numbers: for a few points, array operations cost more than they compute.
    points, seen = np.asarray(keypoints).tolist(), np.asarray(visible).tolist()
    x, y = zip(*(points[k] for k in half if seen[k] > 0), strict=True)
    extent = (max(x) - min(x)) * HALF_BODY_PADDING, (max(y) - min(y)) * HALF_BODY_PADDING
    return np.array((sum(x) / len(x), sum(y) / len(y))), np.array(extent)
