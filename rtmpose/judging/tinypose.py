"""TinyPose of PaddleDetection, exported to ONNX: heatmaps of a person's box, 96x128 or 192x256.

Crop, normalisation (ImageNet's mean and deviation) and unbiased coordinates are those of the product's own
heatmap networks. Points are decoded by the same Newton step (DARK, arXiv 1910.06278), after a Gaussian of 11
px where PaddleDetection's has 3.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError
from rtmpose.judging.foreign import Array, open_foreign
from rtmpose.motion.person import Person
from rtmpose.targets import UDPHeatmap
from rtmpose.topdown import ThroughArrays, TopDown


class TinyPose:
    """The people in given boxes; 17 points of COCO."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """UserError where the file's input is no picture (1, 3, height, width)."""
        self.file = open_foreign(path, threads)
        shape = self.file.shape
        if len(shape) != 4 or shape[1] != 3 or not (shape[2] and shape[3]):
            raise UserError(
                f"{path}: its input is {shape}, not (N, 3, height, width) of a fixed size; export it with one"
            )
        self._topdown = TopDown(
            ThroughArrays(self._maps), UDPHeatmap((shape[3], shape[2])), load_skeleton("coco17")
        )

    def __call__(self, image: NDArray[np.uint8], boxes: ArrayLike) -> list[Person]:
        """The people in boxes (N, 5) x1, y1, x2, y2 px and score of an RGB picture."""
        rows = np.asarray(boxes, np.float64).reshape(-1, 5)
        if not len(rows):
            return []
        sides = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], 1)
        points, scores = self._topdown.points(self._topdown.crops(image, sides))
        sure = np.clip(scores, 0.0, 1.0)
        return [
            Person(row[:4], places, values, shares, float(row[4]))
            for row, places, values, shares in zip(rows, points, scores, sure, strict=True)
        ]

    def _maps(self, images: Array) -> tuple[Array, ...]:
        """Heatmaps (N, 17, h, w) of one picture after the other: exported files take one."""
        found = []
        for image in images:
            maps = [output for output in self.file.run(image[None]) if output.ndim == 4]
            if len(maps) != 1 or maps[0].shape[1] != 17:
                raise UserError(f"{self.file.path}: gives no heatmaps (1, 17, h, w); is it TinyPose's?")
            found.append(maps[0])
        return (np.concatenate(found),)
