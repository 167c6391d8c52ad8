"""The forms that detectors' outputs have, and how each becomes boxes of people with scores.

A form is recognised from the outputs of one run on a blank image: their names and shapes, beside the input's
size. Every form gives boxes x1, y1, x2, y2 in px of the network's input, with the score of class 0, people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.detection.graph import Graph
from rtmpose.files import UserError

Arrays = Sequence[NDArray[Any]]
#: A network's outputs, and the least score that counts → boxes (n, 4) xyxy input px and scores (n,), of
#: people, in no order, before suppression.
Form = Callable[[Arrays, float], tuple[NDArray[Any], NDArray[Any]]]
STRIDES = (8, 16, 32)  # input px per cell of the three levels, of RTMDet and YOLOX alike


def recognise(graph: Graph, outputs: Arrays, size: tuple[int, int]) -> Form:
    """The form of a file's outputs, given those of one image of `size` (w, h) px.

    Raises UserError, naming what was found, where they have none of the forms.
    """
    names, shapes = graph.outputs, [output.shape for output in outputs]
    cells = [(size[1] // stride, size[0] // stride) for stride in STRIDES]
    match [len(shape) for shape in shapes]:
        case [3, 2] | [2, 3]:
            first = 0 if len(shapes[0]) == 3 else 1
            if shapes[first][2] == 5 and shapes[first][:2] == shapes[1 - first]:
                return Suppressed(first, 1 - first)
        case [3, 3]:
            at = 1 if shapes[0][2] != 4 or names[1] == "boxes" else 0
            if shapes[at][2] == 4 and shapes[0][1] == shapes[1][1]:
                return Boxes(at, 1 - at, not graph.ends_in(names[1 - at], "Sigmoid"))
        case [3] if shapes[0][2] > 5 and shapes[0][1] == sum(h * w for h, w in cells):
            return Grid(size, graph.has("Exp"), not graph.ends_in(names[0], "Sigmoid"))
        case [4, 4, 4, 4, 4, 4]:
            if (form := _levels(graph, shapes, cells)) is not None:
                return form
    raise _unknown(graph.path, names, shapes)


def _levels(graph: Graph, shapes: list[tuple[int, ...]], cells: list[tuple[int, int]]) -> Levels | None:
    """RTMDet's six raw maps, whichever way they are ordered: per level one of classes, one of 4 distances."""
    scores, distances = [], []
    for cell in cells:
        here = [number for number, shape in enumerate(shapes) if shape[2:] == cell]
        if len(here) != 2:
            return None
        # Of one class in four channels each the first is taken for the classes, as RTMDet has it.
        sides = [number for number in here if shapes[number][1] == 4]
        if not sides:
            return None
        distances.append(sides[-1])
        scores.append(next(number for number in here if number != sides[-1]))
    return Levels(tuple(scores), tuple(distances), not graph.ends_in(graph.outputs[scores[0]], "Sigmoid"))


def _unknown(path: Path, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> UserError:
    found = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
    return UserError(
        f"{path}: outputs {found} are no known detector's: known are dets (N, n, 5) with labels (N, n), "
        "boxes (N, n, 4) with scores (N, n, C), RTMDet's six maps, and YOLOX's (N, cells, 5 + C); export it "
        "in one of these forms"
    )


@dataclass(frozen=True)
class Suppressed:
    """`dets` (1, n, 5) x1, y1, x2, y2, score and `labels` (1, n): suppression is in the graph."""

    dets: int
    labels: int

    def __call__(self, outputs: Arrays, threshold: float) -> tuple[NDArray[Any], NDArray[Any]]:
        dets = outputs[self.dets][0]
        dets = dets[(outputs[self.labels][0] == 0) & (dets[:, 4] >= threshold)]
        return dets[:, :4], dets[:, 4]


@dataclass(frozen=True)
class Boxes:
    """`boxes` (1, n, 4) and `scores` (1, n, C), before suppression."""

    boxes: int
    scores: int
    logits: bool

    def __call__(self, outputs: Arrays, threshold: float) -> tuple[NDArray[Any], NDArray[Any]]:
        scores = _probabilities(outputs[self.scores][0, :, 0], self.logits)
        kept = np.flatnonzero(scores >= threshold)
        return outputs[self.boxes][0, kept], scores[kept]


@dataclass(frozen=True)
class Levels:
    """RTMDet's maps as its head gives them: per level class scores (1, C, h, w), and the distances (1, 4, h,
    w) px of the left, upper, right and lower side from the cell's upper left corner (arXiv 2212.07784).
    """

    scores: tuple[int, ...]
    distances: tuple[int, ...]
    logits: bool

    def __call__(self, outputs: Arrays, threshold: float) -> tuple[NDArray[Any], NDArray[Any]]:
        boxes, found = [], []
        for at, sides, stride in zip(self.scores, self.distances, STRIDES, strict=True):
            scores = _probabilities(outputs[at][0, 0], self.logits)
            row, column = np.nonzero(scores >= threshold)
            left, top, right, bottom = outputs[sides][0][:, row, column]
            x, y = column * stride, row * stride
            boxes.append(np.stack([x - left, y - top, x + right, y + bottom], axis=-1))
            found.append(scores[row, column])
        return np.concatenate(boxes), np.concatenate(found)


class Grid:
    """YOLOX's rows (1, cells, 5 + C): centre, size, objectness, classes (arXiv 2107.08430).

    Raw, the centre is an offset from the cell in strides and the size a logarithm of strides; decoded, both
    are px. The score is objectness x class.
    """

    def __init__(self, size: tuple[int, int], decoded: bool, logits: bool) -> None:
        self.decoded, self.logits = decoded, logits
        corners, strides = [], []
        for stride in STRIDES:
            y, x = np.mgrid[: size[1] // stride, : size[0] // stride]
            corners.append(np.stack([x, y], axis=-1).reshape(-1, 2))
            strides.append(np.full((x.size, 1), stride, np.float32))
        self.corners = np.concatenate(corners).astype(np.float32)  # (cells, 2) in strides
        self.strides = np.concatenate(strides)  # (cells, 1) px

    def __call__(self, outputs: Arrays, threshold: float) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = outputs[0][0]
        scores = _probabilities(rows[:, 4], self.logits) * _probabilities(rows[:, 5], self.logits)
        kept = np.flatnonzero(scores >= threshold)
        center, sides = rows[kept, :2], rows[kept, 2:4]
        if not self.decoded:
            center = (center + self.corners[kept]) * self.strides[kept]
            sides = np.exp(sides) * self.strides[kept]
        return np.concatenate([center - sides / 2, center + sides / 2], axis=-1), scores[kept]


def _probabilities(values: NDArray[Any], logits: bool) -> NDArray[Any]:
    if not logits:
        return values
    with np.errstate(over="ignore"):  # exp(88) and more: the probability is 0
        return np.asarray(1.0 / (1.0 + np.exp(-values)))
