"""An annotation in COCO's fields as evaluation and shards have it: every field of one type, whatever the file
wrote.

Reading an annotation into this form is the one judgement of its optional fields. `dataset check`, shards,
`pipelines evaluate --raw` and evaluation shards see the result alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rtmpose.data.raw import fields
from rtmpose.data.raw.fields import Points
from rtmpose.descriptors import Instance
from rtmpose.geometry import clip_box

# Neither CrowdPose's boxes, nor AI Challenger's, nor those of hands and faces come with an area; this share
# of the box is what COCO's `area` is to its box on average over persons.
AREA_PER_BOX = 0.53
SEEN = 2.0  # the flag of a labelled point that is not hidden
NO_BOX = [0.0, 0.0, 0.0, 0.0]
# Where nobody drew a box, the extent of the labelled points is grown by this factor about its middle, and its
# shorter side to at least this share of the longer one: heads, hands and feet lie outside of their points.
EXTENT_PADDING, EXTENT_SHARE = 1.25, 1 / 3

#: The fields of a COCO-WholeBody annotation, in the order of its 133 points, and how many points each holds.
WHOLE_BODY_FIELDS = {
    "keypoints": 17,
    "foot_kpts": 6,
    "face_kpts": 68,
    "lefthand_kpts": 21,
    "righthand_kpts": 21,
}

BoxFrom = Literal["file", "points"]


def coco_form(
    instance: Instance, annotation: Mapping[str, Any], number: int, points: Points, where: str
) -> dict[str, Any]:
    """The annotation of one instance in COCO's fields, of category 1.

    All fields are kept where the instance is the annotated object itself. `keypoints` are the skeleton's,
    unless the descriptor reads that field whole among others (COCO-WholeBody, whose other points stay in
    their own fields). `num_keypoints` is counted anew. The box of an instance for which the set draws none is
    the extent of its points. `area` is the box's by AREA_PER_BOX where the file has none.

    Raises UserError, with `where` (file and annotation) and the field, for values that mean nothing.
    """
    own = instance.box == "bbox"
    form = {key: value for key, value in annotation.items() if own or key in ("image_id", "iscrowd")}
    found = extent_box(points) if instance.box is None else fields.box(annotation.get(instance.box))
    form |= {
        "id": number,
        "category_id": 1,
        "iscrowd": int(fields.flag(annotation.get("iscrowd"), f"{where}: iscrowd")),
        "bbox": NO_BOX if found is None else list(found),
    }
    kept = {part.field: part.held for part in instance.parts if own and part.field in form}
    for field, count in kept.items():
        form[field] = _plain_points(form[field], count, f"{where}: {field}")
    if not any(part.field == "keypoints" and part.total is None for part in instance.parts) or not form.get(
        "keypoints"
    ):
        form["keypoints"] = countable(points).ravel().tolist()
    form["num_keypoints"] = sum(v > 0 for v in form["keypoints"][2::3])
    given = fields.positive(annotation.get("area"), f"{where}: area") if own else None
    form["area"] = given if given is not None else area_of_box(form["bbox"], points)
    return form


def plain_form(number: int, image_id: int | str, box: Sequence[float], points: Points) -> dict[str, Any]:
    """The form of a person in a raw format other than COCO's, which has box xywh px and points alone."""
    found, counted = fields.box(list(box)), countable(points)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "bbox": NO_BOX if found is None else list(box),
        "area": area_of_box(box, points),
        "iscrowd": 0,
        "keypoints": counted.ravel().tolist(),
        "num_keypoints": int((counted[:, 2] > 0).sum()),
    }


def countable(points: Points) -> Points:
    """Points (K, 3) that evaluation can count: those without coordinates (null, NaN) are not labelled, and
    lie at 0. An infinite flag is above 2 and counts as seen, like any other.
    """
    if np.isfinite(points).all():
        return points
    known = (np.isfinite(points[:, :2]).all(axis=1) & ~np.isnan(points[:, 2]))[:, None]
    return np.where(known, np.nan_to_num(points, posinf=SEEN, neginf=0.0), 0.0)


def _plain_points(values: Any, count: int, where: str) -> list[float]:
    """A field's list of x, y, v as it is where it holds plain numbers, else what can be counted of it."""
    if not values or (set(map(type, values)) <= {int, float} and np.isfinite(values).all()):
        return values or []
    plain: list[float] = countable(fields.points(values, count, where)).ravel().tolist()
    return plain


def area_of_box(box: Sequence[float], points: Points) -> float:
    """The area px^2 that stands for one that nobody gave: a share of the box, or of the points' own where
    there is no box.
    """
    chosen = box if fields.box(list(box)) is not None else extent_box(points)
    return 0.0 if chosen is None else float(chosen[2] * chosen[3]) * AREA_PER_BOX


def extent_box(points: Points) -> list[float] | None:
    """The box xywh px around the labelled ones of points (K, 3), grown by EXTENT_PADDING and EXTENT_SHARE;
    None where they have no extent.
    """
    labelled = countable(points)
    labelled = labelled[labelled[:, 2] > 0, :2]
    size = np.ptp(labelled, axis=0) if len(labelled) else np.zeros(2)
    if size.max() <= 0:
        return None
    center = (labelled.min(axis=0) + labelled.max(axis=0)) / 2
    size = np.maximum(size, size.max() * EXTENT_SHARE) * EXTENT_PADDING
    return [*(center - size / 2).tolist(), *size.tolist()]


def annotation_keypoints(annotation: Mapping[str, Any]) -> np.ndarray:
    """The points (K, 3) of an annotation as (x, y, v); those of all fields where it is a
    COCO-WholeBody one.
    """
    values = list(annotation.get("keypoints") or ())
    if len(values) == 3 * WHOLE_BODY_FIELDS["keypoints"] and "foot_kpts" in annotation:
        values = [value for field in WHOLE_BODY_FIELDS for value in annotation[field]]
    return np.asarray(values, np.float64).reshape(-1, 3)


def is_person(annotation: Mapping[str, Any]) -> bool:
    """Whether evaluation counts it: no crowd, and a labelled point."""
    points = annotation_keypoints(annotation)
    return not annotation.get("iscrowd", 0) and points.size > 0 and bool((countable(points)[:, 2] > 0).any())


def person_annotations(data: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The annotations that a pose is predicted for: persons that have a box of some size."""
    annotations = data["annotations"] if isinstance(data, Mapping) else data
    return [
        annotation
        for annotation in annotations
        if is_person(annotation) and fields.box(annotation.get("bbox")) is not None
    ]


def box_within(annotation: Mapping[str, Any], width: int, height: int) -> tuple[list[float], BoxFrom] | None:
    """A person's box xywh px of which something lies in an image of this size: the file's own, else the one
    around the labelled points; None where there is neither.
    """
    candidates: tuple[tuple[Sequence[float] | None, BoxFrom], ...] = (
        (fields.box(annotation.get("bbox")), "file"),
        (extent_box(annotation_keypoints(annotation)), "points"),
    )
    for box, source in candidates:
        if box is not None and min(clip_box(box, width, height)[2:]) > 0:
            return list(box), source
    return None
