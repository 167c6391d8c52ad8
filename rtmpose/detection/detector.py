"""Boxes of people in an image, by any ONNX detector of RTMDet's or YOLOX's output form.

The file alone says how it is to be used: by our card, or by its graph and its outputs (`graph`, `forms`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.detection.forms import Form, recognise
from rtmpose.detection.graph import Graph, Pixels
from rtmpose.detection.letterbox import letterbox
from rtmpose.detection.running import Run, open_graph
from rtmpose.files import UserError
from rtmpose.geometry import Floats

__all__ = ["Detector", "NetworkDetector", "open_detector"]

CANDIDATES = 1000  # the best boxes that suppression looks at, as RTMDet is evaluated


class Detector(Protocol):
    """Whatever finds people."""

    def __call__(self, image: NDArray[np.uint8]) -> Floats:
        """An RGB image (H, W, 3) → (N, 5) x1, y1, x2, y2, score in px of the image, best first, clipped to
        it.
        """
        ...


class NetworkDetector:
    """A network in a runtime, with everything around it. Several threads may call it at the same time.

    `size` (w, h) px is the network's input. Boxes below `threshold` do not count, and of two whose
    intersection over union is above `nms` only the better one does.
    """

    def __init__(
        self,
        run: Run,
        form: Form,
        *,
        path: Path,
        size: tuple[int, int],
        pixels: Pixels,
        threshold: float,
        nms: float,
    ) -> None:
        self.run, self.form, self.path, self.size, self.pixels = run, form, path, size, pixels
        self.threshold, self.nms = threshold, nms

    def __call__(self, image: NDArray[np.uint8]) -> Floats:
        """As `Detector` says. ValueError for what is no image, UserError where the network's outputs are not
        finite.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(f"an image is uint8 RGB (H, W, 3), not {image.dtype} {image.shape}")
        letter = letterbox(image, self.size, self.pixels)
        boxes, scores = self.form(self.run(letter.blob), self.threshold)
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise UserError(f"{self.path}: gives boxes that are not finite; fetch or export it again")
        kept = suppressed(boxes, scores, self.nms)
        height, width = image.shape[:2]
        found = letter.to_image(boxes[kept]).clip(0.0, [width, height, width, height])
        rows = np.concatenate([found, scores[kept, None]], axis=1)
        return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]


def suppressed(boxes: NDArray[Any], scores: NDArray[Any], nms: float) -> NDArray[np.int64]:
    """Which boxes (n, 4) xyxy stay, best first: none that overlaps a better one by more than `nms`."""
    sides: Any = boxes.astype(np.float64)  # OpenCV takes arrays, and its stubs say lists
    sides[:, 2:] -= sides[:, :2]
    certain: Any = scores.astype(np.float32)
    kept = cv2.dnn.NMSBoxes(sides, certain, 0.0, nms, 1.0, CANDIDATES)
    return np.asarray(kept, np.int64).reshape(-1)


def open_detector(
    path: Path,
    *,
    threshold: float = 0.3,
    nms: float = 0.6,
    threads: int = 1,
    runtime: str = "onnxruntime",
    size: tuple[int, int] | None = None,
) -> NetworkDetector:
    """The detector in an ONNX file: RTMDet's or YOLOX's, with or without suppression in its graph, or one
    that we exported.

    Args:
        path: the file.
        threshold: the least score of a box.
        nms: intersection over union above which the worse of two boxes goes; RTMDet's own value is 0.6.
        threads: CPU threads of the runtime.
        runtime: "onnxruntime" or "openvino".
        size: the input's (w, h) px where the file leaves it free; None: its usual one (`Graph.size`).

    Raises:
        UserError: no such file, no ONNX file, no detector of a known form, or settings that it does not take.
    """
    for name, value in (("threshold", threshold), ("nms", nms)):
        if not 0.0 <= value <= 1.0:
            raise UserError(f"detector {name} {value}: give a number from 0 to 1")
    graph = Graph(path)
    chosen = graph.size(size)
    run = open_graph(graph, chosen, runtime, threads)
    blank = np.zeros((1, 3, chosen[1], chosen[0]), np.float32)
    form = recognise(graph, run(blank), chosen)
    return NetworkDetector(
        run, form, path=path, size=chosen, pixels=graph.pixels(), threshold=threshold, nms=nms
    )
