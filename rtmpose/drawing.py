"""Skeletons on pictures: left limbs orange, right limbs blue, in any number of pictures on one sheet."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
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
GOLDEN = 0.618033988749895  # of a turn of hue between two identities
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
    image: Canvas,
    points: NDArray[np.floating],
    shown: NDArray[np.bool_],
    skeleton: Skeleton,
    colour: Colour | None = None,
) -> None:
    """Draw the points (K, 2) px where `shown` (K,), and the limbs between them, onto an RGB image in place.

    Line width follows the extent of the person. With a `colour`, such as a person's own in a video, the limbs
    have that one, and the points still say left and right.
    """
    if not shown.any():
        return
    sides, limb_colours = _colours(skeleton)
    width = float(np.clip(np.ptp(points[shown], axis=0).max() / 55, 1.0, 4.0))
    places = {k: _fixed(points[k]) for k in np.flatnonzero(shown).tolist()}
    limbs = [
        (places[a], places[b], colour or limb)
        for (a, b), limb in zip(skeleton.limbs, limb_colours, strict=True)
        if a in places and b in places
    ]
    dots = [(place, sides[k]) for k, place in places.items()]
    # Where limbs overlap, the outlines of all lie below the colours of all.
    for start, end, _ in limbs:
        _line(image, start, end, OUTLINE, width + 1.5)
    for place, _ in dots:
        _dot(image, place, OUTLINE, width * 1.2 + 0.75)
    for start, end, limb in limbs:
        _line(image, start, end, limb, width)
    for place, side in dots:
        _dot(image, place, side, width * 1.2)
        _dot(image, place, PAPER, width * 0.55)


def draw_label(image: Canvas, text: str, corner: tuple[float, float], colour: Colour) -> None:
    """Write a short text on a plate of the colour, its lower left corner at `corner` (x, y) px, moved into
    the image.
    """
    size = max(0.4, min(image.shape[:2]) / 1200)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    edge = max(2, round(4 * size))
    x = int(np.clip(corner[0], 0, max(0, image.shape[1] - width - 2 * edge)))
    y = int(np.clip(corner[1], height + below + 2 * edge, image.shape[0]))
    ends = (x + width + 2 * edge, y)
    cv2.rectangle(image, (x, y - height - below - 2 * edge), ends, colour, cv2.FILLED)
    place = (x + edge, y - below - edge)
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, OUTLINE, 1, cv2.LINE_AA)


def identity_colour(identity: int) -> Colour:
    """A colour for each identity: neighbours in number are far apart in hue, and all are light enough for a
    dark text.
    """
    hue = (identity * GOLDEN) % 1.0
    light = (0.75, 0.95, 0.85)[identity % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.6, light)
    return round(255 * red), round(255 * green), round(255 * blue)


@lru_cache(maxsize=16)
def _colours(skeleton: Skeleton) -> tuple[tuple[Colour, ...], tuple[Colour, ...]]:
    """The colours of a skeleton's points and of its limbs."""
    sides = tuple(_side(name) for name in skeleton.names)
    return sides, tuple(_limb_colour(sides[a], sides[b]) for a, b in skeleton.limbs)


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


def _line(image: Canvas, a: tuple[int, int], b: tuple[int, int], colour: Colour, width: float) -> None:
    cv2.line(image, a, b, colour, max(1, round(width)), cv2.LINE_AA, SUBPIXEL)


def _dot(image: Canvas, centre: tuple[int, int], colour: Colour, radius: float) -> None:
    cv2.circle(image, centre, round(radius * 2**SUBPIXEL), colour, -1, cv2.LINE_AA, SUBPIXEL)


def _grid(cells: Sequence[Canvas], columns: int, cell: tuple[int, int], gap: int = 8) -> Canvas:
    columns = max(1, min(columns, len(cells)))
    rows = max(1, -(-len(cells) // columns))
    canvas = np.full((rows * (cell[1] + gap) + gap, columns * (cell[0] + gap) + gap, 3), PAPER, np.uint8)
    for index, drawn in enumerate(cells):
        top = gap + index // columns * (cell[1] + gap)
        left = gap + index % columns * (cell[0] + gap)
        canvas[top : top + cell[1], left : left + cell[0]] = drawn
    return canvas
