"""One shard: its samples cut from photographs, and laid into a tar with the index that addresses them.

What runs in a worker process. The same plan gives the same bytes, whoever cuts it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.annotations import Person, RawImage, judge_within
from rtmpose.data.raw.photograph import PhotographError, read_photograph
from rtmpose.data.shards.crops import QUALITY, Crop, CutFor, crop_region, cut_crop
from rtmpose.data.shards.sample import INDEX, checksum, encode_jpeg, span
from rtmpose.files import UserError, sha256_of
from rtmpose.geometry import clip_box, photograph_to_crop
from rtmpose.skeleton import Skeleton

BUFFER = 1 << 20  # bytes of a tar that are written at a time
HEADER = 512  # bytes before each member of a tar, whose content fills whole blocks of as many
_COMPACT = json.JSONEncoder(separators=(",", ":"))


class Skip(NamedTuple):
    """One person that a defect kept out of the shards; `file` is the image's name with its folder's."""

    reason: str
    image_id: int | str
    annotation_id: int
    file: str
    detail: str


class Sample(NamedTuple):
    """One sample of a tar: `<key>.<suffix>` and `<key>.json`."""

    key: str
    suffix: str
    image: bytes
    text: bytes


@dataclass(frozen=True, eq=False)
class Plan:
    """What goes into one shard, and how many samples it makes if every photograph is whole."""

    name: str
    images: list[RawImage]
    samples: int


@dataclass(frozen=True)
class SampleKind:
    """How samples are made: crops at JPEG `quality` for what `cut_for` says, or, where it is None, whole
    photographs.
    """

    skeleton: Skeleton
    cut_for: CutFor | None = None
    quality: int = QUALITY


@dataclass(frozen=True, eq=False)
class Written:
    """What was written of one shard: its `.idx` rows, its length, its SHA-256, and who is missing in it."""

    rows: NDArray[Any]
    bytes: int
    sha256: str
    skipped: list[Skip]


def write_shard(plan: Plan, kind: SampleKind, path: Path) -> Written:
    """Cut all samples of a plan into the tar `path`.

    Training shards do without the persons of a damaged photograph and name them; for evaluation shards it is
    a UserError.
    """
    skipped: list[Skip] = []
    samples = _photographs(plan) if kind.cut_for is None else _crops(plan, kind, kind.cut_for, skipped)
    with _one_thread():
        index = write_tar(path, samples)
    return Written(index, path.stat().st_size, sha256_of(path), skipped)


def write_tar(path: Path, samples: Iterable[Sample]) -> NDArray[Any]:
    """Write a tar -> the rows of its index, with the checksums of the bytes as they can be read back.

    Equal samples are equal bytes: no member has a time or an owner.
    """
    from webdataset import TarWriter  # imports torch, which takes longer than cutting a small shard

    rows: list[tuple[int, ...]] = []
    with (
        path.open("wb", buffering=BUFFER) as file,
        TarWriter(file, encoder=False, mtime=0, user="", group="", mode=0o644) as writer,
    ):
        for key, suffix, image, text in samples:
            _refuse_long(f"{key}.{suffix}")
            begin = writer.tarstream.offset
            writer.write({"__key__": key, suffix: image, "json": text})
            rows.append(_row(begin, writer.tarstream.offset, key, {suffix: len(image), "json": len(text)}))
    index = np.array(rows, INDEX)
    with path.open("rb") as file:
        for row in index:
            first, end = span(row)
            file.seek(first)
            row["crc"] = checksum(row, file.read(end - first))
    return index


def _row(begin: int, end: int, key: str, lengths: dict[str, int]) -> tuple[int, ...]:
    """A row of the index, its checksum still 0: where the image and the JSON of so many bytes (by suffix) lie
    in a sample that fills the tar from `begin` to before `end`. Its members are sorted by name.
    """
    at, places = begin, {}
    for suffix, length in sorted(lengths.items()):
        places[suffix] = at + HEADER
        at += HEADER + length + -length % HEADER
    assert at == end, "a plain header before each member"
    image, text = lengths
    hashed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    return places[image], lengths[image], places[text], lengths[text], hashed, 0


def _refuse_long(name: str) -> None:
    length = len(name.encode())
    if length > 100:
        raise UserError(
            f"{name}: {length} bytes are too many for a name in a tar (100); shorten the image ids"
        )


def sample_key(image_id: int | str, annotation_id: int | None = None) -> str:
    """A sample's name: no dots and no slashes, which WebDataset gives a meaning."""
    plain = f"{image_id:012d}" if isinstance(image_id, int) else re.sub(r"[^A-Za-z0-9_-]", "_", str(image_id))
    if not isinstance(image_id, int) and plain != image_id:  # two ids may differ in those characters alone
        plain += f"-{hashlib.sha256(str(image_id).encode()).hexdigest()[:8]}"
    return plain if annotation_id is None else f"{plain}_{annotation_id}"


