"""Shards: tars that any WebDataset reader streams, with an index beside each and one manifest over all.

A folder of shards holds `<split>-000000.tar`, `<split>-000000.idx`, ... and `manifest.json`; tars and indices
may lie under a URL instead. Training shards hold one crop per person, evaluation shards whole photographs
with all their annotations. The same input gives the same bytes, whatever the number of processes: what goes
into which shard is planned before the first one is written.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from rtmpose.cluster.session import map_on_cluster
from rtmpose.config import Reach
from rtmpose.data.raw.annotations import RawImage
from rtmpose.data.raw.photograph import PhotographError
from rtmpose.data.shards.complete_folders import complete_folder
from rtmpose.data.shards.crops import QUALITY, CutFor
from rtmpose.data.shards.cutting import (
    Plan,
    SampleKind,
    Skip,
    photographs_digest,
    sample_key,
    skip,
    write_shard,
)
from rtmpose.data.shards.estimates import crop_bytes, file_bytes
from rtmpose.data.shards.manifest import FORMAT, MANIFEST
from rtmpose.data.shards.places import LocalPlace, Place, Receipt, RemotePlace
from rtmpose.descriptors import Dataset
from rtmpose.files import UserError, disk_trouble, temporary_beside, write_atomic, writing
from rtmpose.fingerprint import code_version

Progress = Callable[[int, int], None]  # (samples done, samples in all)

SKIPPED = "skipped.csv"
SHARD_BYTES = 200_000_000
CODE = (
    "data/raw/photograph.py",
    "data/shards/cutting.py",
    "data/shards/crops.py",
    "data/shards/estimates.py",
    "data/shards/sample.py",
    "data/shards/write.py",
    "geometry.py",
)  # what the bytes depend on


@dataclass(frozen=True)
class _Options:
    """Where and how a set is cut; nothing of it changes the bytes."""

    workers: int | None
    progress: Progress | None
    resume: Path | None
    fresh: bool
    max_skipped: float = 0.0
    url: str | None = None


@dataclass(frozen=True, eq=False)
class _Set:
    """One set of shards as planned. `images` are all that count for the manifest, `plans` hold what
    is cut.
    """

    dataset: Dataset
    split: str
    kind: SampleKind
    images: list[RawImage]
    plans: list[Plan]
    shard_bytes: int

    @property
    def samples(self) -> int:
        return sum(plan.samples for plan in self.plans)

    def about(self) -> dict[str, Any]:
        """What the manifest says of a set's kind."""
        kind = self.kind
        if kind.cut_for is None:
            return {"kind": "eval", "split": self.split}
        return {
            "kind": "train",
            "split": self.split,
            "cut_for": kind.cut_for.to_dict(),
            "quality": kind.quality,
        }

    def defects(self) -> list[Skip]:
        """Who was no person to train on before any image was opened. Evaluation shards keep every annotation
        as it is.
        """
        if self.kind.cut_for is None:
            return []
        return [skip(raw, reason, number) for raw in self.images for reason, number in raw.skipped]

    def fingerprint(self) -> str:
        """Names the set by all that its bytes depend on but the photographs' own."""
        skeleton = self.dataset.skeleton
        settings = [
            FORMAT,
            self.about(),
            self.dataset.name,
            (skeleton.names, skeleton.upper, skeleton.lower),
            self.shard_bytes,
            code_version(CODE),
            cv2.__version__,
        ]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for plan in self.plans:
            digest.update(f"{plan.name}\n".encode())
            for raw in plan.images:
                digest.update(
                    repr(
                        (raw.image_id, raw.path.name, raw.width, raw.height, raw.annotations, raw.exif)
                    ).encode()
                )
                for person in raw.persons:
                    digest.update(
                        repr((person.annotation_id, person.box, person.area, person.dataset)).encode()
                    )
                    digest.update(person.keypoints.tobytes() + person.visible.tobytes())
        return digest.hexdigest()[:16]


def _dealt(raw: RawImage) -> bytes:
    """Deals images to the shards at random: neighbours in raw files are alike, and a window of alike shards
    mixes badly.
    """
    return hashlib.sha256(f"shard {raw.image_id}".encode()).digest()


