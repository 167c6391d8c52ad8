"""The raw annotation formats, each read into images with COCO's annotations and the skeleton's points beside
them.

A reader is a generator of `ListedImage`s. Nothing is left out here: `annotations` decides what can be trained
on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.descriptors import Dataset, Instance, Part
from rtmpose.files import UserError

Points = NDArray[
    np.float64
]  # (K, 3): x, y in px of the image, v 0 not labelled, 1 labelled but hidden, 2 seen

# Neither CrowdPose's boxes, nor AI Challenger's, nor those of hands and faces come with an area; this share
# of the box is what COCO's `area` is to its box on average over persons.
AREA_PER_BOX = 0.53
MPII_UNIT = 200.0  # px: MPII gives a person's size in multiples of it
IMAGE_FIELDS = (
    "spacing",
    "crowdIndex",
)  # of an image's entry, that measures need: mm per px; how crowded CrowdPose's image is


@dataclass(eq=False)
class ListedImage:
    """One image as the annotation file lists it, and its poses: each an annotation in COCO's fields and its
    points.

    `defect` is a reason why none of them can be used.
    """

    image_id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None
    poses: list[tuple[dict[str, Any], Points]] = field(default_factory=list)
    defect: str | None = None


def read_coco(dataset: Dataset, content: Any, path: Path) -> Iterator[ListedImage]:
    """COCO's own JSON and its relatives, as the descriptor's `instances` and `categories` say.

    An image listed twice under one id counts once; where the two name different files, its annotations are
    not to be told apart and it has a defect. Annotations of an image that is not listed come last, with a
    defect.
    """
    if not isinstance(content, dict) or "images" not in content or "annotations" not in content:
        raise UserError(f"{path}: not a COCO annotation file (no lists 'images' and 'annotations')")
    wanted = _category_ids(dataset, content, path)
    of_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        if not isinstance(annotation["id"], int):
            raise UserError(
                f"{path}: annotation id {annotation['id']!r} is not a whole number; number the annotations"
            )
        if wanted is None or annotation.get("category_id") in wanted:
            of_image.setdefault(annotation["image_id"], []).append(annotation)
    files: dict[Any, set[str]] = {}
    for image in content["images"]:
        files.setdefault(image["id"], set()).add(image["file_name"])
    for image in content["images"]:
        names = files.pop(image["id"], None)
        if names is None:
            continue
        listed = ListedImage(image["id"], image["file_name"], image.get("width"), image.get("height"))
        listed.defect = "duplicate image id" if len(names) > 1 else None
        yield _with_poses(dataset, listed, of_image.pop(image["id"], []), image, path)
    for image_id, orphans in of_image.items():
        unlisted = ListedImage(image_id, f"(image {image_id} is not listed)", defect="image not listed")
        yield _with_poses(dataset, unlisted, orphans, {}, path)


def _with_poses(
    dataset: Dataset,
    listed: ListedImage,
    annotations: list[dict[str, Any]],
    image: dict[str, Any],
    path: Path,
) -> ListedImage:
    shared = {name: image[name] for name in IMAGE_FIELDS if name in image}
    for annotation in annotations:
        for i, instance in enumerate(dataset.instances):
            number = annotation["id"] * len(dataset.instances) + i
            points = _gather_points(instance, annotation, path)
            listed.poses.append((_coco_form(instance, annotation, number, points) | shared, points))
    return listed


def _category_ids(dataset: Dataset, content: dict[str, Any], path: Path) -> set[int] | None:
    if dataset.categories is None:
        return None
    ids = {category["name"]: category["id"] for category in content.get("categories", [])}
    unknown = [name for name in dataset.categories if name not in ids]
    if unknown:
        raise UserError(
            f"{path}: has no category {unknown[0]!r}, only {', '.join(ids)}; correct the descriptor's "
            "categories"
        )
    return {ids[name] for name in dataset.categories}


def _gather_points(instance: Instance, annotation: dict[str, Any], path: Path) -> Points:
    """The points of the instance's fields in a row; a part flagged as not valid, or an annotation without any
    of the fields, counts as not labelled.
    """
    if not any(annotation.get(part.field) for part in instance.parts):
        return np.zeros((sum(part.points for part in instance.parts), 3))
    return np.concatenate([_part_points(part, annotation, path) for part in instance.parts])


def _part_points(part: Part, annotation: dict[str, Any], path: Path) -> Points:
    total = part.total or part.points
    where = f"{path}: annotation {annotation['id']}: {part.field}"
    points = _numbers(annotation.get(part.field) or [], total, where)
    if part.valid is not None and not annotation.get(part.valid, False):
        points[:] = 0
    return points[: part.points]


def _numbers(values: Any, points: int, where: str) -> Points:
    """A flat list of x, y, v -> (K, 3); UserError when it is not as long, or holds something else than
    numbers.
    """
    try:
        numbers = np.array(values, np.float64).ravel()
    except (TypeError, ValueError):
        raise UserError(f"{where}: something in it is not a number") from None
    if len(numbers) != 3 * points:
        raise UserError(f"{where}: has {len(numbers)} numbers, expected {3 * points} ({points} points)")
    return numbers.reshape(-1, 3)


def _coco_form(instance: Instance, annotation: dict[str, Any], number: int, points: Points) -> dict[str, Any]:
    """The annotation of one instance in COCO's fields, as evaluation wants it.

    All fields are kept where the instance is the annotated object itself. `keypoints` are the skeleton's,
    unless the descriptor reads that field whole among others (COCO-WholeBody, whose other points stay in
    their own fields).
    """
    own = instance.box == "bbox"
    form = {
        key: value
        for key, value in annotation.items()
        if own or key in ("image_id", "category_id", "iscrowd")
    }
    form |= {"id": number, "bbox": _box(annotation.get(instance.box))}
    if not any(part.field == "keypoints" and part.total is None for part in instance.parts):
        form |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
    form.setdefault("keypoints", points.ravel().tolist())
    form.setdefault("num_keypoints", int((points[:, 2] > 0).sum()))
    form.setdefault("area", form["bbox"][2] * form["bbox"][3] * AREA_PER_BOX)
    form.setdefault("iscrowd", 0)
    form.setdefault("category_id", 1)
    return form


def _box(values: Any) -> list[float]:
    """A box xywh px; anything that is none becomes an empty one."""
    try:
        x, y, w, h = values
        box = [x, y, w, h]
        return box if np.isfinite(np.array(box, np.float64)).all() else [0, 0, 0, 0]
    except (TypeError, ValueError):
        return [0, 0, 0, 0]


def read_aic(dataset: Dataset, content: Any, path: Path) -> Iterator[ListedImage]:
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
            points = _numbers(values, dataset.skeleton.num_keypoints, where)
            # 1 seen, 2 hidden, 3 not labelled -> 2, 1, 0
            points[:, 2] = np.clip(3 - points[:, 2], 0, 2)
            points[points[:, 2] == 0] = 0
            left, top, right, bottom = image["human_annotations"][human]
            box = [left, top, right - left, bottom - top]
            listed.poses.append((_plain_annotation(running, listed.image_id, box, points), points))
        yield listed


def read_mpii(dataset: Dataset, content: Any, path: Path) -> Iterator[ListedImage]:
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
    for number, person in enumerate(content, 1):
        name, stem = person["image"], person["image"].rpartition(".")[0]
        listed = images.setdefault(name, ListedImage(int(stem) if stem.isdigit() else stem, name))
        where = f"{path}: person {number} ({name})"
        points = _mpii_points(person, dataset.skeleton.num_keypoints, where)
        listed.poses.append((_plain_annotation(number, listed.image_id, _mpii_box(person), points), points))
    yield from images.values()


def _mpii_box(person: dict[str, Any]) -> list[float]:
    """The square box, empty where there is no centre (-1)."""
    scale, (x, y) = float(person["scale"]), person["center"]
    side = scale * MPII_UNIT if x >= 0 else 0.0
    return [x - 1 - side / 2, y - 1 + 15 * scale - side / 2, side, side]


def _mpii_points(person: dict[str, Any], count: int, where: str) -> Points:
    joints, labelled = person["joints"], person["joints_vis"]
    if len(joints) != count or len(labelled) != count:
        raise UserError(f"{where}: {len(joints)} joints and {len(labelled)} joints_vis, expected {count}")
    points = np.zeros((count, 3))
    shown = np.asarray(labelled) > 0
    points[shown, :2] = np.asarray(joints, np.float64)[shown] - 1
    points[shown, 2] = 2
    return points


def _plain_annotation(number: int, image_id: int | str, box: list[float], points: Points) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "bbox": box,
        "area": box[2] * box[3] * AREA_PER_BOX,
        "iscrowd": 0,
        "keypoints": points.ravel().tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
    }
