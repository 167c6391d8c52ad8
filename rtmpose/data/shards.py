"""Shards: tars that any WebDataset reader streams, with an index beside each and one manifest over all.

A folder of shards holds `<split>-000000.tar`, `<split>-000000.idx`, ... and `manifest.json`. Training shards hold one
crop per person, evaluation shards whole photographs with all their annotations. The same input gives the same bytes,
whatever the number of processes: what goes into which shard is planned before the first one is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from webdataset import TarWriter

from rtmpose.config import UserError, write_atomic
from rtmpose.data.annotations import RawImage
from rtmpose.data.crops import Crop, CutFor, clip_box, crop_region, cut_crop, encode_jpeg, read_photograph
from rtmpose.data.stream import INDEX, MANIFEST, worker_context
from rtmpose.descriptors import Dataset
from rtmpose.registry import sha256_of
from rtmpose.skeleton import Skeleton

Progress = Callable[[int, int], None]  # (samples written, samples in all)

BYTES_PER_PIXEL = 0.8  # of a crop at quality 95 and full chroma, measured on photographs: only for planning shard sizes


@dataclass(frozen=True, eq=False)
class _Plan:
    """The images that go into one shard."""

    path: Path
    images: list[RawImage]
    samples: int


def in_tune(image_id: int | str, share: float) -> bool:
    """Whether a training image is held out for choices (checkpoint, search): a fixed `share` of all ids, by their
    hash.
    """
    digest = hashlib.sha256(str(image_id).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def write_train_shards(
    images: Iterable[RawImage],
    out_dir: Path,
    *,
    dataset: Dataset,
    input_size: tuple[int, int],
    split: str = "train",
    shard_bytes: int = 200_000_000,
    quality: int = 95,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One crop per person, for inputs up to `input_size` (w, h) px -> the manifest, which also lies in `out_dir`.

    `out_dir` appears complete or not at all. Raises UserError for damaged images.
    """
    cut_for = CutFor(input_size)
    chosen = [replace(raw, annotations=[]) for raw in images if raw.persons or raw.left_out]
    plans = _plan([raw for raw in chosen if raw.persons], split, shard_bytes, partial(_crop_bytes, dataset, cut_for), True)
    work = partial(_write_train_shard, dataset.skeleton, cut_for, quality)
    about = {"kind": "train", "split": split, "cut_for": cut_for.to_dict(), "quality": quality}
    return _write_folder(plans, work, out_dir, dataset, about, chosen, workers, progress)


