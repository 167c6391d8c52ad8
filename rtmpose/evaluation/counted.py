"""Whom an evaluation on ground-truth boxes counts, and for whom of them no pose can be predicted.

AP counts every person with a labelled point. A pose is predicted in the person's box; where the file has
none, or one without a size or outside of the image, in a box around the labelled points
(`rtmpose.data.raw.coco_form.extent_box`). Who has neither lowers AP whatever the network is worth, so it is
said, and bounded by `evaluate.max_unpredicted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtmpose.data.raw.annotations import RawImage
from rtmpose.data.raw.coco_form import EXTENT_PADDING, box_within, is_person
from rtmpose.files import UserError

FIRST = 5  # persons that a line names
BOX_FROM = "box_from"  # of an annotation: "points" or "nothing" where the file's own box is not used


def with_box(annotation: Mapping[str, Any], width: int, height: int) -> dict[str, Any]:
    """The annotation, a person's with a box of which something lies in an image of this size px, if any, and
    the note BOX_FROM where it is not the file's own.
    """
    if not is_person(annotation):
        return dict(annotation)
    found = box_within(annotation, width, height)
    if found is None:
        return {**annotation, BOX_FROM: "nothing"}
    box, source = found
    return dict(annotation) if source == "file" else {**annotation, "bbox": box, BOX_FROM: source}


def listed(images: Iterable[RawImage], lost: list[Mapping[str, Any]]) -> Iterator[RawImage]:
    """The images that the annotation file lists; the persons of others, whom AP cannot count, are added to
    `lost`.
    """
    for raw in images:
        if raw.unlisted:
            lost += filter(is_person, raw.annotations)
        else:
            yield raw


@dataclass(frozen=True)
class Counted:
    """The persons of a ground truth: how many, who was given a box by their points, and who has none."""

    persons: int
    from_points: Sequence[Mapping[str, Any]]
    unpredicted: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, truth: Mapping[str, Any]) -> Counted:
        """Those of the truth that `Evaluator.images` gathered; its key `lost` holds those of images that are
        not listed.
        """
        lost = truth.get("lost", [])
        persons = [annotation for annotation in truth.get("annotations", ()) if is_person(annotation)]
        source = [annotation.get(BOX_FROM) for annotation in persons]
        points, nothing = (
            [annotation for annotation, found in zip(persons, source, strict=True) if found == kind]
            for kind in ("points", "nothing")
        )
        return cls(len(persons) + len(lost), points, [*nothing, *lost])

    def figures(self) -> dict[str, int]:
        return {
            "persons": self.persons,
            "boxes_from_points": len(self.from_points),
            "unpredicted": len(self.unpredicted),
        }

    def notes(self) -> Iterator[str]:
        """One line for each kind of person whose box is not the file's own."""
        if self.from_points:
            yield (
                f"{len(self.from_points)} of {self.persons} persons have no usable box: a pose is predicted "
                f"in the extent of their labelled points, grown by {EXTENT_PADDING:g} "
                f"({_first(self.from_points)})"
            )
        if self.unpredicted:
            yield self._lost()

    def refuse_many(self, allowed: float) -> None:
        """UserError where more than `allowed`, a share of all persons, have no pose."""
        if len(self.unpredicted) > allowed * self.persons:
            raise UserError(
                f"{self._lost()}, more than evaluate.max_unpredicted allows ({allowed:.1%}); give them boxes "
                "and images, or raise evaluate.max_unpredicted"
            )

    def _lost(self) -> str:
        return (
            f"{len(self.unpredicted)} of {self.persons} persons count against AP though no pose can be "
            f"predicted for them: they have no box, or no image ({_first(self.unpredicted)})"
        )


def _first(persons: Sequence[Mapping[str, Any]]) -> str:
    rows = (f"annotation {each.get('id')} of image {each.get('image_id')}" for each in persons[:FIRST])
    return f"first {', '.join(rows)}"
