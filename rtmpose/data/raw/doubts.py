"""What is implausible in an annotation file though nothing of it is broken: counted, and told with the first
ids.

Nothing is changed because of a doubt, points are never reordered. Only a person can say which of the two is
right: the file, or what the descriptor says of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw import fields
from rtmpose.data.raw.coco_form import is_person
from rtmpose.data.raw.exif import TURNS
from rtmpose.data.raw.fields import Points
from rtmpose.descriptors import Dataset
from rtmpose.files import unbroken
from rtmpose.skeleton import Skeleton

FIRST = 5  # ids that a line shows
FLAGS = (0, 1, 2)
LEAST_AREA, LARGEST_AREA = 0.01, 2.0  # of the box's: COCO's persons have 0.1 to 0.95
LARGEST_SHARE = 2.0  # coordinates of shares, those a little outside the image too, are below it
JUDGED = 3  # labelled points that it takes to say which of two boxes they fit
LEAST_OFFSET = 0.05  # of a box's side: nearer to the image's corner, xywh and corners are the same box
CORNERS = 0.5  # the share of judged boxes from which on they are taken for corners
SIDES = {"l": "left", "r": "right"}


@dataclass
class _Found:
    """How often something was met, and the first ids it was met at."""

    count: int = 0
    ids: list[int | str] = field(default_factory=list)

    def add(self, number: int | str, count: int = 1) -> None:
        self.count += count
        if len(self.ids) < FIRST and number not in self.ids:
            self.ids.append(number)

    def first(self, what: str) -> str:
        return f"(first {what}: {', '.join(map(str, self.ids))})"


class Doubts:
    """Collects the doubts of one split while it is read; `lines` tells them."""

    def __init__(self, dataset: Dataset, listing: Path) -> None:
        self.dataset, self.listing = dataset, listing
        self.found: dict[str, _Found] = {}
        self.values: Counter[float] = Counter()  # visibility flags of labelled points
        self.odd: Counter[float] = Counter()
        self.turns: Counter[int] = Counter()
        self.category_names: Mapping[Any, str] = {}
        self.unread_categories: Counter[Any] = Counter()
        self.judged = 0
        self.told: list[str] = []  # whole lines
        # COCO-WholeBody's hands and faces have a confidence in the flag's place.
        self.whole_flags = all(part.field == "keypoints" for one in dataset.instances for part in one.parts)

    def _note(self, kind: str, number: int | str, count: int = 1) -> None:
        if count:
            self.found.setdefault(kind, _Found()).add(number, count)

    def file_names(self, names: Sequence[str], category: str) -> None:
        """The file's own names of a category's points, beside the descriptor's."""
        line = name_difference(self.dataset, names)
        if line is not None:
            told = f"{self.listing}: category {category!r}: {line}"
            if told not in self.told:
                self.told.append(told)

    def image_id(self, number: int, said: Any, listed: Any) -> None:
        """An annotation that writes its image's id as another type than the list of images."""
        kinds = [
            "text" if isinstance(value, str) else "numbers" if isinstance(value, int | float) else "other"
            for value in (said, listed)
        ]
        if kinds[0] != kinds[1]:
            self._note(f"image_id is {kinds[0]} in annotations, ids are {kinds[1]} in images", number)

    def area(self, annotation: Mapping[str, Any], usable: float | None) -> None:
        """An `area` field that holds no area (null, 0, negative or not a number), or one that a person in the
        annotation's box cannot have.
        """
        number, box = annotation["id"], fields.box(annotation["bbox"])
        self._note("area", number, int(usable is None))
        if usable is not None and box is not None and is_person(annotation):
            whole = box[2] * box[3]
            self._note("area of box", number, int(not LEAST_AREA * whole <= usable <= LARGEST_AREA * whole))

    def unread(self, number: int, category: Any) -> None:
        """An annotation with points of a category that is not read."""
        self.unread_categories[category] += 1
        self._note("categories", number)

    def flags(self, number: int, flags: NDArray[np.floating], known: Sequence[int] = FLAGS) -> None:
        """The visibility flags of one person."""
        outside = (flags < min(known)) | (flags > max(known))
        odd = outside | (flags != np.floor(flags)) if self.whole_flags else outside
        odd &= ~np.isnan(flags)
        if odd.any():
            self.odd.update(flags[odd].tolist())
            self._note("flags", number, int(odd.sum()))

    def person(self, annotation: dict[str, Any], points: Points) -> None:
        """Box and points (K, 3) of one annotation."""
        number, box = annotation["id"], fields.box(annotation["bbox"])
        if self.dataset.reader == "coco":
            self.flags(number, points[:, 2])
        labelled = points[points[:, 2] > 0]
        self.values.update(np.minimum(labelled[:, 2], 2).tolist())
        xy = labelled[:, :2]
        self._note("corner", number, int((xy == 0).all(axis=1).sum()))
        if box is not None and _are_shares(np.array(box)):
            self._note("shares box", number)
        if len(xy) and _are_shares(xy):
            self._note("shares points", number)
        elif box is not None and len(xy) >= JUDGED:
            self._judge_corners(number, box, xy)

    def _judge_corners(self, number: int, box: fields.Four, xy: NDArray[np.floating]) -> None:
        x, y, w, h = box
        if x > LEAST_OFFSET * w or y > LEAST_OFFSET * h:
            self.judged += 1
            inside = (xy >= (x, y)).all() and (xy <= (w, h)).all()
            self._note("corners", number, int(inside and w > x and h > y))

    def turned(self, image_id: int | str, turn: int) -> None:
        """A photograph with a turn in EXIF that is ignored."""
        self.turns[turn] += 1
        self._note("turns", image_id)

    def counts(self) -> dict[str, int]:
        """How often each kind was met, for an index of the raw folder."""
        return {kind: one.count for kind, one in self.found.items() if kind != "corners" or self._corners()}

    def _corners(self) -> bool:
        found = self.found.get("corners")
        return found is not None and found.count >= CORNERS * self.judged

    def lines(self) -> list[str]:
        """One line for each kind, with the file, the number and the first ids."""
        own = [f"{self.listing}: {line}" for line in self._lines()]
        return [unbroken(line) for line in (*self.told, *own, *flip_doubts(self.dataset))]

    def _lines(self) -> Iterator[str]:
        for kind, one in self.found.items():
            text = self._text(kind, one)
            if text is not None:
                yield f"{text} {one.first('images' if kind == 'turns' else 'annotations')}"
        if self.whole_flags and set(self.values) == {1.0}:
            yield (
                f"all {self.values[1.0]} labelled points have visibility flag 1 (labelled but hidden), none "
                "has 2 (seen); correct the flags if they were meant as yes and no"
            )

    def _text(self, kind: str, one: _Found) -> str | None:
        match kind:
            case "area":
                problem = "annotations have an area that is null, 0, negative or not a number"
                return f"{one.count} {problem}; a share of the box counts instead"
            case "area of box":
                problem = "persons have an area of more than twice their box, or of less than a hundredth"
                return f"{one.count} {problem}; give px², or leave area out: a share of the box counts then"
            case "categories":
                return self._unread_text(one.count)
            case "flags":
                worst = sorted(self.odd.items())[:FIRST]
                values = ", ".join(f"{value:g} ({count} times)" for value, count in worst)
                known = "1, 2, 3" if self.dataset.reader == "aic" else "0, 1, 2"
                problem = f"points have a visibility flag outside {known}: {values}"
                return f"{one.count} {problem}; correct the flags"
            case "corner":
                problem = "labelled points lie at exactly (0, 0)"
                return f"{one.count} {problem}; give points that are missing the visibility flag 0"
            case "shares box":
                problem = "boxes are shares of the image (0 to 1) instead of pixels"
                return f"{one.count} {problem}; multiply by its width and height"
            case "shares points":
                problem = "persons have keypoints that are shares of the image (0 to 1) instead of pixels"
                return f"{one.count} {problem}; multiply by its width and height"
            case "corners":
                problem = "boxes fit their points as corners x1, y1, x2, y2 (xyxy)"
                text = f"{one.count} of {self.judged} {problem}; bbox must be x, y, width, height"
                return text if self._corners() else None
            case "turns":
                return self._turn_text(one.count)
        return f"{kind}: {one.count} annotations are read as if they were the same; write them alike"

    def _unread_text(self, count: int) -> str:
        names = self.category_names
        rows = [
            f"{category} ({names.get(category, 'without a name')}) {times}"
            for category, times in self.unread_categories.most_common(FIRST)
        ]
        return (
            f"{count} annotations with points are of categories that are not read: {', '.join(rows)}; name "
            "those to read in the descriptor, such as `categories: [person]`, or write `categories: all`"
        )

    def _turn_text(self, count: int) -> str:
        kinds = ", ".join(f"orientation {turn} ({TURNS[turn]}) {n}" for turn, n in sorted(self.turns.items()))
        return (
            f"{count} photographs have an EXIF turn which is ignored: {kinds}; if they were annotated as "
            "viewers show them, set `exif: display` in the descriptor"
        )