def in_tune(image_id: int | str, share: float) -> bool:
    """Whether a training image is held out for choices (checkpoint, search): a fixed `share` of all ids, by
    their hash.
    """
    digest = hashlib.sha256(str(image_id).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def write_train_shards(
    images: Iterable[RawImage],
    out_dir: Path,
    *,
    dataset: Dataset,
    input_size: tuple[int, int],
    reach: Reach | None = None,
    split: str = "train",
    shard_bytes: int = SHARD_BYTES,
    quality: int = QUALITY,
    workers: int | None = None,
    progress: Progress | None = None,
    max_skipped: float = 0.01,
    url: str | None = None,
    resume: Path | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """One crop per person, for inputs up to `input_size` (w, h) px and augmentation up to `reach` (None: the
    published one) -> the manifest, which also lies in `out_dir`.

    workers: tasks at a time, on the cores of a Ray cluster (None: all its cores). One worker, or one shard,
        needs no Ray.
    max_skipped: the share of persons that defects may keep out; `skipped.csv` beside the manifest names them.
    url: where tars and indices go instead, below a folder named by the plan; credentials come from the
        environment.
    resume: a folder for receipts, by which a call after a killed one knows the finished shards; `out_dir`
        then fills in place (see `resumable_folder`). Without it, `out_dir` appears complete or not at all.
        `fresh` trusts no receipt.

    Raises UserError when too many are skipped, image ids are not unique, or disk or store cannot be written
    to.
    """
    most = reach or Reach()
    cut_for = CutFor(input_size, shift=most.shift, scale=most.scale, rotate=most.rotate)
    kind = SampleKind(dataset.skeleton, cut_for, quality)
    used = [raw for raw in images if raw.persons or raw.left_out or raw.skipped]
    cut = [replace(raw, annotations=[], left_out=[], skipped=[]) for raw in used if raw.persons]
    cut.sort(key=_dealt)
    plans = _plan(cut, split, shard_bytes, partial(crop_bytes, cut_for), lambda raw: len(raw.persons))
    whole = _Set(dataset, split, kind, used, plans, shard_bytes)
    return _write(whole, out_dir, _Options(workers, progress, resume, fresh, max_skipped, url))


def write_eval_shards(
    images: Iterable[RawImage],
    out_dir: Path,
    *,
    dataset: Dataset,
    split: str = "val",
    shard_bytes: int = SHARD_BYTES,
    workers: int | None = None,
    progress: Progress | None = None,
    resume: Path | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Every image as its file's own bytes, with all annotations (COCO fields kept) -> the manifest, as
    `write_train_shards`. A damaged or missing image is a UserError, since an AP over fewer images compares
    with no other.
    """
    listed = [raw for raw in images if not raw.unlisted]
    for raw in listed:
        if any(reason == "duplicate image id" for reason, _ in raw.skipped):
            raise UserError(
                f"{raw.path}: its image id {raw.image_id} is another file's too; correct the annotation file"
            )
        if raw.fault is not None:
            raise PhotographError(*raw.fault)
        if not raw.path.is_file():
            raise UserError(f"{raw.path}: named in the annotations but missing; unpack the images again")
    cut = [replace(raw, persons=[], left_out=[], skipped=[]) for raw in listed]
    plans = _plan(cut, split, shard_bytes, file_bytes, lambda raw: 1)
    whole = _Set(dataset, split, SampleKind(dataset.skeleton), listed, plans, shard_bytes)
    return _write(whole, out_dir, _Options(workers, progress, resume, fresh))


def _plan(
    images: Sequence[RawImage],
    split: str,
    shard_bytes: int,
    size: Callable[[RawImage], float],
    samples: Callable[[RawImage], int],
) -> list[Plan]:
    """Runs of images of about `shard_bytes` each, by estimated size."""
    keys = Counter(sample_key(raw.image_id) for raw in images)
    if len(keys) < len(images):
        raise UserError(
            f"{images[0].path.parent}: image ids are not unique: two images would be "
            f"{keys.most_common(1)[0][0]}"
        )
    groups: list[list[RawImage]] = []
    filled = float("inf")
    for raw in images:
        if filled >= shard_bytes:
            groups.append([])
            filled = 0.0
        groups[-1].append(replace(raw, path=raw.path.absolute()))  # workers may be in another folder
        filled += size(raw)
    return [Plan(f"{split}-{i:06d}.tar", group, sum(map(samples, group))) for i, group in enumerate(groups)]


def _write(whole: _Set, out_dir: Path, options: _Options) -> dict[str, Any]:
    if options.resume is not None:
        return _fill(whole, out_dir, options, report=options.resume / SKIPPED)
    report = out_dir.with_name(f"{out_dir.name}.{SKIPPED}")
    with complete_folder(out_dir) as folder:
        manifest = _fill(whole, folder, options, report)
    report.unlink(missing_ok=True)
    return manifest


def _fill(whole: _Set, folder: Path, options: _Options, report: Path) -> dict[str, Any]:
    """Cut what is not there yet, then write manifest and list of skipped persons; `report` gets the latter on
    failure.
    """
    _refuse_many(whole, whole.defects(), options.max_skipped, report)  # no need to cut anything to know that
    fingerprint = whole.fingerprint()
    url = None if options.url is None else f"{options.url.rstrip('/')}/{fingerprint}"
    place: Place = LocalPlace(folder, options.resume, fingerprint) if url is None else RemotePlace(url)
    if url is not None:
        LocalPlace(folder).open([], fresh=True)  # what killed uploads left
    receipts = _cut(whole, place, folder, options)
    skipped = whole.defects() + [Skip(*values) for receipt in receipts for values in receipt["skipped"]]
    _refuse_many(whole, skipped, options.max_skipped, report)
    manifest = _manifest(whole, receipts, skipped, url)
    for left in folder.glob(".*.tmp"):  # of a worker that died over a shard, which another has cut since
        left.unlink()
    texts = {SKIPPED: _table(skipped), MANIFEST: json.dumps(manifest, indent=1, sort_keys=True) + "\n"}
    for name, text in texts.items():
        if isinstance(place, RemotePlace):
            place.write(name, text)
        write_atomic(folder / name, text)
    return manifest


def _cut(whole: _Set, place: Place, scratch: Path, options: _Options) -> list[Receipt]:
    """The receipts of all shards, in order: kept ones where `options` say so, the others cut now."""
    wanted = {plan.name: plan for plan in whole.plans}
    with writing(scratch):
        found = place.open(list(wanted), fresh=options.fresh or options.resume is None)
    receipts = {
        r["name"]: r for r in found if r["photographs"] == photographs_digest(wanted[r["name"]].images)
    }
    if receipts:
        kept = f"{len(receipts)} of {len(wanted)} shards of an earlier run are whole and kept"
        print(f"{whole.dataset.name}/{whole.split}: {kept}", flush=True)
    done = sum(wanted[name].samples for name in receipts)
    tasks = [plan for name, plan in wanted.items() if name not in receipts]
    work = partial(_cut_one, whole.kind, place, scratch.absolute())
    with closing(map_on_cluster(work, tasks, options.workers)) as results:
        for receipt in results:
            receipts[receipt["name"]] = receipt
            done += wanted[receipt["name"]].samples
            if options.progress is not None:
                options.progress(done, whole.samples)
    return [receipts[name] for name in wanted]


def _cut_one(kind: SampleKind, place: Place, scratch: Path, plan: Plan) -> Receipt:
    """Cut one shard and put it in its place -> its receipt. This is what a worker does."""
    photographs = photographs_digest(plan.images)
    temporary = temporary_beside(scratch / plan.name)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        written = write_shard(plan, kind, temporary)
        index = written.rows.tobytes()
        receipt = {
            "name": plan.name,
            "samples": len(written.rows),
            "bytes": written.bytes,
            "sha256": written.sha256,
            "idx_sha256": hashlib.sha256(index).hexdigest(),
            "photographs": photographs,
            "skipped": written.skipped,
        }
        place.put(temporary, index, receipt)
    except OSError as error:
        raise UserError(f"{scratch / plan.name}: cannot be written: {disk_trouble(error)}") from error
    finally:
        with suppress(OSError):  # the first error is the one to be told
            temporary.unlink(missing_ok=True)
    return receipt


def _manifest(whole: _Set, receipts: list[Receipt], skipped: list[Skip], url: str | None) -> dict[str, Any]:
    listed = ("name", "samples", "bytes", "sha256", "idx_sha256")
    return {
        "format": FORMAT,
        **whole.about(),
        "dataset": whole.dataset.name,
        "licence": whole.dataset.licence,
        "skeleton": whole.dataset.skeleton.layout(),
        "samples": sum(receipt["samples"] for receipt in receipts),
        "images": len(whole.images),
        "bytes": sum(receipt["bytes"] for receipt in receipts),
        "url": url,
        "left_out": dict(Counter(reason for raw in whole.images for reason, _ in raw.left_out)),
        "skipped": dict(Counter(entry.reason for entry in skipped)),
        "shards": [{name: receipt[name] for name in listed} for receipt in receipts],
    }


def _table(skipped: list[Skip]) -> str:
    rows = sorted(skipped, key=lambda entry: (entry.reason, entry.file, entry.annotation_id))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Skip._fields, *rows])
    return text.getvalue()


def _refuse_many(whole: _Set, skipped: list[Skip], allowed: float, report: Path) -> None:
    """UserError when defects keep out more than `allowed`, a share of all who should have become samples."""
    expected = whole.samples + sum(len(raw.skipped) for raw in whole.images)
    if len(skipped) <= allowed * expected:
        return
    write_atomic(report, _table(skipped))
    counts = ", ".join(
        f"{reason} {count}" for reason, count in Counter(entry.reason for entry in skipped).most_common()
    )
    first = min(skipped, key=lambda entry: (entry.file, entry.annotation_id))
    why = f"{first.reason}, {first.detail}" if first.detail else first.reason
    raise UserError(
        f"{whole.dataset.name}/{whole.split}: {len(skipped)} of {expected} persons are skipped ({counts}), "
        "more than "
        f"shard.max_skipped allows ({allowed:.1%}); first {first.file} ({why}); all are in {report}; mend "
        "these files or raise "
        "shard.max_skipped"
    )
