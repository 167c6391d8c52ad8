"""One shard: its samples cut from photographs, and laid into a tar with the index that addresses them.

What runs in a worker process, which imports nothing slow for it. The same plan gives the same bytes, whoever
cuts it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.annotations import Person, RawImage, judge_within
from rtmpose.data.raw.photograph import PhotographError, read_photograph
from rtmpose.data.shards.crops import QUALITY, Crop, CutFor, crop_region, cut_crop
from rtmpose.data.shards.sample import INDEX, checksum, encode_jpeg
from rtmpose.files import UserError
from rtmpose.geometry import clip_box
from rtmpose.skeleton import Skeleton

# What is the same in every member's header: no owner, no time, so that equal content is equal bytes.
# `TarInfo.tobuf` itself takes as long for two headers as the encoder for a small crop.
_BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_OWNER, _TIME, _REST = _BLANK[100:124], _BLANK[135:148], _BLANK[156:]
_FIXED_SUM = sum(_OWNER + _TIME + _REST) + 8 * ord(" ")  # the sum counts its own field as spaces
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
class Recipe:
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


def write_shard(plan: Plan, recipe: Recipe, path: Path) -> Written:
    """Cut all samples of a plan into the tar `path`.

    Training shards do without the persons of a damaged photograph and name them; for evaluation shards it is
    a UserError.
    """
    skipped: list[Skip] = []
    samples = _photographs(plan) if recipe.cut_for is None else _crops(plan, recipe, recipe.cut_for, skipped)
    with _one_thread(), path.open("wb") as file:
        rows, length, digest = write_tar(file, samples)
    return Written(rows, length, digest, skipped)


def write_tar(file: BinaryIO, samples: Iterable[Sample]) -> tuple[NDArray[Any], int, str]:
    """Write a tar -> the rows of its index, its length and its SHA-256, all found while writing: to read it
    again for them would take a tenth of the whole time.
    """
    rows, at, digest = [], 0, hashlib.sha256()
    for key, suffix, image, text in samples:
        second = 512 + _padded(len(image))
        end = second + 512 + len(text)
        block = b"".join(
            (
                *(_header(f"{key}.{suffix}", len(image)), image, bytes(second - 512 - len(image))),
                *(_header(f"{key}.json", len(text)), text, bytes(_padded(len(text)) - len(text))),
            )
        )
        name = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
        row = np.array((at + 512, len(image), at + second + 512, len(text), name, 0), INDEX)
        row["crc"] = checksum(row, memoryview(block)[512:end])
        rows.append(row)
        digest.update(block)
        file.write(block)
        at += len(block)
    tail = bytes(1024 + -(at + 1024) % tarfile.RECORDSIZE)
    digest.update(tail)
    file.write(tail)
    return np.array(rows, INDEX), at + len(tail), digest.hexdigest()


def sample_key(image_id: int | str, annotation_id: int | None = None) -> str:
    """A sample's name: no dots and no slashes, which WebDataset gives a meaning."""
    plain = f"{image_id:012d}" if isinstance(image_id, int) else re.sub(r"[^A-Za-z0-9_-]", "_", str(image_id))
    if not isinstance(image_id, int) and plain != image_id:  # two ids may differ in those characters alone
        plain += f"-{hashlib.sha256(str(image_id).encode()).hexdigest()[:8]}"
    return plain if annotation_id is None else f"{plain}_{annotation_id}"


def skip(raw: RawImage, reason: str, annotation_id: int, detail: str = "") -> Skip:
    """The note that a person of an image is left out for a defect; it names no folder of this machine."""
    return Skip(reason, raw.image_id, annotation_id, f"{raw.path.parent.name}/{raw.path.name}", detail)


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


def _crops(plan: Plan, recipe: Recipe, cut_for: CutFor, skipped: list[Skip]) -> Iterator[Sample]:
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
            crop = cut_crop(pixels, *crop_region(person, recipe.skeleton, cut_for, width, height))
            key = sample_key(raw.image_id, person.annotation_id)
            yield Sample(
                key,
                "jpg",
                encode_jpeg(crop.pixels, recipe.quality, bgr=True),
                _json(_crop_fields(crop, person, key, width, height)),
            )


def _photographs(plan: Plan) -> Iterator[Sample]:
    for raw in plan.images:
        content, pixels = read_photograph(raw)
        key, suffix = sample_key(raw.image_id), raw.path.suffix.lstrip(".").lower()
        fields = {
            "key": key,
            "image_id": raw.image_id,
            "file_name": raw.path.name,
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
    corner, *keypoints = np.round(crop.to_crop(np.concatenate([[(x, y)], person.keypoints])), 4).tolist()
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


def _padded(length: int) -> int:
    """Bytes that a member's content takes: whole blocks."""
    return length + -length % 512


def _header(name: str, size: int) -> bytes:
    """The header of a plain file of `size` bytes, as `TarInfo.tobuf` has it."""
    filename, digits = name.encode(), b"%011o" % size
    if len(filename) > 100:
        raise UserError(
            f"{name}: {len(filename)} bytes are too many for a name in a tar (100); shorten the image ids"
        )
    total = b"%06o\0 " % (_FIXED_SUM + sum(filename) + sum(digits))
    return b"".join((filename.ljust(100, b"\0"), _OWNER, digits, _TIME, total, _REST))


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV's own threads would take the cores of the other workers."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
