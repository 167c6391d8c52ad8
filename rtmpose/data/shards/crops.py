"""One crop per person: everything the strongest augmentation can show of the photograph, and not a pixel more
than it needs.

A crop stands for its photograph: `origin` and `scale` lead from its pixels back to the image's, so
augmentation is computed in image px as if the whole photograph were there, and only the pixels come from the
crop.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.annotations import Person
from rtmpose.data.shards.sample import MCU, tileable
from rtmpose.geometry import HALF_BODY_PADDING, PADDING, clip_box, fix_aspect, half_body, pad_box
from rtmpose.skeleton import Skeleton

QUALITY = 88  # chosen with FINER by `benchmarks/crop_quality.py`
FINER = 1.5  # crop px per input px in the closest look at a full box


@dataclass(frozen=True)
class CutFor:
    """What the crops are large and sharp enough for: the largest input (w, h) px, and the strongest box
    jitter: shift as a share of the padded box, scale as a share of 1, rotation in degrees, with the padding
    of the box (RTMPose's strong stage).
    """

    input_size: tuple[int, int]
    shift: float = 0.16
    scale: float = 0.4
    rotate: float = 80.0
    padding: float = PADDING
    half_body_padding: float = HALF_BODY_PADDING

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Crop:
    """An image region (left, top, right, bottom) px and its pixels reduced by `scale` (x, y), crop px per
    image px (<= 1).
    """

    pixels: NDArray[np.uint8]
    origin: tuple[int, int]
    scale: tuple[float, float]


def crop_region(
    person: Person, skeleton: Skeleton, cut_for: CutFor, width: int, height: int
) -> tuple[tuple[int, int, int, int], float]:
    """The (left, top, right, bottom) px that any allowed augmentation of the person can reach, and the
    reduction (<= 1).

    The region is the union over the full box and both half bodies. The reduction keeps FINER crop px per
    input px where the full box is shown largest, at scale 1 - `cut_for.scale`; a half body is a closer look
    at the same pixels and gets no finer ones. The region begins at multiples of 8 px, where the photograph's
    own JPEG blocks begin.
    """
    aspect = cut_for.input_size[0] / cut_for.input_size[1]
    center, scale = pad_box(clip_box(person.box, width, height), cut_for.padding)
    views = [(center, scale)]
    seen = (person.visible > 0).tolist()
    for half in (skeleton.upper, skeleton.lower):
        if sum([seen[k] for k in half]) >= 2:
            views.append(half_body(person.keypoints, person.visible, half))
    # Plain numbers from here on: for one person, array operations cost more than they compute.
    scales = [s.tolist() for _, s in views]
    sides = fix_aspect(scales, aspect).tolist()
    edges = [
        _edges(c.tolist(), s, side, cut_for) for (c, _), s, side in zip(views, scales, sides, strict=True)
    ]
    left, top = (max(math.floor(min(edge[i] for edge in edges)), 0) // MCU * MCU for i in (0, 1))
    right = min(max(math.ceil(max(edge[2] for edge in edges) + 1), 1), width)
    bottom = min(max(math.ceil(max(edge[3] for edge in edges) + 1), 1), height)
    reduction = min(1.0, FINER * cut_for.input_size[0] / (sides[0][0] * (1 - cut_for.scale)))
    if reduction == 1:
        right = min(left + tileable(right - left), width)
    return (left, top, right, bottom), reduction


def _edges(
    center: list[float], scale: list[float], side: list[float], cut_for: CutFor
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) px of all that a crop of sides `scale`, lengthened to `side`, can show, at
    the worst shift, scale and rotation.
    """
    w, h = (length / 2 * (1 + cut_for.scale) for length in side)
    # Of the corner's turn by any angle up to `rotate`, the extent is largest where the half diagonal lies on
    # the axis.
    most = math.radians(cut_for.rotate)
    across, along = min(most, math.atan2(h, w)), min(most, math.atan2(w, h))
    dx = w * math.cos(across) + h * math.sin(across) + cut_for.shift * scale[0]
    dy = h * math.cos(along) + w * math.sin(along) + cut_for.shift * scale[1]
    return center[0] - dx, center[1] - dy, center[0] + dx, center[1] + dy


def cut_crop(image: NDArray[np.uint8], region: tuple[int, int, int, int], reduction: float) -> Crop:
    """Cut `region` out of an image (H, W, 3) and reduce it; never enlarges.

    Cubic, without a low-pass before: augmentation warps the photograph by bilinear sampling alone, and this
    comes closest.
    """
    left, top, right, bottom = region
    pixels = image[top:bottom, left:right]
    height, width = pixels.shape[:2]
    if reduction < 1:
        # Rounded up: the crop must not become coarser than the input needs.
        size = (min(tileable(math.ceil(width * reduction)), width), math.ceil(height * reduction))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    return Crop(pixels, (left, top), (pixels.shape[1] / width, pixels.shape[0] / height))
