"""The paper's augmentation (RTMPose section 3.3 and its published configurations), drawn per sample from one
generator.

Order: mirror, half body, box jitter, one affine warp from the stored crop, HSV jitter, the recipe's pixel
transforms (blur and median blur in the published ones), one hole. Of the crop only the part is decoded that
the warp shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.config import AugmentConfig
from rtmpose.data.stream.pixels import Transform, built
from rtmpose.geometry import (
    Floats,
    compose,
    crop_matrix,
    crop_to_photograph,
    fix_aspect,
    flip_points,
    half_body,
    pad_box,
    transform_points,
    warp,
)
from rtmpose.skeleton import Skeleton

# A half body is shown only of a person with enough labelled points, and prefers the upper half.
MIN_TOTAL, MIN_UPPER, MIN_LOWER, UPPER_SHARE = 9, 2, 3, 0.7
HOLE = (0.2, 0.4)  # sides of the hole as shares of the input's height and width
MARGIN = 2  # px of a crop beyond the corners that bilinear sampling may touch
FIXED = 24  # uniform draws of every sample, four of them free; two more follow for each pixel transform

MIRROR = np.array(
    [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
)  # x -> -x: where the mirror stands does not matter to a crop
_NORMAL = NormalDist()
_BELOW, _WITHIN = _NORMAL.cdf(-1), 1 - 2 * _NORMAL.cdf(-1)


@dataclass(frozen=True)
class Draws:
    """One sample's random draws: `shift` in shares of the padded box, `scale` a factor, `rotation` degrees,
    `gains` on OpenCV's uint8 hue, saturation and value, `seeds` of the recipe's pixel transforms (None: it
    does not happen), `hole` its height and width as shares of the input and its place (y, x) as shares of
    what is left.
    """

    flip: bool
    half_body: bool
    prefer_upper: bool
    shift: tuple[float, float]
    scale: float
    rotation: float
    gains: tuple[int, int, int]
    seeds: tuple[int | None, ...]
    hole: tuple[float, float, float, float] | None


def truncated_normal(u: float) -> float:
    """A standard normal truncated to [-1, 1] (std 0.54) from a uniform draw in [0, 1): by its inverse
    distribution.
    """
    return _NORMAL.inv_cdf(_BELOW + u * _WITHIN)


def draw(config: AugmentConfig, rng: np.random.Generator) -> Draws:
    """Every draw of one sample; always the same number of them, so no setting changes the meaning of
    another's draw. Those of pixel transforms come last, so that one more at the end of the list changes no
    other draw either.
    """
    u = rng.random(FIXED + 2 * len(config.pixels)).tolist()
    coins, seeds = u[FIXED::2], u[FIXED + 1 :: 2]
    shifted, turned = u[3] < config.shift_prob, u[7] < config.rotate_prob
    dx, dy, growth, turn = (truncated_normal(value) for value in (u[4], u[5], u[6], u[8]))
    ranges = (config.hue, config.saturation, config.value)
    gains = [int((2 * u[9 + i] - 1) * limit) if u[12 + i] < 0.5 else 0 for i, limit in enumerate(ranges)]
    return Draws(
        flip=u[0] < config.flip,
        half_body=u[1] < config.half_body,
        prefer_upper=u[2] < UPPER_SHARE,
        shift=(dx * config.shift, dy * config.shift) if shifted else (0.0, 0.0),
        scale=1 + growth * config.scale,
        rotation=turn * config.rotate if turned else 0.0,
        gains=(gains[0], gains[1], gains[2]),
        seeds=tuple(
            int(seed * 2**32) if coin < entry.p else None
            for entry, coin, seed in zip(config.pixels, coins, seeds, strict=True)
        ),
        hole=(*(HOLE[0] + side * (HOLE[1] - HOLE[0]) for side in u[20:22]), *u[22:24])
        if u[19] < config.hole
        else None,
    )


def choose_half(visible: NDArray[Any], skeleton: Skeleton, prefer_upper: bool) -> tuple[int, ...] | None:
    """The points of the half body to show of a person with these labelled points (K,); None where too few are
    labelled.
    """
    labelled = visible > 0
    if labelled.sum() < MIN_TOTAL:
        return None
    upper = labelled[list(skeleton.upper)].sum() >= MIN_UPPER
    lower = labelled[list(skeleton.lower)].sum() >= MIN_LOWER
    if upper and (prefer_upper or not lower):
        return skeleton.upper
    return skeleton.lower if lower else None


def jitter_hsv(image: NDArray[np.uint8], gains: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Add gains to the hue (modulo 180), saturation and value (clipped) of an RGB or RGBA image, through
    OpenCV's uint8 HSV -> RGB.
    """
    hue, saturation, value = gains
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    if saturation or value:
        hsv = cv2.add(hsv, (0.0, float(saturation), float(value), 0.0))  # saturates
    if hue:
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), _turned(hue)), hsv, 0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


