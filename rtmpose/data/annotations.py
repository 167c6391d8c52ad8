"""Raw data sets as iterators of images and persons: what comes after knows no raw format.

Two readers: COCO's own JSON (and COCO-WholeBody, whose points are spread over several fields) and AI Challenger's raw
JSON. Raw folders are only read. What cannot be trained on is left out with a reason and its id; what cannot be read
is a UserError.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.config import UserError, read_json
from rtmpose.descriptors import Dataset, Split
from rtmpose.registry import sha256_of

# AI Challenger has no segmentation; this share of the box is what COCO's `area` is to its box on average over persons.
AREA_PER_BOX = 0.53


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person. `box` xywh px and `keypoints` (K, 2) px lie in the full image; `visible` (K,) is 0 not
    labelled, 1 labelled but hidden, 2 seen; `area` px^2 is what OKS normalises by.
    """

    image_id: int | str
    annotation_id: int
    box: tuple[float, float, float, float]
    keypoints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    area: float
    iscrowd: bool
    dataset: str


@dataclass(frozen=True, eq=False)
class RawImage:
    """One image: the persons to train on, the COCO-form annotations to evaluate against, and (reason, annotation id)
    of what was left out of `persons`. `width` and `height` are None where the raw format does not say.
    """

    image_id: int | str
    path: Path
    width: int | None
    height: int | None
    persons: list[Person]
    annotations: list[dict[str, Any]]
    left_out: list[tuple[str, int]] = field(default_factory=list)


def read_images(dataset: Dataset, root: Path, split: str) -> Iterator[RawImage]:
    """Every image of `split` in the file's order, those without persons too.

    Raises UserError for a missing folder, file or image, malformed JSON, and keypoints of the wrong length.
    """
    layout = split_layout(dataset, root, split)
    content = read_json(root / layout.annotations, "the file is cut or damaged: download it again")
    read = _read_aic if dataset.reader == "aic" else _read_coco
    try:
        for raw in read(dataset, root, layout, content):
            if not raw.path.exists():
                raise UserError(f"{raw.path}: named in {root / layout.annotations} but missing; unpack the images again")
            yield raw
    except KeyError as error:
        raise UserError(f"{root / layout.annotations}: an entry lacks {error}; download the file again") from error


def split_layout(dataset: Dataset, root: Path, split: str) -> Split:
    """Where `split` lies; UserError that says what to download, from where and into which folder when it is not
    there.
    """
    if split not in dataset.splits:
        raise UserError(f"{dataset.name}: its descriptor has no split {split!r}, only {list(dataset.splits)}")
    layout = dataset.splits[split]
    for part in (layout.annotations, layout.images):
        if not (root / part).exists():
            raise UserError(
                f"{root / part} is missing: download {dataset.download} from {dataset.source} into {root} "
                f"(licence: {dataset.licence})"
            )
    return layout


def index_raw(dataset: Dataset, root: Path, splits: Sequence[str] = ("train", "val")) -> dict[str, Any]:
    """What a raw folder holds, for each of `splits`: files, sizes, counts and hashes, as plain JSON values.

    Annotation files and detector boxes are hashed whole. Images are counted, and their names and sizes hashed: reading
    25 GB at every run would cost minutes and find no more than the decoder finds when the shards are cut.
    """
    return {"dataset": dataset.name, "splits": {split: _index_split(dataset, root, split) for split in splits}}


def _index_split(dataset: Dataset, root: Path, split: str) -> dict[str, Any]:
    layout = split_layout(dataset, root, split)
    counts: dict[str, int] = {"images": 0, "annotations": 0, "persons": 0}
    left_out: dict[str, int] = {}
    for raw in read_images(dataset, root, split):
        counts["images"] += 1
        counts["annotations"] += len(raw.annotations)
        counts["persons"] += len(raw.persons)
        for reason, _ in raw.left_out:
            left_out[reason] = left_out.get(reason, 0) + 1
    with os.scandir(root / layout.images) as entries:
        files = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
    found = layout.detections is not None and (root / layout.detections).exists()
    return {
        **counts,
        "left_out": left_out,
        "annotation_file": _hashed(root, layout.annotations),
        **({"detection_file": _hashed(root, str(layout.detections))} if found else {}),
        "image_files": {
            "path": layout.images,
            "count": len(files),
            "bytes": sum(size for _, size in files),
            "sha256_of_names_and_sizes": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        },
    }


def _hashed(root: Path, name: str) -> dict[str, Any]:
    return {"path": name, "bytes": (root / name).stat().st_size, "sha256": sha256_of(root / name)}


def check_unchanged(dataset: Dataset, root: Path, index: dict[str, Any], splits: Sequence[str], fix: str) -> None:
    """UserError with the `fix` when an annotation file of `splits` is not the one that `index_raw` hashed."""
    for split in splits:
        path = root / split_layout(dataset, root, split).annotations
        known = index.get("splits", {}).get(split, {}).get("annotation_file", {}).get("sha256")
        if sha256_of(path) != known:
            raise UserError(f"{path}: changed since it was indexed; {fix}")


