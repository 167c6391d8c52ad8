"""The CL-Detection 2023 challenge's own form: lateral radiographs of several sizes in one stack, padded to
the largest, and one JSON list of all points.

    {"points": [{"name": "1", "point": [x, y, image], "scale": 0.1}, ...]}

Points are named by number from 1, images are counted from 1, `scale` is the image's mm per px. Each image
shows one head, so that the whole image, without its padding, is the box. Every point of every image is
labelled: what lacks one, or has one twice, is no file of the challenge's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rtmpose.data.raw import fields
from rtmpose.data.raw.coco_form import SEEN, plain_form
from rtmpose.data.raw.fields import Points
from rtmpose.data.raw.formats import ListedImage
from rtmpose.data.raw.stacks.metaimage import Header, extents_of, open_stack
from rtmpose.descriptors import Dataset
from rtmpose.files import UserError

FORMAT = '{"points": [{"name": "1", "point": [x, y, image], "scale": mm per px}, ...]}'
SHOWN = 4  # points that a line names


@dataclass(eq=False)
class _Image:
    """The points of one image as they are gathered."""

    points: Points
    spacing: float | None = None
    seen: set[int] = field(default_factory=set)


def read_cl_detection(dataset: Dataset, content: Any, path: Path, stack: Path) -> Iterator[ListedImage]:
    """Every image of `stack` with the points that the file at `path`, whose JSON is `content`, gives it; an
    image without any has no pose. Annotations carry `spacing`, mm per px.

    Raises UserError, one line with file, entry and fix: another form; a point that is none of the skeleton's,
    is there twice or is missing; an image that the stack does not hold; no spacing, or two of them.
    """
    if not isinstance(content, dict) or not isinstance(content.get("points"), list):
        raise UserError(f"{path}: not a file of the CL-Detection challenge; it must be {FORMAT}")
    opened = open_stack(stack)
    count = dataset.skeleton.num_keypoints
    images = _gathered(content["points"], count, opened.header, path, stack)
    sizes = extents_of(stack)
    for number in range(1, opened.header.pages + 1):
        width, height = sizes[number - 1].tolist()
        found = images.get(number)
        listed = ListedImage(number, f"{stack.stem}_{number}.png", width, height, page=number - 1)
        if found is not None:
            _refuse_missing(found, count, f"{path}: image {number}")
            # A dark border looks like padding, but no landmark is cut off with it.
            reach = np.ceil(found.points[:, :2].max(axis=0)).astype(int) + 1
            listed.width = max(width, min(int(reach[0]), opened.header.width))
            listed.height = max(height, min(int(reach[1]), opened.header.height))
            box = [0.0, 0.0, float(listed.width), float(listed.height)]
            form = plain_form(number, number, box, found.points) | {"spacing": found.spacing}
            listed.poses.append((form, found.points))
        if not width or not height:
            listed.width = listed.height = None
            listed.defect = "black image"
        yield listed


def _gathered(entries: list[Any], count: int, header: Header, path: Path, stack: Path) -> dict[int, _Image]:
    """The points of each image that has any."""
    images: dict[int, _Image] = {}
    for place, entry in enumerate(entries):
        where = f"{path}: points: entry {place}"
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("point"), list)
            or len(entry["point"]) != 3
        ):
            raise UserError(f"{where} is {fields.shown(entry)}; it must be as in {FORMAT}")
        number = fields.whole(entry["point"][2], f"{where}: image")
        if not 1 <= number <= header.pages:
            raise UserError(
                f"{where}: image {number} is not in {stack}, which holds {header.pages}, counted from 1; "
                "give the stack and the list of the same set"
            )
        point = fields.whole(entry.get("name"), f"{where}: name")
        if not 1 <= point <= count:
            raise UserError(f"{where}: name {point} is none of the points 1 to {count}; correct it")
        image = images.setdefault(number, _Image(np.zeros((count, 3))))
        if point in image.seen:
            raise UserError(f"{where}: point {point} of image {number} is there twice; keep one of the two")
        image.seen.add(point)
        image.points[point - 1] = (*_coordinates(entry["point"], where), SEEN)
        _take_spacing(image, entry, where)
    return images


def _coordinates(point: list[Any], where: str) -> tuple[float, float]:
    x, y = (fields.number(value, f"{where}: point") for value in point[:2])
    if x is None or y is None:
        raise UserError(f"{where}: point {fields.shown(point)} is not x and y; correct it")
    return x, y


def _take_spacing(image: _Image, entry: dict[str, Any], where: str) -> None:
    spacing = fields.positive(entry.get("scale"), f"{where}: scale")
    if spacing is None:
        raise UserError(
            f"{where}: scale {fields.shown(entry.get('scale'))}: mm per px must be above 0; errors in mm "
            "cannot be computed without it"
        )
    if image.spacing is not None and not math.isclose(image.spacing, spacing, rel_tol=1e-6):
        raise UserError(
            f"{where}: scale {spacing:g}, other points of the same image have {image.spacing:g}; correct it"
        )
    image.spacing = spacing


def _refuse_missing(image: _Image, count: int, where: str) -> None:
    missing = sorted(set(range(1, count + 1)) - image.seen)
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UserError(
            f"{where}: lacks the points {', '.join(map(str, missing[:SHOWN]))}{more}; add them, or leave the "
            "image's other points out too"
        )
