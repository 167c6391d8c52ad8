"""A raw folder looked at before anything is trained on it: what it holds, every defect by file and id, and
what is implausible. `sheet` draws its persons.
"""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.annotations import (
    Person,
    RawImage,
    judge_within,
    read_images,
    split_layout,
)
from rtmpose.data.raw.doubts import Doubts
from rtmpose.data.raw.exif import UPRIGHT, orientation
from rtmpose.data.raw.photograph import is_file, read_photograph
from rtmpose.descriptors import SIGMA_RULE, Dataset
from rtmpose.files import UserError, unbroken
from rtmpose.geometry import Floats, box_to_center_scale
from rtmpose.skeleton import Skeleton

QUANTILES = {"min": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "max": 1.0}
ROWS = 26  # of a histogram
BAR = 40  # characters of its longest bar


@dataclass(frozen=True, eq=False)
class Check:
    """What was found in one split. `persons` are those whose image is whole; `outside` counts their labelled
    points that lie outside of it; each of `problems` is one line that names a file and an id, each of
    `doubts` one that says what is implausible.
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
    doubts: list[str]


class _Look(NamedTuple):
    """One image as it was opened: what is wrong with the file, or its size (w, h); its persons with what is
    wrong with each; EXIF's orientation.
    """

    raw: RawImage
    fault: str | None
    size: tuple[int, int] | None
    judged: Sequence[tuple[Person, str | None]]
    turn: int = UPRIGHT


def check_split(dataset: Dataset, root: Path, split: str, workers: int | None = None) -> Check:
    """Read all annotations and decode all images of one split; persons are judged as the shards judge them.

    Raises UserError as `read_images` does: for a missing folder or file, and for a file that is not what its
    descriptor says.
    """
    listing = root / split_layout(dataset, root, split).annotations
    doubts = Doubts(dataset, listing)
    raws = list(read_images(dataset, root, split, doubts))
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        looks = list(pool.map(_look, raws))
    problems = [unbroken(line) for look in looks for line in _problems(dataset, listing, look)]
    for look in looks:
        if look.turn != UPRIGHT and dataset.exif == "stored" and look.fault is None:
            doubts.turned(look.raw.image_id, look.turn)
    annotations = sum(len(raw.annotations) for raw in raws)
    found = [(look, person) for look in looks for person, defect in look.judged if defect is None]
    if not found:
        problems.append(f"{listing}: none of its {annotations} annotations is a person to train on")
    skipped = Counter(reason for raw in raws for reason, _ in raw.skipped)
    skipped.update(defect for look in looks for _, defect in look.judged if defect is not None)
    return Check(
        dataset=dataset,
        root=root,
        split=split,
        images=len(raws),
        annotations=annotations,
        found=len(found),
        persons=[(look.raw, person) for look, person in found if look.size],
        left_out=Counter(reason for raw in raws for reason, _ in raw.left_out),
        skipped=skipped,
        outside=sum(_outside(person, look.size) for look, person in found if look.size),
        problems=problems,
        doubts=doubts.lines(),
    )


def _look(raw: RawImage) -> _Look:
    whole = [(person, None) for person in raw.persons]
    if raw.unlisted:
        return _Look(raw, None, None, whole)
    if raw.fault is None and not is_file(raw.path):
        return _Look(raw, f"{raw.path}: missing image", None, whole)
    try:
        content, pixels = read_photograph(raw)
    except UserError as error:
        return _Look(raw, str(error), None, whole)
    size = pixels.shape[1], pixels.shape[0]
    return _Look(raw, None, size, judge_within(raw, *size), orientation(content))


def _problems(dataset: Dataset, listing: Path, look: _Look) -> Iterator[str]:
    raw = look.raw
    if look.fault is not None:
        ids = [str(source_id(dataset, annotation["id"])) for annotation in raw.annotations]
        yield f"{look.fault} (image {raw.image_id}, annotations: {', '.join(dict.fromkeys(ids)) or 'none'})"
    told = {"missing image"} | ({raw.fault[0]} if raw.fault and look.fault else set())
    judged = [(defect, person.annotation_id) for person, defect in look.judged if defect is not None]
    for reason, number in [*raw.skipped, *judged]:
        if reason not in told:
            yield f"{listing}: annotation {source_id(dataset, number)} of image {raw.image_id}: {reason}"


def source_id(dataset: Dataset, number: int) -> int:
    """The id in the annotation file, which is shared by the poses of one annotation."""
    return number // len(dataset.instances)


def _outside(person: Person, size: tuple[int, int]) -> int:
    labelled = person.keypoints[person.visible > 0]
    return int(((labelled < 0) | (labelled > size)).any(axis=1).sum())


def report(check: Check, input_size: tuple[int, int]) -> Iterator[str]:
    """The lines of text that say what was found, problems and doubts last; `input_size` (w, h) is what small
    boxes are counted by.
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
    yield from (f"implausible: {line}" for line in check.doubts)
    yield outcome(check)


def outcome(check: Check) -> str:
    """`no problems`, or how many there are; what is implausible counts beside them."""
    if not check.doubts:
        return f"{len(check.problems)} problems" if check.problems else "no problems"
    return f"{len(check.problems)} problems, {len(check.doubts)} implausible: see whether they are meant"


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
