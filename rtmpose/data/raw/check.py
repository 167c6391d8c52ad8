"""A raw folder looked at before anything is trained on it: what it holds, every defect by file and id, and a
sheet of persons to see whether boxes and points are where they should be.
"""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.annotations import Person, RawImage, read_images
from rtmpose.data.raw.photograph import read_photograph
from rtmpose.descriptors import SIGMA_RULE, Dataset
from rtmpose.files import UserError, write_atomic
from rtmpose.geometry import Floats, box_to_center_scale, crop_matrix, fix_aspect, transform_points, warp
from rtmpose.skeleton import Skeleton

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]

QUANTILES = {"min": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "max": 1.0}
ROWS = 26  # of a histogram
BAR = 40  # characters of its longest bar

CELL, CAPTION, COLUMNS, GAP = (
    288,
    34,
    6,
    6,
)  # px: side of a picture, height of its caption; pictures in a row; px between them
NUMBERED = 30  # skeletons of more points are too dense for their numbers to be read
# RGB. Orange and blue stay apart for colour-blind eyes and on skin, cloth and grass alike.
LEFT, RIGHT, MIDDLE = (255, 140, 30), (40, 140, 255), (90, 220, 120)
BOX, INK, PAPER = (250, 230, 80), (20, 20, 24), (250, 250, 250)
SUBPIXEL = 4  # bits of fraction in OpenCV's drawing coordinates


@dataclass(frozen=True, eq=False)
class Check:
    """What was found in one split. `persons` are those whose image is whole; `outside` counts their labelled
    points that lie outside of it; each of `problems` is one line that names a file and an id.
    """

    dataset: Dataset
    root: Path
    split: str
    images: int
    annotations: int
    found: int
    persons: list[tuple[RawImage, Person]]
    left_out: Counter[str]
    skipped: Counter[str]
    outside: int
    problems: list[str]


def check_split(dataset: Dataset, root: Path, split: str, workers: int | None = None) -> Check:
    """Read all annotations and decode all images of one split.

    Raises UserError as `read_images` does: for a missing folder or file, and for a file that is not what its
    descriptor says.
    """
    raws = list(read_images(dataset, root, split))
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        looked = list(pool.map(_look, raws))
    listing = root / dataset.splits[split].annotations
    problems = [
        line
        for raw, (fault, _) in zip(raws, looked, strict=True)
        for line in _problems(dataset, listing, raw, fault)
    ]
    annotations = sum(len(raw.annotations) for raw in raws)
    found = sum(len(raw.persons) for raw in raws)
    if found == 0:
        problems.append(f"{listing}: none of its {annotations} annotations is a person to train on")
    good = [
        (raw, person, size)
        for raw, (_, size) in zip(raws, looked, strict=True)
        if size
        for person in raw.persons
    ]
    return Check(
        dataset=dataset,
        root=root,
        split=split,
        images=len(raws),
        annotations=annotations,
        found=found,
        persons=[(raw, person) for raw, person, _ in good],
        left_out=Counter(reason for raw in raws for reason, _ in raw.left_out),
        skipped=Counter(reason for raw in raws for reason, _ in raw.skipped),
        outside=sum(_outside(person, size) for _, person, size in good),
        problems=problems,
    )


def _look(raw: RawImage) -> tuple[str | None, tuple[int, int] | None]:
    """What is wrong with the image file, or its size (w, h)."""
    if any(reason == "image not listed" for reason, _ in raw.skipped):
        return None, None
    if not raw.path.is_file():
        return f"{raw.path}: missing image", None
    try:
        _, pixels = read_photograph(raw)
    except UserError as error:
        return str(error), None
    return None, (pixels.shape[1], pixels.shape[0])


def _problems(dataset: Dataset, listing: Path, raw: RawImage, fault: str | None) -> Iterator[str]:
    if fault is not None:
        ids = [str(_source_id(dataset, annotation["id"])) for annotation in raw.annotations]
        yield f"{fault} (image {raw.image_id}, annotations: {', '.join(dict.fromkeys(ids)) or 'none'})"
    for reason, number in raw.skipped:
        if reason != "missing image":
            yield f"{listing}: annotation {_source_id(dataset, number)} of image {raw.image_id}: {reason}"


def _source_id(dataset: Dataset, number: int) -> int:
    """The id in the annotation file, which is shared by the poses of one annotation."""
    return number // len(dataset.instances)


def _outside(person: Person, size: tuple[int, int]) -> int:
    labelled = person.keypoints[person.visible > 0]
    return int(((labelled < 0) | (labelled > size)).any(axis=1).sum())


def report(check: Check, input_size: tuple[int, int]) -> Iterator[str]:
    """The lines of text that say what was found, the problems last; `input_size` (w, h) is what small boxes
    are counted by.
    """
    name = f"{check.dataset.name}, split {check.split} in {check.root}"
    yield f"{name}: {check.images} images, {check.annotations} annotations, {check.found} persons"
    yield f"left out by the format's own rules: {tally(check.left_out)}"
    yield f"skipped for a defect: {tally(check.skipped)}"
    yield from _sigma_lines(check.dataset.skeleton)
    if check.persons:
        persons = [person for _, person in check.persons]
        yield ""
        yield from _histogram(
            np.array([(person.visible > 0).sum() for person in persons]), check.dataset.skeleton.num_keypoints
        )
        yield f"labelled points outside their image: {check.outside}"
        yield ""
        yield from _boxes(np.array([person.box for person in persons]), input_size)
    yield ""
    yield from (f"problem: {line}" for line in check.problems)
    yield f"{len(check.problems)} problems" if check.problems else "no problems"


def tally(counts: Counter[str]) -> str:
    """`no keypoints 254, crowd 16`; `none` where there is nothing."""
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "none"


def _sigma_lines(skeleton: Skeleton) -> Iterator[str]:
    if not skeleton.sigmas_estimated:
        yield "sigmas: given by the descriptor"
        return
    yield f"sigmas: ESTIMATED, since the descriptor gives none: {SIGMA_RULE}"
    values = ", ".join(
        f"{name}={sigma:g}" for name, sigma in zip(skeleton.names, skeleton.sigmas, strict=True)
    )
    yield from textwrap.wrap(values, 120, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _histogram(counts: NDArray[np.integer], points: int) -> Iterator[str]:
    """Persons by their number of labelled points."""
    step = -(-points // ROWS)
    rows = [(low, min(low + step - 1, points)) for low in range(1, points + 1, step)]
    heights = [int(((counts >= low) & (counts <= high)).sum()) for low, high in rows]
    yield f"persons by labelled points, of {points}"
    for (low, high), height in zip(rows, heights, strict=True):
        label = f"{low}" if low == high else f"{low}-{high}"
        yield f"{label:>9} {'#' * -(-height * BAR // max(heights))}{' ' if height else ''}{height}"


def _boxes(boxes: Floats, input_size: tuple[int, int]) -> Iterator[str]:
    yield f"{'box, px':>9}" + "".join(f"{name:>9}" for name in QUANTILES)
    for name, sides in (("width", boxes[:, 2]), ("height", boxes[:, 3])):
        yield f"{name:>9}" + "".join(f"{np.quantile(sides, share):9.1f}" for share in QUANTILES.values())
    _, scale = box_to_center_scale(boxes, input_size[0] / input_size[1])
    small = int((scale[:, 0] < input_size[0]).sum())
    share, size = 100 * small / len(boxes), f"{input_size[0]}x{input_size[1]}"
    yield f"smaller than the input: the crops of {small} persons ({share:.0f} %) are enlarged to {size}"


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
    ids = f"annotation {_source_id(dataset, person.annotation_id)}"
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
