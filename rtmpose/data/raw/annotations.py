"""Raw data sets as iterators of images and persons: what comes after knows no raw format.

The formats themselves are in `formats`. Raw folders are only read. What cannot be trained on is named
with a reason and its id; an annotation file that cannot be read is a UserError.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rtmpose.data.raw import fields
from rtmpose.data.raw.doubts import Doubts
from rtmpose.data.raw.fields import Points
from rtmpose.data.raw.formats import ListedImage, read_aic, read_coco, read_mpii
from rtmpose.data.raw.mpii.head_boxes import with_head_sizes
from rtmpose.data.raw.photograph import is_file, locate
from rtmpose.data.raw.records import UNLISTED, Fault, Person, RawImage
from rtmpose.data.raw.stacks.cl_detection import read_cl_detection
from rtmpose.descriptors import Dataset, Split
from rtmpose.files import UserError, read_json, sha256_of
from rtmpose.geometry import clip_box

__all__ = [
    "Person", "RawImage", "check_unchanged", "index_raw", "judge_within", "read_images", "split_layout",
]  # fmt: skip

EMPTY_BOX, ODD_BOX = "empty box", "box that is not four numbers x, y, width, height"
FARTHEST = 1e6  # px from the image's corner; what lies farther is no point


def read_images(dataset: Dataset, root: Path, split: str, doubts: Doubts | None = None) -> Iterator[RawImage]:
    """Every image of `split` in the file's order, those without persons too; `doubts` collects what is
    implausible.

    Left out by the format's own rules: "crowd", "no keypoints". Skipped for a defect: "duplicate id", "empty
    box" (nothing of it inside the image), ODD_BOX, "points outside the image" (all that are labelled),
    "points that are not finite", "missing image", "path outside the raw folder", "duplicate image id"
    (one id for two files), "image not listed" (by the annotation file). Images are not opened:
    where their size is not listed, `judge_within` finds the rest.

    Raises UserError for a missing folder or annotation file, malformed JSON, keypoints of the wrong length,
    and fields that mean nothing, by file, id and field.
    """
    layout = split_layout(dataset, root, split)
    path = root / layout.annotations
    content = read_json(path, "the file is cut or damaged: download it again")
    seen: set[int] = set()
    try:
        images = _read_format(dataset, content, path, root / layout.images, doubts)
        if layout.head_boxes is not None:
            images = with_head_sizes(images, root / layout.head_boxes, len(content))
        for listed in images:
            if not in_share(listed.image_id, layout.share):
                continue
            if doubts is not None:
                for annotation, points in listed.poses:
                    doubts.person(annotation, points)
            place, fault = _place(root, root / layout.images, listed, path)
            yield _sort_out(dataset, place, fault, listed, seen)
    except KeyError as error:
        raise UserError(f"{path}: an entry lacks {error}; download the file again, or add it") from error
    except (TypeError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path}: an entry is of another kind than the format's ({error}); correct it"
        ) from error


def in_share(image_id: int | str, share: tuple[float, float] | None) -> bool:
    """Whether an image is of the part of its file that a split takes, by a hash of its id."""
    if share is None:
        return True
    digest = hashlib.sha256(f"split {image_id}".encode()).digest()
    return share[0] <= int.from_bytes(digest[:8], "big") / 2**64 < share[1]


def _read_format(
    dataset: Dataset, content: Any, path: Path, images: Path, doubts: Doubts | None
) -> Iterator[ListedImage]:
    match dataset.reader:
        case "coco":
            return read_coco(dataset, content, path, doubts)
        case "aic":
            return read_aic(dataset, content, path, doubts)
        case "mpii":
            return read_mpii(dataset, content, path, doubts)
        case "cl_detection":
            return read_cl_detection(dataset, content, path, images)
        case None:
            raise UserError(
                f"{dataset.name}: its descriptor has no reader: it is a skeleton without data of its own"
            )


def split_layout(dataset: Dataset, root: Path, split: str) -> Split:
    """Where `split` lies; UserError that says what to download, from where and into which folder when it is
    not there.
    """
    if split not in dataset.splits:
        raise UserError(f"{dataset.name}: its descriptor has no split {split!r}, only {list(dataset.splits)}")
    layout = dataset.splits[split]
    for part in (layout.annotations, layout.images):
        if not (root / part).exists():
            get = (
                f"download {dataset.download} from {dataset.source} into {root} (licence: {dataset.licence})"
            )
            fix = get if dataset.download else f"put it there, or correct splits.{split} of the descriptor"
            raise UserError(f"{root / part} is missing: {fix}")
    return layout


def index_raw(dataset: Dataset, root: Path, splits: Sequence[str] = ("train", "val")) -> dict[str, Any]:
    """What a raw folder holds, for each of `splits`: files, sizes, counts and hashes, as plain JSON values.

    Annotation files and detector boxes are hashed whole. Images are counted, and their names and sizes
    hashed: reading 25 GB at every run would cost minutes and find no more than the decoder finds when the
    shards are cut.
    """
    return {
        "dataset": dataset.name,
        "splits": {split: _index_split(dataset, root, split) for split in splits},
    }


def _index_split(dataset: Dataset, root: Path, split: str) -> dict[str, Any]:
    layout = split_layout(dataset, root, split)
    counts: dict[str, int] = {"images": 0, "annotations": 0, "persons": 0}
    left_out: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    doubts = Doubts(dataset, root / layout.annotations)
    for raw in read_images(dataset, root, split, doubts):
        counts["images"] += 1
        counts["annotations"] += len(raw.annotations)
        counts["persons"] += len(raw.persons)
        left_out.update(reason for reason, _ in raw.left_out)
        skipped.update(reason for reason, _ in raw.skipped)
    files = _files(root / layout.images)
    more = {"detection_file": layout.detections, "head_box_file": layout.head_boxes}
    more = {key: name for key, name in more.items() if name is not None and (root / name).exists()}
    return {
        **counts,
        "left_out": dict(left_out),
        "skipped": dict(skipped),
        "implausible": doubts.lines(),
        "annotation_file": _hashed(root, layout.annotations),
        **{key: _hashed(root, str(name)) for key, name in more.items()},
        "image_files": {
            "path": layout.images,
            "count": len(files),
            "bytes": sum(size for _, size in files),
            "sha256_of_names_and_sizes": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        },
    }


def _files(folder: Path) -> list[tuple[str, int]]:
    """Name, relative to the folder, and size of every file in it and below, sorted; of a stack, its own."""
    if folder.is_file():
        return [(folder.name, folder.stat().st_size)]
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return sorted(
        (Path(path).relative_to(folder).as_posix(), os.stat(path).st_size)
        for path in paths
        if os.path.isfile(path)
    )


def _hashed(root: Path, name: str) -> dict[str, Any]:
    return {"path": name, "bytes": (root / name).stat().st_size, "sha256": sha256_of(root / name)}


def check_unchanged(
    dataset: Dataset, root: Path, index: dict[str, Any], splits: Sequence[str], fix: str
) -> None:
    """UserError with the `fix` when an annotation file of `splits` is not the one that `index_raw` hashed."""
    for split in splits:
        path = root / split_layout(dataset, root, split).annotations
        if sha256_of(path) != _indexed_hash(index, split):
            raise UserError(f"{path}: changed since it was indexed; {fix}")


def _indexed_hash(index: object, split: str) -> object:
    """The hash of a split's annotation file in what `index_raw` gave; None where it is not there."""
    for key in ("splits", split, "annotation_file", "sha256"):
        index = index.get(key) if isinstance(index, dict) else None
    return index