def _are_shares(values: NDArray[np.floating]) -> bool:
    """Whether coordinates in px are none but shares of the image: all small, and not all whole."""
    return bool(
        (values < LARGEST_SHARE).all() and (values > -LARGEST_SHARE).all() and (values % 1 != 0).any()
    )


def name_difference(dataset: Dataset, names: Sequence[str]) -> str | None:
    """Where the file's names of its points differ from the descriptor's, which reads them by their place;
    None where they agree.

    Writing does not count ("Left Eye", left_eye), nor do abbreviations by word ("L_F_Paw", left_front_paw).
    """
    own, offset = list(dataset.skeleton.names), 0
    for part in dataset.instances[0].parts if len(dataset.instances) == 1 else ():
        if part.field == "keypoints":
            own, theirs = own[offset : offset + part.points], list(names[: part.points])
            break
        offset += part.points
    else:
        return None
    differing = [k for k, name in enumerate(own) if k >= len(theirs) or not _alike(name, theirs[k])]
    if not differing:
        return None
    k = differing[0]
    places = f"{'point' if len(differing) == 1 else 'points'} {runs(offset + k for k in differing)}"
    there = f"names {theirs[k]}" if k < len(theirs) else "has no name for"
    same = len(theirs) == len(own) and all(any(_alike(a, b) for b in theirs) for a in own)
    return (
        f"its points have {'the same names in another order' if same else 'other names'} than in the "
        f"descriptor {dataset.name}: they differ at {places} (at {offset + k} the file {there} what the "
        f"descriptor names {own[k]}); points are read by their place and never reordered: correct the one "
        "that is wrong"
    )


