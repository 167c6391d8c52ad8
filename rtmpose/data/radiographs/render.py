"""A head as a film shows it: what weakens the rays is added up, and grey levels are made of it.

Soft tissue is a smooth body within the skin. Bones are filled outlines with brighter borders, teeth brighter
ones, cavities darker. Blur, noise, contrast, a collimator's dark frame and a scale at the border follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.radiographs.anatomy import OUTLINES, Floats, Head, draw_head

SUBPIXEL = 4  # binary digits of a coordinate behind the point, as OpenCV draws them
COARSE = 2.0  # mm a pixel, for what is smooth
HEAD_MM = 285.0  # about what an image shows of a head from top to bottom


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One image (H, W) of grey levels, its landmarks (38, 2) px, and how large a pixel is."""

    pixels: NDArray[np.uint8]
    landmarks: Floats
    spacing: float  # mm per px


def draw_radiograph(size: tuple[int, int], rng: np.random.Generator) -> Radiograph:
    """A radiograph of `size` (w, h) px of a head of its own, in a pose and with a contrast of its own."""
    head = draw_head(rng)
    spacing = HEAD_MM / size[1] * rng.uniform(0.94, 1.1)
    turn = math.radians(rng.normal(0, 4.0))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    middle = np.array([5.0, 28.0]) + rng.normal(0, 4.0, 2)  # mm, what lies in the image's middle

    def to_px(places: Floats) -> Floats:
        moved: Floats = ((places - middle) @ rotation.T) / spacing + (np.array(size) - 1) / 2
        return moved

    opaque = _attenuation(head, size, spacing, to_px, rng)
    return Radiograph(_exposed(opaque, spacing, rng), to_px(head.landmarks), spacing)


def _attenuation(
    head: Head, size: tuple[int, int], spacing: float, to_px: object, rng: np.random.Generator
) -> NDArray[np.float32]:
    assert callable(to_px)
    opaque = _soft_tissue(to_px(head.curves["skin"]), size, spacing)
    for name, outline in OUTLINES.items():
        curve = to_px(head.curves[name])
        strength = 1 + rng.normal(0, 0.12)  # bones are not alike
        if outline.fill:
            _add(opaque, curve, outline.fill * strength, None, 0.5 / spacing, closed=True)
        if outline.edge:
            width = outline.width / spacing
            _add(opaque, curve, outline.edge * strength, width, 0.35 / spacing, closed=outline.closed)
    return opaque


def _soft_tissue(skin: Floats, size: tuple[int, int], spacing: float) -> NDArray[np.float32]:
    """How much soft tissue the rays meet, (H, W): thick in the middle of the head, nothing beyond the skin;
    computed coarsely, since it is smooth but for the skin's own border.
    """
    step = max(COARSE / spacing, 1.0)
    coarse = (max(round(size[0] / step), 8), max(round(size[1] / step), 8))
    mask = np.zeros((coarse[1], coarse[0]), np.uint8)
    cv2.fillPoly(mask, [_fixed(skin * (np.array(coarse) / size))], 255, cv2.LINE_AA, SUBPIXEL)
    depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 5) * COARSE  # mm
    thick = np.sqrt(np.clip(depth / 60.0, 0, 1)).astype(np.float32) * 0.42 + 0.1
    thick = cv2.GaussianBlur(thick, (0, 0), 1.5)
    fine = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(fine, [_fixed(skin)], 255, cv2.LINE_AA, SUBPIXEL)
    within = cv2.GaussianBlur(fine, (0, 0), max(0.5 / spacing, 0.3)).astype(np.float32) / 255
    full: NDArray[np.float32] = cv2.resize(thick, size, interpolation=cv2.INTER_LINEAR) * within
    return full


def _add(
    opaque: NDArray[np.float32],
    curve: Floats,
    amount: float,
    width: float | None,
    blur: float,
    *,
    closed: bool,
) -> None:
    """Add `amount` within a curve (px), or along it where a `width` px is given, with a soft border."""
    margin = int((width or 0) + 3 * blur + 3)
    height, across = opaque.shape
    low = np.maximum(np.floor(curve.min(axis=0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(curve.max(axis=0)).astype(int) + margin, (across, height))
    if (low >= high).any():
        return
    part = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    shape = [_fixed(curve - low)]
    if width is None:
        cv2.fillPoly(part, shape, 255, cv2.LINE_AA, SUBPIXEL)
    else:
        cv2.polylines(part, shape, closed, 255, max(round(width), 1), cv2.LINE_AA, SUBPIXEL)
        amount *= min(width, 1.0)  # a line is drawn one px wide at least
    soft = cv2.GaussianBlur(part, (0, 0), max(blur, 0.3))
    opaque[low[1] : high[1], low[0] : high[0]] += soft.astype(np.float32) * np.float32(amount / 255)


def _fixed(curve: Floats) -> NDArray[np.int32]:
    """Coordinates as OpenCV takes fractions of a pixel."""
    return np.round(curve * 2**SUBPIXEL).astype(np.int32)


def _exposed(opaque: NDArray[np.float32], spacing: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey levels (H, W): the more opaque, the lighter; never 0, which is what padding is made of."""
    height, width = opaque.shape
    cloud = rng.normal(
        0, 1, (max(height * spacing / 25, 3).__ceil__(), max(width * spacing / 25, 3).__ceil__())
    )
    clouds = cv2.resize(cloud.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    light = 1 - np.exp(-rng.uniform(1.5, 2.1) * np.maximum(opaque + 0.02 * clouds, 0))
    light = np.clip(light / rng.uniform(0.78, 0.95), 0, 1) ** rng.uniform(0.8, 1.3)
    grain = rng.normal(0, 1, light.shape).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.7) * rng.uniform(0.015, 0.04)
    grey = (light + grain * np.sqrt(light + 0.05)) * rng.uniform(205, 245) + rng.uniform(4, 24)
    _furnish(grey, spacing, rng)
    return np.clip(grey, 1, 255).astype(np.uint8)


def _furnish(grey: NDArray[np.float32], spacing: float, rng: np.random.Generator) -> None:
    """What lies on a film besides the head: a scale of 10 mm steps, and now and then a dark frame."""
    height, width = grey.shape
    left, top = int(width * 0.97), int(height * rng.uniform(0.04, 0.2))
    for mark in range(6):
        at = top + round(mark * 10 / spacing)
        grey[at : at + max(round(0.6 / spacing), 1), left - round(4 / spacing) : left] = 235
    if rng.random() < 0.4:
        frame = max(round(rng.uniform(1, 4) / spacing), 1)
        for side in (grey[:frame], grey[-frame:], grey[:, :frame], grey[:, -frame:]):
            side[:] = 5
