"""MoveNet's single-pose models (Lightning 192, Thunder 256) as their makers run them: the picture is cropped
by the points of the frame before, and the points come as y, x, score in shares of the crop.

The rule of the crop is that of the model's published example: a square around the hips, wide enough for the
torso with a factor of 1.9 and for all points with 1.2; the whole picture where the torso is not seen.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.files import UserError
from rtmpose.judging.foreign import Foreign, open_foreign
from rtmpose.motion.person import Person

Floats = NDArray[np.float64]
LEAST_SCORE = 0.2  # from which a point counts for the crop
TORSO, BODY = 1.9, 1.2
SHOULDERS, HIPS = (5, 6), (11, 12)


class MoveNet:
    """One person in each picture; 17 points of COCO."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """UserError where the file is none of MoveNet's: (1, side, side, 3) to (1, 1, 17, 3)."""
        self.file: Foreign = open_foreign(path, threads)
        self.side = self.file.square()
        self._points: Floats | None = None

    def forget(self) -> None:
        """The next picture is another scene's."""
        self._points = None

    def __call__(self, image: NDArray[np.uint8]) -> list[Person]:
        """The person of an RGB picture (H, W, 3), cropped by the points of the call before."""
        height, width = image.shape[:2]
        left, top, side = crop_square(self._points, width, height)
        pixels = cut_square(image, left, top, side, self.side)
        output = self.file.run(pixels[None].astype(self.file.dtype))[0]
        if output.size != 17 * 3:
            raise UserError(f"{self.file.path}: its output is {output.shape}, not MoveNet's (1, 1, 17, 3)")
        found = output.reshape(17, 3).astype(np.float64)
        points = found[:, 1::-1] * side + (left, top)
        self._points = np.column_stack([points, found[:, 2]])
        box = np.array([left, top, left + side, top + side])
        return [Person(box, points, found[:, 2], np.clip(found[:, 2], 0.0, 1.0))]


def crop_square(points: Floats | None, width: int, height: int) -> tuple[float, float, float]:
    """Left, top and side px of the crop, which may reach beyond the picture, from the points (17, 3) x, y,
    score of the frame before.
    """
    whole = float(max(width, height))
    everything = ((width - whole) / 2, (height - whole) / 2, whole)
    if points is None:
        return everything
    xy, seen = points[:, :2], points[:, 2] > LEAST_SCORE
    if not (seen[list(SHOULDERS)].any() and seen[list(HIPS)].any()):
        return everything
    center = xy[list(HIPS)].mean(0)
    torso = np.abs(xy[[*SHOULDERS, *HIPS]] - center).max()
    body = np.abs(xy[seen] - center).max()
    half = max(TORSO * torso, BODY * body)
    x, y = center.tolist()
    half = min(half, max(x, width - x, y, height - y))
    if half > whole / 2:
        return everything
    return x - half, y - half, 2 * half


def cut_square(
    image: NDArray[np.uint8], left: float, top: float, side: float, pixels: int
) -> NDArray[np.uint8]:
    """A square of the picture, resized to (pixels, pixels, 3) by straight lines between pixels; black beyond
    the picture.
    """
    scale = pixels / side
    # pixel corners are mapped on pixel corners: the centre of a pixel lies at half a pixel
    matrix = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])
    found: NDArray[np.uint8] = cv2.warpAffine(image, matrix, (pixels, pixels), flags=cv2.INTER_LINEAR)
    return found
