"""The raw annotation formats, each read into images with COCO's annotations and the skeleton's points beside
them.

A reader is a generator of `ListedImage`s. Nothing is left out here: `annotations` decides what can be trained
on. Every field is read by `fields`, so that a message names file, id and field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rtmpose.data.raw import fields
from rtmpose.data.raw.categories import category_names, category_of, chosen_categories, holds_points
from rtmpose.data.raw.coco_form import coco_form, plain_form
from rtmpose.data.raw.doubts import Doubts
from rtmpose.data.raw.fields import ImageIds, Points
from rtmpose.data.raw.records import UNLISTED
from rtmpose.descriptors import Dataset, Instance, Part
from rtmpose.files import UserError

MPII_UNIT = 200.0  # px: MPII gives a person's size in multiples of it
# Of an image's entry, that measures need: mm per px; how crowded CrowdPose's image is.
IMAGE_FIELDS = ("spacing", "crowdIndex")


@dataclass(eq=False)
class ListedImage:
    """One image as the annotation file lists it, and its poses: each an annotation in COCO's fields and its
    points.

    `defect` is a reason why none of them can be used, `odd_boxes` the ids of those whose box is no box at
    all. `page` is the image's place, from 0, in a file of many.
    """

    image_id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None
    poses: list[tuple[dict[str, Any], Points]] = field(default_factory=list)
    defect: str | None = None
    odd_boxes: set[int] = field(default_factory=set)
    page: int | None = None


def read_coco(
    dataset: Dataset, content: Any, path: Path, doubts: Doubts | None = None
) -> Iterator[ListedImage]:
    """COCO's own JSON and its relatives, as the descriptor's `instances` and `categories` say.

    An image listed twice under one id counts once; where the two name different files, its annotations are
    not to be told apart and it has a defect. Annotations of an image that is not listed come last, with a
    defect.
    """
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise UserError(f"{path}: not a COCO annotation file (no lists 'images' and 'annotations')")
    for key in ("images", "annotations"):
        for place, entry in enumerate(content[key]):
            if not isinstance(entry, dict):
                raise UserError(
                    f"{path}: {key}: entry {place} is {fields.shown(entry)}, not an object; correct it"
                )
    wanted = chosen_categories(dataset, content, path)
    if doubts is not None:
        _doubt_names(content, wanted, doubts)
    images = [_listed(image, path) for image in content["images"]]
    of_image = _by_image(content["annotations"], images, wanted, path, doubts)
    files: dict[Any, set[str]] = {}
    for listed in images:
        files.setdefault(listed.image_id, set()).add(listed.file_name)
    for listed, image in zip(images, content["images"], strict=True):
        names = files.pop(listed.image_id, None)
        if names is None:
            continue
        listed.defect = "duplicate image id" if len(names) > 1 else None
        shared = {name: image[name] for name in IMAGE_FIELDS if name in image}
        yield _with_poses(dataset, listed, of_image.pop(listed.image_id, []), shared, path, doubts)
    for image_id, orphans in of_image.items():
        unlisted = ListedImage(image_id, f"(image {image_id} is not listed)", defect=UNLISTED)
        yield _with_poses(dataset, unlisted, orphans, {}, path, doubts)


def _doubt_names(content: dict[str, Any], wanted: set[Any] | None, doubts: Doubts) -> None:
    """What the file calls its categories, and the chosen ones their points, to be compared with the
    descriptor's names.
    """
    doubts.category_names = category_names(content, doubts.listing)
    for category in content.get("categories") or []:
        names = category.get("keypoints")
        chosen = wanted is None or fields.identity(category["id"]) in wanted
        if chosen and isinstance(names, list) and names:
            doubts.file_names([str(name) for name in names], str(category.get("name", "")))


def _listed(image: dict[str, Any], path: Path) -> ListedImage:
    number = image.get("id")
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int | str):
        raise UserError(
            f"{path}: image id {fields.shown(number)} is neither a number nor text; number the images"
        )
    where = f"{path}: image {number}"
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise UserError(
            f"{where}: lacks 'file_name', or it is no text ({fields.shown(name)}); add the file's name"
        )
    width, height = (fields.positive(image.get(key), f"{where}: {key}") for key in ("width", "height"))
    known = width is not None and height is not None
    return ListedImage(number, name, round(width) if known else None, round(height) if known else None)  # type: ignore[arg-type]


def _by_image(
    annotations: list[dict[str, Any]],
    images: list[ListedImage],
    wanted: set[Any] | None,
    path: Path,
    doubts: Doubts | None,
) -> dict[Any, list[dict[str, Any]]]:
    """The annotations of the wanted categories by the id of their image, numbered by whole numbers."""
    ids = ImageIds(listed.image_id for listed in images)
    # Where the descriptor says which categories to read, the others are meant to be left.
    unread = doubts if doubts is not None and doubts.dataset.categories is None else None
    found: dict[Any, list[dict[str, Any]]] = {}
    for annotation in annotations:
        number = fields.whole(annotation.get("id"), f"{path}: annotation id")
        if wanted is not None and (category := category_of(annotation, path)) not in wanted:
            if unread is not None and holds_points(unread.dataset, annotation):
                unread.unread(number, category)
            continue
        said = annotation.get("image_id")
        if said is None or isinstance(said, list | dict):
            where = f"{path}: annotation {number}: image_id"
            raise UserError(f"{where}: {fields.shown(said)} is not the id of an image; correct it")
        listed = ids.find(said)
        if doubts is not None and listed is not None and type(listed) is not type(said):
            doubts.image_id(number, said, listed)
        if listed is not None:
            said = listed
        found.setdefault(said, []).append({**annotation, "id": number, "image_id": said})
    return found


def _with_poses(
    dataset: Dataset,
    listed: ListedImage,
    annotations: list[dict[str, Any]],
    shared: dict[str, Any],
    path: Path,
    doubts: Doubts | None,
) -> ListedImage:
    for annotation in annotations:
        where = f"{path}: annotation {annotation['id']}"
        for i, instance in enumerate(dataset.instances):
            number = annotation["id"] * len(dataset.instances) + i
            points = _gather_points(instance, annotation, where)
            form = coco_form(instance, annotation, number, points, where)
            if instance.box is not None and not fields.is_box_or_unknown(annotation.get(instance.box)):
                listed.odd_boxes.add(number)
            if doubts is not None and instance.box == "bbox" and "area" in annotation:
                doubts.area(form, fields.positive(annotation["area"], f"{where}: area"))
            listed.poses.append((form | shared, points))
    return listed


def _gather_points(instance: Instance, annotation: dict[str, Any], where: str) -> Points:
    """The points of the instance's fields in a row; a part flagged as not valid, or an annotation without any
    of the fields, counts as not labelled.
    """
    if not any(annotation.get(part.field) for part in instance.parts):
        return np.zeros((sum(part.points for part in instance.parts), 3))
    return np.concatenate([_part_points(part, annotation, where) for part in instance.parts])


def _part_points(part: Part, annotation: dict[str, Any], where: str) -> Points:
    points = fields.points(annotation.get(part.field) or [], part.held, f"{where}: {part.field}")
    if part.valid is not None and not fields.flag(annotation.get(part.valid), f"{where}: {part.valid}"):
        points = np.zeros_like(points)
    points = points[part.skip : part.skip + part.points]
    unlabelled = ~(points[:, 2] > 0)  # null is not labelled either
    if unlabelled.any() and not np.isfinite(points[unlabelled]).all():
        points = np.where(unlabelled[:, None], np.nan_to_num(points, posinf=0.0, neginf=0.0), points)
    return points


def read_aic(
    dataset: Dataset, content: Any, path: Path, doubts: Doubts | None = None
) -> Iterator[ListedImage]:
    """AI Challenger's list of images; annotation ids are running numbers, since its COCO form has none of its
    own.
    """
    if not isinstance(content, list):
        raise UserError(f"{path}: not an AI Challenger annotation file (a list of images)")
    running = 0
    for image in content:
        listed = ListedImage(image["image_id"], f"{image['image_id']}.jpg")
        for human in sorted(image["human_annotations"]):
            running += 1
            where = f"{path}: image {listed.image_id} {human}"
            values = image["keypoint_annotations"].get(human, [])
            points = fields.points(values, dataset.skeleton.num_keypoints, where)
            if doubts is not None:
                doubts.flags(running, points[:, 2], (1, 2, 3))
            # 1 seen, 2 hidden, 3 not labelled -> 2, 1, 0
            points[:, 2] = np.clip(3 - points[:, 2], 0, 2)
            points[~(points[:, 2] > 0)] = 0
            corners = image["human_annotations"][human]
            if not fields.is_box_or_unknown(corners):
                listed.odd_boxes.add(running)
            left, top, right, bottom = fields.four(corners) or (0, 0, 0, 0)
            box = [left, top, right - left, bottom - top]
            listed.poses.append((plain_form(running, listed.image_id, box, points), points))
        yield listed


def read_mpii(
    dataset: Dataset, content: Any, path: Path, doubts: Doubts | None = None
) -> Iterator[ListedImage]:
    """MPII's persons as JSON (image, center, scale, joints, joints_vis), gathered by image in the file's
    order. The annotation id is a person's place in the list, from 1: pycocotools takes an id of 0 for "no
    match".

    MPII counts pixels from 1, so that everything moves by one. The box is the square of `scale` * 200 px
    around a centre that lies 15 px * `scale` lower than annotated, so as not to cut the feet (Simple
    Baselines, arXiv 1804.06208, and all since); the usual padding of 1.25 comes on top where crops are cut. A
    joint is labelled or not: the file does not say hidden.
    """
    if not isinstance(content, list):
        raise UserError(f"{path}: not an MPII annotation file (a list of persons)")
    images: dict[str, ListedImage] = {}
    taken: set[int | str] = set()
    for number, person in enumerate(content, 1):
        name = person["image"]
        if not isinstance(name, str) or not name:
            raise UserError(
                f"{path}: person {number}: image: {fields.shown(name)} is not the name of a file; correct it"
            )
        if name not in images:
            stem = name.rpartition(".")[0] or name
            image_id = int(stem) if fields.is_digits(stem) else stem
            # "1.jpg" is not "01.jpg", nor "1.png".
            images[name] = ListedImage(name if image_id in taken else image_id, name)
            taken.add(image_id)
        listed = images[name]
        where = f"{path}: person {number} ({name})"
        points = _mpii_points(person, dataset.skeleton.num_keypoints, where)
        listed.poses.append((plain_form(number, listed.image_id, _mpii_box(person, where), points), points))
    yield from images.values()


def _mpii_box(person: dict[str, Any], where: str) -> list[float]:
    """The square box, empty where there is no centre (-1) or no scale."""
    scale = fields.number(person["scale"], f"{where}: scale") or 0.0
    center = person["center"]
    if not isinstance(center, list) or len(center) != 2:
        raise UserError(f"{where}: center: {fields.shown(center)} is not x and y; correct it")
    x, y = (fields.number(value, f"{where}: center") for value in center)
    if x is None or y is None:
        return [0.0, 0.0, 0.0, 0.0]
    side = scale * MPII_UNIT if x >= 0 else 0.0
    return [x - 1 - side / 2, y - 1 + 15 * scale - side / 2, side, side]


def _mpii_points(person: dict[str, Any], count: int, where: str) -> Points:
    joints = fields.rows(person["joints"], count, 2, f"{where}: joints")
    shown = fields.rows(person["joints_vis"], count, 1, f"{where}: joints_vis")[:, 0] > 0
    points = np.zeros((count, 3))
    points[shown, :2] = joints[shown] - 1
    points[shown, 2] = 2
    return points