def runs(numbers: Iterable[int]) -> str:
    """`1..4, 7` for 1, 2, 3, 4, 7."""
    groups = (list(group) for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]))
    return ", ".join(f"{g[0][1]}" if len(g) == 1 else f"{g[0][1]}..{g[-1][1]}" for g in groups)


def _words(name: str) -> list[str]:
    """A point's name in words, its side written out: "L_F_Paw" is left, f, paw."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name) if name.isascii() else [name]
    return [SIDES.get(word.lower(), word.lower()) for word in words]


def _side(words: Sequence[str]) -> set[str]:
    return {"left", "right"} & set(words)


def _alike(a: str, b: str) -> bool:
    first, second = sorted(_words(a)), sorted(_words(b))
    if "".join(_words(a)) == "".join(_words(b)):
        return True
    if _side(first) == _side(second) and (set(first) <= set(second) or set(second) <= set(first)):
        return True  # "head" and "top_head"
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) > 0 and all(x.startswith(y) or y.startswith(x) for x, y in pairs)


def flip_doubts(dataset: Dataset) -> Iterator[str]:
    """Points whose names say left and right, but that no flip pair of the descriptor joins."""
    skeleton = dataset.skeleton
    missing = [
        f"[{skeleton.names[a]}, {skeleton.names[b]}]"
        for a, b in _sided_pairs(skeleton)
        if skeleton.flip[a] != b
    ]
    if missing:
        yield (
            f"{dataset.name}: skeleton.flip_pairs of the descriptor lacks {', '.join(missing)}, which are "
            "left and right by their names; a mirrored image would keep them as they are"
        )


def _sided_pairs(skeleton: Skeleton) -> Iterator[tuple[int, int]]:
    """The points whose names differ in left and right alone."""
    words = {tuple(_words(name)): k for k, name in enumerate(skeleton.names)}
    for own, k in words.items():
        other = words.get(tuple("right" if word == "left" else word for word in own))
        if "left" in own and other is not None:
            yield k, other
