"""The paper's augmentation (RTMPose section 3.3 and its published configurations), drawn per sample from one
generator.

Order: mirror, half body, box jitter, one affine warp from the stored crop, HSV jitter, then Albumentations (MIT,
2.0.8) for blur, median blur and one hole. Albumentations is named in this module only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.config import AugmentConfig
from rtmpose.geometry import (
    Floats,
    compose,
    crop_matrix,
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
BLUR = (3, 7)  # smallest and largest kernel, odd

MIRROR = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # x -> -x: where the mirror stands does not matter to a crop
_NORMAL = NormalDist()
_BELOW, _WITHIN = _NORMAL.cdf(-1), 1 - 2 * _NORMAL.cdf(-1)


@dataclass(frozen=True)
class Draws:
    """One sample's random draws: `shift` in shares of the padded box, `scale` a factor, `rotation` degrees, `gains`
    on OpenCV's uint8 hue, saturation and value, `seed` of the photometric transforms.
    """

    flip: bool
    half_body: bool
    prefer_upper: bool
    shift: tuple[float, float]
    scale: float
    rotation: float
    gains: tuple[int, int, int]
    seed: int


def truncated_normal(u: float) -> float:
    """A standard normal truncated to [-1, 1] (std 0.54) from a uniform draw in [0, 1): by its inverse distribution."""
    return _NORMAL.inv_cdf(_BELOW + u * _WITHIN)


def draw(config: AugmentConfig, rng: np.random.Generator) -> Draws:
    """Every draw of one sample; always the same number of them, so no setting changes the meaning of another's draw."""
    u = rng.random(16).tolist()
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
        seed=int(u[15] * 2**31),
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
    """Add gains to an RGB image's hue (modulo 180), saturation and value (clipped), through OpenCV's uint8 HSV."""
    if not any(gains):
        return image
    levels = np.arange(256)
    table = np.stack([(levels + gains[0]) % 180, levels + gains[1], levels + gains[2]], axis=-1).clip(0, 255)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table.astype(np.uint8)[None])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def photometric(config: AugmentConfig) -> A.Compose:
    """Blur, median blur and a hole, each by its own coin, filled with black; keypoints stay as they are."""
    return A.Compose(
        [
            A.Blur(blur_limit=BLUR, p=config.blur),
            A.MedianBlur(blur_limit=BLUR, p=config.median_blur),
            A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=HOLE, hole_width_range=HOLE, fill=0, p=config.hole),
        ]
    )


class Augmenter:
    """Crops of one stage's augmentation for one input size (w, h); holds no state between samples."""

    def __init__(self, config: AugmentConfig, skeleton: Skeleton, size: tuple[int, int], udp: bool) -> None:
        self.config, self.skeleton, self.size, self.udp = config, skeleton, size, udp
        self.photometric = photometric(config)

    def __call__(
        self,
        crop: NDArray[np.uint8],
        fields: Mapping[str, Any],
        keypoints: Floats,
        visible: NDArray[Any],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], Floats, NDArray[Any]]:
        """A stored crop and its JSON `fields`, its keypoints (K, 2) crop px and visible (K,) in the target skeleton
        -> the network's uint8 RGB input (H, W, 3), the keypoints in input px, and their visible: mirrored with the points.
        """
        drawn = draw(self.config, rng)
        to_image = crop_to_photograph(fields["origin"], fields["scale"])
        to_input, points, shown = self.place(fields, transform_points(keypoints, to_image), visible, to_image, drawn)
        mirror = compose(to_input, MIRROR) if drawn.flip else to_input
        image = jitter_hsv(warp(crop, compose(mirror, to_image), self.size), drawn.gains)
        self.photometric.set_random_seed(drawn.seed)
        return self.photometric(image=image)["image"], transform_points(points, to_input), shown

    def place(
        self, fields: Mapping[str, Any], points: Floats, visible: NDArray[Any], to_image: Floats, drawn: Draws
    ) -> tuple[Floats, Floats, NDArray[Any]]:
        """The matrix from the (mirrored) photograph to the input, and keypoints and visible in the (mirrored) photograph."""
        x, y, w, h = fields["box"]
        left, top = transform_points((x, y), to_image)
        center, scale = pad_box((left, top, w / fields["scale"][0], h / fields["scale"][1]))
        if drawn.flip:
            flip = np.asarray(self.skeleton.flip)
            points, visible, center = flip_points(points, 1, flip), visible[flip], center * (-1, 1)
        half = choose_half(visible, self.skeleton, drawn.prefer_upper) if drawn.half_body else None
        if half is not None:
            center, scale = half_body(points, visible, half)
        center = center + np.multiply(drawn.shift, scale)
        scale = fix_aspect(scale * drawn.scale, self.size[0] / self.size[1])
        return crop_matrix(center, scale, drawn.rotation, self.size, self.udp), points, visible


def crop_to_photograph(origin: tuple[int, int], scale: tuple[float, float]) -> Floats:
    """The (2, 3) matrix from crop px to the photograph's px; pixel centres map to pixel centres."""
    (x, y), (sx, sy) = origin, scale
    return np.array([[1 / sx, 0.0, 0.5 / sx - 0.5 + x], [0.0, 1 / sy, 0.5 / sy - 0.5 + y]])