@cache
def _turned(hue: int) -> NDArray[np.uint8]:
    return ((np.arange(256) + hue) % 180).astype(np.uint8)


def transform_pixels(
    image: NDArray[np.uint8], transforms: Sequence[Transform], seeds: Sequence[int | None]
) -> NDArray[np.uint8]:
    """The image (H, W, 3) after those pixel transforms, in their order, that have a seed."""
    for transform, seed in zip(transforms, seeds, strict=True):
        if seed is not None:
            transform.set_random_seed(seed)
            image = transform(image=image)["image"]
    return image


def cut_hole(image: NDArray[np.uint8], hole: tuple[float, float, float, float] | None) -> None:
    """Black out a hole of `image` (H, W, 3) as drawn."""
    if hole is None:
        return
    height, width = (int(share * side) for share, side in zip(hole[:2], image.shape[:2], strict=True))
    top, left = int(hole[2] * (image.shape[0] - height + 1)), int(hole[3] * (image.shape[1] - width + 1))
    image[top : top + height, left : left + width] = 0


# The pixels (H, W, 3) RGB of a crop at least between two corners (x, y) px, as far as it goes, and where they
# begin (x, y).
Part = Callable[[Floats, Floats], tuple[NDArray[np.uint8], tuple[int, int]]]


class Augmenter:
    """Crops of one stage's augmentation for one input size (w, h); holds no state between samples, since
    pixel transforms are seeded before each use. A skeleton without sides is not mirrored, whatever `config`
    says.
    """

    def __init__(self, config: AugmentConfig, skeleton: Skeleton, size: tuple[int, int], udp: bool) -> None:
        self.config = config if skeleton.mirrors else config.model_copy(update={"flip": 0.0})
        self.skeleton, self.size, self.udp = skeleton, size, udp
        width, height = size
        self.transforms = built(config.pixels)
        self.corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)

    def __call__(
        self,
        part: Part,
        fields: Mapping[str, Any],
        keypoints: Floats,
        visible: NDArray[Any],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], Floats, NDArray[Any]]:
        """A stored crop and its JSON `fields`, its keypoints (K, 2) crop px and visible (K,) in the target
        skeleton -> the network's uint8 RGB input (H, W, 3), the keypoints in input px, and their visible:
        mirrored with the points.
        """
        drawn = draw(self.config, rng)
        to_image = crop_to_photograph(fields["origin"], fields["scale"])
        to_input, points, shown = self.place(
            fields, transform_points(keypoints, to_image), visible, to_image, drawn
        )
        mirror = compose(to_input, MIRROR) if drawn.flip else to_input
        image = self._warp(part, compose(mirror, to_image))
        image = (
            jitter_hsv(image, drawn.gains) if any(drawn.gains) else cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)
        )
        image = transform_pixels(image, self.transforms, drawn.seeds)
        cut_hole(image, drawn.hole)
        return image, transform_points(points, to_input), shown

    def _warp(self, part: Part, matrix: Floats) -> NDArray[np.uint8]:
        """The input's pixels (H, W, 4) RGBA by the matrix from crop px; OpenCV warps four channels in half
        the time of three.
        """
        seen = transform_points(self.corners, cv2.invertAffineTransform(matrix))
        pixels, begin = part(seen.min(axis=0) - MARGIN, seen.max(axis=0) + MARGIN)
        matrix[:, 2] += matrix[:, :2] @ begin
        return warp(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA), matrix, self.size)

    def place(
        self, fields: Mapping[str, Any], points: Floats, visible: NDArray[Any], to_image: Floats, drawn: Draws
    ) -> tuple[Floats, Floats, NDArray[Any]]:
        """The matrix from the (mirrored) photograph to the input, and keypoints and visible in the (mirrored)
        photograph.
        """
        x, y, w, h = fields["box"]
        left, top = transform_points((x, y), to_image)
        center, scale = pad_box((left, top, w / fields["scale"][0], h / fields["scale"][1]))
        if drawn.flip:
            flip = np.asarray(self.skeleton.flip)
            points, visible, center = flip_points(points, 1, flip), visible[flip], center * (-1, 1)
        half = choose_half(visible, self.skeleton, drawn.prefer_upper) if drawn.half_body else None
        if half is not None:
            closer, sides = half_body(points, visible, half)
            if sides.max() > 0:  # points that lie on one pixel show nothing
                center, scale = closer, sides
        center = center + np.multiply(drawn.shift, scale)
        scale = fix_aspect(scale * drawn.scale, self.size[0] / self.size[1])
        return crop_matrix(center, scale, drawn.rotation, self.size, self.udp), points, visible