def _place(root: Path, images: Path, listed: ListedImage, path: Path) -> tuple[Path, Fault | None]:
    """Where an image's file is, and why it is not to be opened, if so."""
    where = f"{path}: image {listed.image_id}"
    if listed.defect == UNLISTED:
        problem = "annotations name it, but the list of images does not; list it, or correct their image_id"
        return images / listed.file_name, (UNLISTED, f"{where}: {problem}")
    if listed.page is not None:
        return images, None
    return locate(root, images, listed.file_name, where)


def _sort_out(
    dataset: Dataset, path: Path, fault: Fault | None, listed: ListedImage, seen: set[int]
) -> RawImage:
    """The image with its persons, and what is none of them with the reason why."""
    raw = RawImage(
        listed.image_id,
        path,
        listed.width,
        listed.height,
        [],
        [],
        exif=dataset.exif,
        fault=fault,
        page=listed.page,
    )
    defect = listed.defect or (fault[0] if fault else None if is_file(path) else "missing image")
    size = raw.width or np.inf, raw.height or np.inf
    for annotation, points in listed.poses:
        number = annotation["id"]
        raw.annotations.append(annotation)
        rule = _left_out_by(annotation, points)
        problem = (
            "duplicate id"
            if number in seen
            else None
            if rule
            else defect or _defect(annotation["bbox"], points, *size)
        )
        seen.add(number)
        if problem == EMPTY_BOX and number in listed.odd_boxes:
            problem = ODD_BOX
        if problem is not None:
            raw.skipped.append((problem, number))
        elif rule is not None:
            raw.left_out.append((rule, number))
        else:
            raw.persons.append(_person(dataset, raw.image_id, annotation, points))
    return raw


def _left_out_by(annotation: dict[str, Any], points: Points) -> str | None:
    """The rule of the format by which this is nobody to train on."""
    if annotation["iscrowd"]:
        return "crowd"
    return None if (points[:, 2] > 0).any() else "no keypoints"


def judge_within(raw: RawImage, width: int, height: int) -> list[tuple[Person, str | None]]:
    """The image's persons, and what is wrong with each in the image as it was decoded, of this size px.

    `dataset check` and the shards ask here, so that they come to the same answer. Where the annotation file
    lists the size, persons were judged by it while the file was read.
    """
    if raw.width and raw.height:
        return [(person, None) for person in raw.persons]
    return [(person, _defect_within(person, width, height)) for person in raw.persons]


def _defect_within(person: Person, width: int, height: int) -> str | None:
    points = np.concatenate([person.keypoints, person.visible[:, None]], axis=1).astype(np.float64)
    return _defect(person.box, points, width, height)


def _defect(box: Sequence[float], points: Points, width: float, height: float) -> str | None:
    if fields.box(list(box)) is None or min(clip_box(box, width, height)[2:]) <= 0:
        return EMPTY_BOX
    labelled = points[points[:, 2] > 0, :2]
    if not (np.abs(labelled) < FARTHEST).all():  # NaN is not either
        return "points that are not finite"
    inside = (labelled >= 0).all(axis=1) & (labelled <= (width, height)).all(axis=1)
    return None if inside.any() else "points outside the image"


def _person(dataset: Dataset, image_id: int | str, annotation: dict[str, Any], points: Points) -> Person:
    x, y, w, h = (float(value) for value in annotation["bbox"])
    return Person(
        image_id=image_id,
        annotation_id=annotation["id"],
        box=(x, y, w, h),
        keypoints=np.nan_to_num(points[:, :2]).clip(-FARTHEST, FARTHEST).astype(np.float32),
        visible=np.ceil(np.nan_to_num(points[:, 2]).clip(0, 2)).astype(np.uint8),
        area=float(annotation["area"]),
        iscrowd=False,
        dataset=dataset.name,
    )