def _read_coco(dataset: Dataset, root: Path, layout: Split, content: Any) -> Iterator[RawImage]:
    path = root / layout.annotations
    if not isinstance(content, dict) or "images" not in content or "annotations" not in content:
        raise UserError(f"{path}: not a COCO annotation file (no lists 'images' and 'annotations')")
    of_image: dict[Any, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    seen: set[int] = set()
    for image in content["images"]:
        annotations = of_image.get(image["id"], [])
        raw = RawImage(
            image_id=image["id"],
            path=root / layout.images / image["file_name"],
            width=image.get("width"),
            height=image.get("height"),
            persons=[],
            annotations=annotations,
        )
        for annotation in annotations:
            points = _gather_points(dataset, annotation, path)
            _sort_out(dataset, raw, annotation, points, seen)
        yield raw


def _gather_points(dataset: Dataset, annotation: dict[str, Any], path: Path) -> NDArray[np.float64]:
    """The skeleton's (K, 3) x, y, v from the annotation's fields; a part flagged as not valid counts as not
    labelled.
    """
    parts = []
    for part in dataset.parts:
        values = annotation.get(part.field, [])
        if len(values) != 3 * part.points:
            raise UserError(
                f"{path}: annotation {annotation.get('id')}: {part.field} has {len(values)} numbers, expected "
                f"{3 * part.points} ({part.points} points)"
            )
        points = np.array(values, np.float64).reshape(-1, 3)
        if part.valid is not None and not annotation.get(part.valid, False):
            points[:] = 0
        parts.append(points)
    return np.concatenate(parts)


def _read_aic(dataset: Dataset, root: Path, layout: Split, content: Any) -> Iterator[RawImage]:
    """AI Challenger's list of images; annotation ids are running numbers, since its COCO form has none of its own."""
    path = root / layout.annotations
    if not isinstance(content, list):
        raise UserError(f"{path}: not an AI Challenger annotation file (a list of images)")
    seen: set[int] = set()
    running = 0
    for image in content:
        raw = RawImage(image["image_id"], root / layout.images / f"{image['image_id']}.jpg", None, None, [], [])
        for human in sorted(image["human_annotations"]):
            running += 1
            annotation = _aic_to_coco(dataset, image, human, running, path)
            raw.annotations.append(annotation)
            _sort_out(dataset, raw, annotation, np.array(annotation["keypoints"], np.float64).reshape(-1, 3), seen)
        yield raw


def _aic_to_coco(dataset: Dataset, image: dict[str, Any], human: str, number: int, path: Path) -> dict[str, Any]:
    """One human in COCO's fields: corner box to xywh; visible 1 seen, 2 hidden, 3 not labelled become 2, 1, 0."""
    left, top, right, bottom = image["human_annotations"][human]
    values = image["keypoint_annotations"].get(human, [])
    expected = 3 * dataset.skeleton.num_keypoints
    if len(values) != expected:
        raise UserError(f"{path}: image {image['image_id']} {human}: {len(values)} numbers, expected {expected}")
    points = np.array(values, np.float64).reshape(-1, 3)
    points[:, 2] = np.clip(3 - points[:, 2], 0, 2)
    points[points[:, 2] == 0] = 0
    return {
        "id": number,
        "image_id": image["image_id"],
        "category_id": 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top) * AREA_PER_BOX,
        "iscrowd": 0,
        "keypoints": points.ravel().tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
    }


def _sort_out(dataset: Dataset, raw: RawImage, annotation: dict[str, Any], points: NDArray[np.float64], seen: set[int]) -> None:
    """Append the person to `raw.persons`, or to `raw.left_out` with the reason why it cannot be trained on."""
    number, box = annotation["id"], annotation.get("bbox", (0, 0, 0, 0))
    reason = None
    if number in seen:
        reason = "duplicate id"
    elif annotation.get("iscrowd", 0):
        reason = "crowd"
    elif annotation.get("num_keypoints", 1) == 0 or not (points[:, 2] > 0).any():
        reason = "no keypoints"
    elif len(box) != 4 or not np.isfinite(box).all() or _clipped_empty(box, raw):
        reason = "empty box"
    elif not np.isfinite(points).all() or points[:, :2].max() <= 0:
        reason = "points outside the image"
    seen.add(number)
    if reason is not None:
        raw.left_out.append((reason, number))
        return
    raw.persons.append(
        Person(
            image_id=raw.image_id,
            annotation_id=number,
            box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            keypoints=points[:, :2].astype(np.float32),
            visible=np.ceil(np.clip(points[:, 2], 0, 2)).astype(np.uint8),
            area=float(annotation.get("area", box[2] * box[3] * AREA_PER_BOX)),
            iscrowd=False,
            dataset=dataset.name,
        )
    )


def _clipped_empty(box: Any, raw: RawImage) -> bool:
    """Nothing of the box is left inside the image."""
    x, y, w, h = box
    width, height = raw.width or np.inf, raw.height or np.inf
    return w <= 0 or h <= 0 or min(x + w, width - 1) <= max(x, 0) or min(y + h, height - 1) <= max(y, 0)
