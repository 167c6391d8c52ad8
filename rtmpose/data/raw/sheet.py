"""A contact sheet: persons of a raw folder with box, limbs, points and ids, to see whether they are where
they should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.annotations import Person, RawImage
from rtmpose.data.raw.check import Check, source_id
from rtmpose.data.raw.photograph import read_photograph
from rtmpose.descriptors import Dataset
from rtmpose.files import UserError, write_atomic
from rtmpose.geometry import Floats, crop_matrix, fix_aspect, transform_points, warp
from rtmpose.skeleton import Skeleton

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]

CELL, CAPTION, GAP = 288, 34, 6  # px: side of a picture, height of its caption, space between pictures
COLUMNS = 6  # pictures in a row
NUMBERED = 30  # skeletons of more points are too dense for their numbers to be read
# RGB. Orange and blue stay apart for colour-blind eyes and on skin, cloth and grass alike.
LEFT, RIGHT, MIDDLE = (255, 140, 30), (40, 140, 255), (90, 220, 120)
BOX, INK, PAPER = (250, 230, 80), (20, 20, 24), (250, 250, 250)
SUBPIXEL = 4  # bits of fraction in OpenCV's drawing coordinates


def contact_sheet(check: Check, count: int, path: Path) -> Path:
    """Draw `count` persons, spread evenly over the split, with box, limbs, points and ids, into a JPEG or
    PNG.

    Left is orange, right is blue; points without a side run through the colours by their number. A filled
    point is seen, a ring is hidden. Raises UserError when there is no person to draw or no such image format.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"{path}: a contact sheet is a .jpg or .png file")
    if not check.persons:
        raise UserError(f"{check.root}: no person to draw in split {check.split} of {check.dataset.name}")
    places = np.unique(np.linspace(0, len(check.persons) - 1, count).round().astype(int))
    cells = [_cell(*check.persons[int(place)], check.dataset) for place in places]
    rows = -(-len(cells) // COLUMNS)
    columns = min(COLUMNS, len(cells))
    height, width = CELL + CAPTION + GAP, CELL + GAP
    sheet = np.full((rows * height + GAP, columns * width + GAP, 3), PAPER, np.uint8)
    for i, cell in enumerate(cells):
        top, left = (i // COLUMNS) * height + GAP, (i % COLUMNS) * width + GAP
        sheet[top : top + CELL + CAPTION, left : left + CELL] = cell
    done, content = cv2.imencode(path.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    assert done
    return write_atomic(path, content.tobytes())


def _cell(raw: RawImage, person: Person, dataset: Dataset) -> Canvas:
    """One person in a square picture, wide enough for the box and all labelled points, above a caption."""
    _, pixels = read_photograph(raw)
    x, y, w, h = person.box
    labelled = person.visible > 0
    around = np.concatenate([[(x, y), (x + w, y + h)], person.keypoints[labelled]])
    center, scale = (
        (around.min(axis=0) + around.max(axis=0)) / 2,
        fix_aspect(np.ptp(around, axis=0) * 1.15, 1),
    )
    # Reduced by area first: the bilinear warp alone would leave out most pixels of a large person.
    reduction = min(1.0, CELL / scale[0])
    height, width = (max(1, round(side * reduction)) for side in pixels.shape[:2])
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    matrix = crop_matrix(center * reduction, scale * reduction, 0.0, (CELL, CELL), False)
    picture = warp(pixels, matrix, (CELL, CELL))
    (left, top), (right, bottom) = (
        transform_points(np.array([(x, y), (x + w, y + h)]) * reduction, matrix).round().astype(int)
    )
    cv2.rectangle(picture, (int(left), int(top)), (int(right), int(bottom)), BOX)
    _draw_pose(
        picture, transform_points(person.keypoints * reduction, matrix), person.visible, dataset.skeleton
    )
    caption = np.full((CAPTION, CELL, 3), PAPER, np.uint8)
    _write(caption, (2, 13), f"image {raw.image_id}", INK, 0.4)
    ids = f"annotation {source_id(dataset, person.annotation_id)}"
    _write(caption, (2, 28), f"{ids}  {labelled.sum()}/{len(labelled)} points  {w:.0f}x{h:.0f} px", INK, 0.4)
    return np.concatenate([picture, caption])


def _draw_pose(picture: Canvas, points: Floats, visible: NDArray[np.uint8], skeleton: Skeleton) -> None:
    colours = _colours(skeleton)
    for a, b in skeleton.limbs:
        if visible[a] and visible[b]:
            colour = colours[a] if colours[a] != MIDDLE else colours[b]
            cv2.line(picture, _fixed(points[a]), _fixed(points[b]), colour, 2, cv2.LINE_AA, SUBPIXEL)
    dense = skeleton.num_keypoints > NUMBERED
    radius = round((1.6 if dense else 3.0) * 2**SUBPIXEL)
    for k in np.flatnonzero(visible):
        cv2.circle(picture, _fixed(points[k]), radius + 2**SUBPIXEL, INK, -1, cv2.LINE_AA, SUBPIXEL)
        cv2.circle(picture, _fixed(points[k]), radius, colours[k], -1, cv2.LINE_AA, SUBPIXEL)
        if visible[k] == 1:
            cv2.circle(picture, _fixed(points[k]), radius // 2, PAPER, -1, cv2.LINE_AA, SUBPIXEL)
    for k in np.flatnonzero(visible) if not dense else ():
        place = (int(points[k][0]) + 4, int(points[k][1]) - 3)
        _write(picture, place, str(k), INK, 0.35, 3)
        _write(picture, place, str(k), PAPER, 0.35)


def _colours(skeleton: Skeleton) -> list[Colour]:
    """Left and right by the names; a colour wheel by number where the names have no sides."""
    names = [name.lower() for name in skeleton.names]
    sides = [
        LEFT if n.startswith(("left", "l_")) else RIGHT if n.startswith(("right", "r_")) else MIDDLE
        for n in names
    ]
    if any(side != MIDDLE for side in sides):
        return sides
    hue = np.linspace(0, 150, len(names)).astype(np.uint8)  # not round to red again
    wheel = np.stack([hue, np.full_like(hue, 200), np.full_like(hue, 255)], axis=-1)[None]
    return [tuple(int(c) for c in colour) for colour in cv2.cvtColor(wheel, cv2.COLOR_HSV2RGB)[0]]  # type: ignore[misc]


def _fixed(point: Sequence[float] | Floats) -> tuple[int, int]:
    # A wild annotation must not overflow OpenCV's integers.
    x, y = np.clip(np.round(np.asarray(point) * 2**SUBPIXEL), -(2**24), 2**24)
    return int(x), int(y)


def _write(
    picture: Canvas, place: tuple[int, int], text: str, colour: Colour, size: float, thickness: int = 1
) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thickness, cv2.LINE_AA)
