"""From an image to a detector's input and back: the ratio is kept, the image lies at the top left, and grey
fills the rest, as RTMDet and YOLOX were trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.detection.graph import Pixels
from rtmpose.geometry import Floats

GREY = 114


@dataclass(frozen=True, eq=False)
class Letter:
    """A network's input (1, 3, h, w) float32, and how many of its px one px of the image is, across and
    down.
    """

    blob: NDArray[np.float32]
    scale: tuple[float, float]

    def to_image(self, boxes: NDArray[Any]) -> Floats:
        """Boxes (n, 4) xyxy of input px, in px of the image."""
        return np.asarray(boxes, np.float64) / np.array([*self.scale, *self.scale])


def letterbox(image: NDArray[np.uint8], size: tuple[int, int], pixels: Pixels) -> Letter:
    """An RGB image (H, W, 3) for a network whose input is `size` (w, h) px and which wants such `pixels`."""
    height, width = image.shape[:2]
    ratio = min(size[0] / width, size[1] / height)
    w, h = max(round(width * ratio), 1), max(round(height * ratio), 1)
    canvas = np.full((size[1], size[0], 3), GREY, np.uint8)
    cv2.resize(image, (w, h), dst=canvas[:h, :w], interpolation=cv2.INTER_LINEAR)
    blob = np.empty((1, 3, size[1], size[0]), np.float32)
    for channel, (mean, std) in enumerate(zip(pixels.mean, pixels.std, strict=True)):
        plane = canvas[..., 2 - channel if pixels.bgr else channel]
        np.subtract(plane, np.float32(mean), out=blob[0, channel])
        if std != 1.0:
            blob[0, channel] *= np.float32(1.0 / std)
    return Letter(blob, (w / width, h / height))
