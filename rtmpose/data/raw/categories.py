"""Which categories of an annotation file, and of a detector's file, are the ones whose points are learned.

Tools count categories from 0 or from 1, or leave 10 to persons; what comes after the reader knows one
category only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rtmpose.data.raw import fields
from rtmpose.data.raw.fields import identity
from rtmpose.descriptors import Dataset
from rtmpose.files import UserError

PERSON = "person"
COCO_PERSON = 1  # COCO's id of persons
Id = int | str | None


def chosen_categories(dataset: Dataset, content: Mapping[str, Any], path: object) -> set[Id] | None:
    """The ids of the categories to read, as `fields.identity` has them; None: all.

    Those that the descriptor's `categories` names. Without it, of the categories whose annotations hold
    points: the one that is called person, or the only one. UserError that names the choices where there are
    several. An annotation without a category counts among any.
    """
    names = category_names(content, path)
    if dataset.categories == "all":
        return None
    if dataset.categories is not None:
        unknown = [name for name in dataset.categories if name not in names.values()]
        if unknown:
            known = ", ".join(map(str, names.values()))
            raise UserError(
                f"{path}: has no category {unknown[0]!r}, only {known}; correct the descriptor's categories"
            )
        return {number for number, name in names.items() if name in dataset.categories}
    held = {part.field for instance in dataset.instances for part in instance.parts}
    found = {
        category_of(annotation, path): None
        for annotation in content["annotations"]
        if any(annotation.get(field) for field in held)
    }
    found.pop(None, None)
    if len(found) <= 1:
        return {*found, None} if found else None
    persons = [number for number in found if str(names.get(number, "")).strip().lower() == PERSON]
    if len(persons) == 1:
        return {persons[0], None}
    choices = ", ".join(f"{number} ({names.get(number, 'without a name')})" for number in found)
    raise UserError(
        f"{path}: {len(found)} categories have keypoints: {choices}; write into the descriptor which to "
        f"read, such as `categories: [{names.get(next(iter(found)), PERSON)}]`, or `categories: all`"
    )


def holds_points(dataset: Dataset, annotation: Mapping[str, Any]) -> bool:
    """Whether one of the fields that the descriptor reads holds a point that is labelled, as far as a look at
    its flags tells.
    """
    fields_read = {part.field for instance in dataset.instances for part in instance.parts}
    values = (annotation.get(name) for name in fields_read)
    flags = (value[2::3] for value in values if isinstance(value, list))
    return any(flag not in (0, "0", None) for of_field in flags for flag in of_field)


def category_of(annotation: Mapping[str, Any], path: object) -> Id:
    """An annotation's category id; None where it has none."""
    value = annotation.get("category_id")
    found = identity(value)
    unknown = value is None or value != value or (isinstance(value, str) and not value.strip())
    if not unknown and (found is None or isinstance(value, bool)):
        where = f"{path}: annotation {annotation.get('id')}: category_id"
        raise UserError(f"{where}: {fields.shown(value)} is not the id of a category; correct it")
    return None if unknown else found


def category_names(content: Mapping[str, Any], path: object) -> dict[Id, str]:
    """Names by id of the categories that the file lists."""
    names: dict[Id, str] = {}
    for category in content.get("categories") or []:
        if not isinstance(category, Mapping) or "id" not in category:
            raise UserError(f"{path}: categories: {fields.shown(category)} has no id; correct it")
        names[identity(category["id"])] = str(category.get("name", ""))
    return names


def detected_category(found: Iterable[Id], wanted: int | None, where: str) -> Id:
    """The category of a detector's file whose boxes are persons: `wanted` where somebody says it, else the
    only one, else the first: 1 as COCO counts, 0 in a file that counts from 0. UserError where it is unclear.
    """
    ids = set(found) - {None}
    if wanted is not None:
        if ids and wanted not in ids:
            raise UserError(
                f"{where}: no box has category_id {wanted}, only {_listed(ids)}; correct the category"
            )
        return wanted
    if len(ids) <= 1:
        return next(iter(ids), None)
    if (0 in ids) != (COCO_PERSON in ids):
        return 0 if 0 in ids else COCO_PERSON
    raise UserError(
        f"{where}: holds boxes of the categories {_listed(ids)}; write into the descriptor which is the "
        f"person, such as `detections_category: {min(ids, key=str)}` beside `detections`"
    )


def _listed(ids: Iterable[Id]) -> str:
    return ", ".join(sorted(map(str, ids))[:10])