def skip(raw: RawImage, reason: str, annotation_id: int, detail: str = "") -> Skip:
    """The note that a person of an image is left out for a defect; it names no folder of this machine."""
    return Skip(reason, raw.image_id, annotation_id, f"{raw.path.parent.name}/{raw.file_name}", detail)


def photographs_digest(images: Sequence[RawImage]) -> str:
    """SHA-256 over names, sizes and times of the image files: another one where a file was replaced since."""
    digest = hashlib.sha256()
    for raw in images:
        try:
            found = os.stat(raw.path)
            digest.update(f"{raw.path.name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{raw.path.name}\0missing\n".encode())
    return digest.hexdigest()


def _crops(plan: Plan, kind: SampleKind, cut_for: CutFor, skipped: list[Skip]) -> Iterator[Sample]:
    for raw in plan.images:
        try:
            _, pixels = read_photograph(raw, bgr=True)
        except PhotographError as error:
            detail = str(error).removeprefix(f"{raw.path}: ")
            skipped += [skip(raw, error.reason, person.annotation_id, detail) for person in raw.persons]
            continue
        height, width = pixels.shape[:2]
        for person, defect in judge_within(raw, width, height):
            if defect is not None:
                skipped.append(skip(raw, defect, person.annotation_id))
                continue
            crop = cut_crop(pixels, *crop_region(person, kind.skeleton, cut_for, width, height))
            key = sample_key(raw.image_id, person.annotation_id)
            yield Sample(
                key,
                "jpg",
                encode_jpeg(crop.pixels, kind.quality, bgr=True),
                _json(_crop_fields(crop, person, key, width, height)),
            )


def _photographs(plan: Plan) -> Iterator[Sample]:
    for raw in plan.images:
        content, pixels = read_photograph(raw)
        key, suffix = sample_key(raw.image_id), Path(raw.file_name).suffix.lstrip(".").lower()
        fields = {
            "key": key,
            "image_id": raw.image_id,
            "file_name": raw.file_name,
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "annotations": raw.annotations,
        }
        if raw.exif != "stored":
            fields["exif"] = raw.exif  # the file's own bytes are kept, and turned when they are read
        yield Sample(key, "jpg" if suffix in ("jpeg", "") else suffix, content, _json(fields))


def _crop_fields(crop: Crop, person: Person, key: str, width: int, height: int) -> dict[str, Any]:
    """What lies beside a crop: box (clipped to the image) and keypoints in crop px, and the way back to the
    image.
    """
    x, y, w, h = clip_box(person.box, width, height)
    points = photograph_to_crop(np.concatenate([[(x, y)], person.keypoints]), crop.origin, crop.scale)
    corner, *keypoints = np.round(points, 4).tolist()
    return {
        "key": f"{person.dataset}/{key}",
        "dataset": person.dataset,
        "image_id": person.image_id,
        "annotation_id": person.annotation_id,
        "box": [*corner, round(float(w * crop.scale[0]), 4), round(float(h * crop.scale[1]), 4)],
        "keypoints": keypoints,
        "visible": person.visible.tolist(),
        "origin": list(crop.origin),
        "scale": list(crop.scale),
        "area": person.area,
    }


def _json(fields: dict[str, Any]) -> bytes:
    return _COMPACT.encode(fields).encode()


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV's own threads would take the cores of the other workers."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