def write_eval_shards(
    images: Iterable[RawImage],
    out_dir: Path,
    *,
    dataset: Dataset,
    split: str = "val",
    shard_bytes: int = 200_000_000,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Every image as its file's own bytes, with all annotations (COCO fields kept) -> the manifest, as
    `write_train_shards`.
    """
    chosen = list(images)
    plans = _plan(chosen, split, shard_bytes, lambda raw: raw.path.stat().st_size, False)
    about = {"kind": "eval", "split": split}
    return _write_folder(plans, _write_eval_shard, out_dir, dataset, about, chosen, workers, progress)


@contextmanager
def complete_folder(path: Path) -> Iterator[Path]:
    """A folder under a temporary name beside `path` that takes its place, and an older one's, when the block
    succeeds.
    """
    for left_behind in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed
        shutil.rmtree(left_behind, ignore_errors=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if path.exists():
            path.rename(temporary / ".replaced")
        temporary.rename(path)
        shutil.rmtree(path / ".replaced", ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _plan(
    images: Sequence[RawImage], split: str, shard_bytes: int, size: Callable[[RawImage], float], persons: bool
) -> list[_Plan]:
    """Runs of images of about `shard_bytes` each, by estimated size."""
    groups: list[list[RawImage]] = []
    filled = float("inf")
    for raw in images:
        if filled >= shard_bytes:
            groups.append([])
            filled = 0.0
        groups[-1].append(raw)
        filled += size(raw)
    return [
        _Plan(Path(f"{split}-{i:06d}.tar"), group, sum(len(raw.persons) if persons else 1 for raw in group))
        for i, group in enumerate(groups)
    ]


def _crop_bytes(dataset: Dataset, cut_for: CutFor, raw: RawImage) -> float:
    size = (raw.width or 10**6, raw.height or 10**6)
    total = 0.0
    for person in raw.persons:
        (left, top, right, bottom), reduction = crop_region(person, dataset.skeleton, cut_for, *size)
        total += (right - left) * (bottom - top) * reduction**2 * BYTES_PER_PIXEL
    return total


def _write_folder(
    plans: list[_Plan],
    work: Callable[[_Plan], dict[str, Any]],
    out_dir: Path,
    dataset: Dataset,
    about: dict[str, Any],
    images: Sequence[RawImage],
    workers: int | None,
    progress: Progress | None,
) -> dict[str, Any]:
    total = sum(plan.samples for plan in plans)
    with complete_folder(out_dir) as folder:
        tasks = [replace(plan, path=folder / plan.path) for plan in plans]
        entries = []
        for entry in _map(work, tasks, workers or os.cpu_count() or 1):
            entries.append(entry)
            if progress is not None:
                progress(sum(done["samples"] for done in entries), total)
        manifest = {
            "format": 1,
            **about,
            "dataset": dataset.name,
            "skeleton": dataset.skeleton.to_dict(),
            "samples": total,
            "images": len(images),
            "bytes": sum(entry["bytes"] for entry in entries),
            "left_out": _left_out(images),
            "shards": sorted(entries, key=lambda entry: entry["name"]),
        }
        write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return manifest


def _map(work: Callable[[_Plan], dict[str, Any]], tasks: list[_Plan], workers: int) -> Iterator[dict[str, Any]]:
    if min(workers, len(tasks)) <= 1:
        yield from map(work, tasks)
        return
    with worker_context("rtmpose.data.shards").Pool(
        min(workers, len(tasks)), initializer=cv2.setNumThreads, initargs=(0,)
    ) as pool:
        yield from pool.imap_unordered(work, tasks)


def _left_out(images: Iterable[RawImage]) -> dict[str, dict[str, Any]]:
    reasons: dict[str, list[int]] = {}
    for raw in images:
        for reason, number in raw.left_out:
            reasons.setdefault(reason, []).append(number)
    return {reason: {"count": len(ids), "ids": ids} for reason, ids in reasons.items()}


def _write_train_shard(skeleton: Skeleton, cut_for: CutFor, quality: int, plan: _Plan) -> dict[str, Any]:
    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for raw in plan.images:
            _, pixels = read_photograph(raw)
            height, width = pixels.shape[:2]
            for person in raw.persons:
                crop = cut_crop(pixels, *crop_region(person, skeleton, cut_for, width, height))
                key = f"{_plain(raw.image_id)}_{person.annotation_id}"
                fields = _train_fields(crop, person, key, width, height)
                yield key, {"jpg": encode_jpeg(crop.pixels, quality), "json": _json_bytes(fields)}

    return _write_tar(plan.path, samples())


def _write_eval_shard(plan: _Plan) -> dict[str, Any]:
    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for raw in plan.images:
            content, pixels = read_photograph(raw)
            fields = {
                "key": _plain(raw.image_id),
                "image_id": raw.image_id,
                "file_name": raw.path.name,
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "annotations": raw.annotations,
            }
            suffix = raw.path.suffix.lstrip(".").lower()
            yield _plain(raw.image_id), {"jpg" if suffix == "jpeg" else suffix: content, "json": _json_bytes(fields)}

    return _write_tar(plan.path, samples())


def _train_fields(crop: Crop, person: Any, key: str, width: int, height: int) -> dict[str, Any]:
    """What lies beside a crop: box (clipped to the image) and keypoints in crop px, and the way back to the image."""
    x, y, w, h = clip_box(person.box, width, height)
    left, top = crop.to_crop((x, y))
    return {
        "key": f"{person.dataset}/{key}",
        "dataset": person.dataset,
        "image_id": person.image_id,
        "annotation_id": person.annotation_id,
        "box": _rounded((left, top, w * crop.scale[0], h * crop.scale[1])),
        "keypoints": _rounded(crop.to_crop(person.keypoints)),
        "visible": person.visible.tolist(),
        "origin": list(crop.origin),
        "scale": list(crop.scale),
        "area": person.area,
    }


def _rounded(values: Any) -> list[Any]:
    return np.round(np.asarray(values, np.float64), 4).tolist()


def _json_bytes(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _plain(image_id: int | str) -> str:
    """An image id as a WebDataset key: no dots and no slashes, which readers give a meaning."""
    return f"{image_id:012d}" if isinstance(image_id, int) else re.sub(r"[^A-Za-z0-9_-]", "_", image_id)


def _write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> dict[str, Any]:
    """One tar with its index -> its entry in the manifest. Times and owners are fixed, so equal content is equal
    bytes.
    """
    with path.open("wb") as file:
        # mtime as an integer: a float would add an extended header of 1 kB to every member
        writer = TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False)
        for key, members in samples:
            writer.write({"__key__": key, **members})
        writer.close()
    index = _index(path)
    path.with_suffix(".idx").write_bytes(index.tobytes())
    return {"name": path.name, "samples": len(index), "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _index(path: Path) -> np.ndarray:
    """Where the image and the JSON of every sample lie in a tar."""
    spans: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, suffix = member.name.rpartition(".")
            kind = "json" if suffix == "json" else "image"
            if kind in spans.setdefault(key, {}):
                raise UserError(f"{path.name}: two samples with the key {key}: image ids are not unique")
            spans[key][kind] = (member.offset_data, member.size)
    rows = [
        (*span["image"], *span["json"], int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
        for key, span in spans.items()
    ]
    return np.array(rows, INDEX)
