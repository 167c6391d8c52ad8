"""Skeletons on pictures: left limbs orange, right limbs blue, in any number of pictures on one sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.files import write_atomic
from rtmpose.skeleton import Skeleton

# RGB. Orange and blue stay apart for colour-blind eyes and on skin, cloth and grass alike.
LEFT, RIGHT, MIDDLE = (255, 140, 30), (40, 140, 255), (90, 220, 120)
OUTLINE, PAPER = (20, 20, 24), (250, 250, 250)
SUBPIXEL = 4  # bits of fraction in OpenCV's drawing coordinates
SURE = 0.2  # the score from which a keypoint is drawn

Colour = tuple[int, int, int]
Canvas = NDArray[np.uint8]


class Picture(Protocol):
    """What is needed of an image to draw on it."""

    @property
    def image_id(self) -> Any: ...
    @property
    def image(self) -> NDArray[np.uint8]: ...  # (H, W, 3) RGB


def draw_predictions(
    images: Iterable[Picture],
    results: Iterable[Mapping[str, Any]],
    skeleton: Skeleton,
    path: Path | str,
    *,
    columns: int = 4,
    cell: tuple[int, int] = (480, 360),
    score_threshold: float = SURE,
) -> Path:
    """Write a PNG grid of the images with their predicted skeletons: left limbs orange, right limbs blue.

    Args:
        images: drawn in this order, each fitted into a cell.
        results: COCO results in image px; those of other images are ignored.
        columns: cells in a row.
        cell: (w, h) of a cell, px.
        score_threshold: keypoints scored lower, and their limbs, are left out.
    """
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    cells = []
    for image in images:
        poses = [
            np.asarray(result["keypoints"]).reshape(-1, 3) for result in by_image.get(image.image_id, ())
        ]
        cells.append(_cell(image.image, poses, skeleton, cell, score_threshold))
    _, encoded = cv2.imencode(".png", cv2.cvtColor(_grid(cells, columns, cell), cv2.COLOR_RGB2BGR))
    return write_atomic(path, encoded.tobytes())


def _cell(
    image: Canvas,
    poses: Sequence[NDArray[np.floating]],
    skeleton: Skeleton,
    cell: tuple[int, int],
    threshold: float,
) -> Canvas:
    """The image, fitted into a cell and centred on paper, with its poses (K, 3), drawn after scaling: crisp
    lines.
    """
    height, width = image.shape[:2]
    zoom = min(cell[0] / width, cell[1] / height)
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    drawn: Canvas = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    for pose in poses:
        # Pixel centres: OpenCV resizes about them.
        points = (pose[:, :2] + 0.5) * (size[0] / width, size[1] / height) - 0.5
        draw_skeleton(drawn, points, pose[:, 2] >= threshold, skeleton)
    canvas = np.full((cell[1], cell[0], 3), PAPER, np.uint8)
    left, top = (cell[0] - size[0]) // 2, (cell[1] - size[1]) // 2
    canvas[top : top + size[1], left : left + size[0]] = drawn
    return canvas


def draw_skeleton(
    image: Canvas, points: NDArray[np.floating], shown: NDArray[np.bool_], skeleton: Skeleton
) -> None:
    """Draw the points (K, 2) px where `shown` (K,), and the limbs between them, onto an RGB image in place.

    Line width follows the extent of the person.
    """
    if not shown.any():
        return
    width = float(np.clip(np.ptp(points[shown], axis=0).max() / 55, 1.0, 4.0))
    sides = [_side(name) for name in skeleton.names]
    limbs = [(a, b) for a, b in skeleton.limbs if shown[a] and shown[b]]
    for extra, outline in ((1.5, True), (0.0, False)):
        for a, b in limbs:
            colour = OUTLINE if outline else _limb_colour(sides[a], sides[b])
            _line(image, points[a], points[b], colour, width + extra)
        for index in np.flatnonzero(shown):
            _dot(image, points[index], OUTLINE if outline else sides[index], width * 1.2 + extra / 2)
    for index in np.flatnonzero(shown):
        _dot(image, points[index], PAPER, width * 0.55)


def _side(name: str) -> Colour:
    return LEFT if name.startswith("left") else RIGHT if name.startswith("right") else MIDDLE


def _limb_colour(a: Colour, b: Colour) -> Colour:
    """A limb from a middle point takes the side of the other; one across the body is in the middle."""
    if a == b or b == MIDDLE:
        return a
    return b if a == MIDDLE else MIDDLE


def _fixed(point: NDArray[np.floating]) -> tuple[int, int]:
    # A wild prediction must not overflow OpenCV's integers.
    x, y = np.clip(np.round(point * 2**SUBPIXEL), -(2**24), 2**24)
    return int(x), int(y)


def _line(
    image: Canvas, a: NDArray[np.floating], b: NDArray[np.floating], colour: Colour, width: float
) -> None:
    cv2.line(image, _fixed(a), _fixed(b), colour, max(1, round(width)), cv2.LINE_AA, SUBPIXEL)


def _dot(image: Canvas, centre: NDArray[np.floating], colour: Colour, radius: float) -> None:
    cv2.circle(image, _fixed(centre), round(radius * 2**SUBPIXEL), colour, -1, cv2.LINE_AA, SUBPIXEL)


def _grid(cells: Sequence[Canvas], columns: int, cell: tuple[int, int], gap: int = 8) -> Canvas:
    columns = max(1, min(columns, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    canvas = np.full((rows * (cell[1] + gap) + gap, columns * (cell[0] + gap) + gap, 3), PAPER, np.uint8)
    for index, drawn in enumerate(cells):
        top = gap + index // columns * (cell[1] + gap)
        left = gap + index % columns * (cell[0] + gap)
        canvas[top : top + cell[1], left : left + cell[0]] = drawn
    return canvas
