"""From shards to batches: an epoch's order is a function of (seed, epoch), a sample's chance of (seed, epoch,
position).

Step b of an epoch is rows [bB, (b+1)B) of that order; rank r of R takes the rows [rB/R, (r+1)B/R) of it; the last
batch is filled up by beginning the order again. Workers hold no state: the main process plans, they read, decode and
augment.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from rtmpose.config import AugmentConfig, UserError, read_json
from rtmpose.geometry import decode
from rtmpose.skeleton import Skeleton

MANIFEST = "manifest.json"
# One row of an `.idx` file: where the image and the JSON of a sample lie in the tar, and its key's hash.
INDEX = np.dtype([("image", "<u8"), ("image_bytes", "<u4"), ("json", "<u8"), ("json_bytes", "<u4"), ("key", "<u8")])

_ORDER, _SAMPLE = 0, 1  # what a generator is for: the first word of its seed


@dataclass(frozen=True)
class MixEntry:
    """One set of training shards and how often an epoch shows each of its samples."""

    dir: Path
    repeat: int


class Batch(NamedTuple):
    """uint8 RGB images (B, H, W, 3), keypoints (B, K, 2) float32 in input px, weights (B, K) float32, and the
    samples' keys.
    """

    images: torch.Tensor
    keypoints: torch.Tensor
    weights: torch.Tensor
    keys: list[str]


@dataclass(frozen=True, eq=False)
class EvalImage:
    """One whole photograph (H, W, 3) uint8 RGB with its annotations in COCO's fields."""

    image_id: int | str
    image: NDArray[np.uint8]
    width: int
    height: int
    annotations: list[dict[str, Any]]
    file_name: str


@dataclass(frozen=True, eq=False)
class _Request:
    """All that a worker needs to know of a batch: the rows of the index, their shards, and their positions in the
    epoch.
    """

    epoch: int
    augment: AugmentConfig
    positions: NDArray[np.int64]
    shards: NDArray[np.int32]
    rows: NDArray[Any]


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a shard folder of `kind` "train" or "eval"; UserError where there is none or a shard is not
    whole.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{path} is missing: cut the shards first (stage shard)")
    manifest = read_json(path, "cut the shards again (stage shard)")
    if manifest["kind"] != kind:
        raise UserError(f"{path}: these are {manifest['kind']} shards, {kind} shards are needed")
    for shard in manifest["shards"]:
        file = folder / shard["name"]
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            raise UserError(f"{file}: missing or not {shard['bytes']} bytes long; cut the shards again (stage shard)")
    return manifest


def read_index(folder: Path, manifest: dict[str, Any]) -> list[NDArray[Any]]:
    """The index rows of every shard of a folder."""
    return [np.fromfile((folder / shard["name"]).with_suffix(".idx"), INDEX) for shard in manifest["shards"]]


def epoch_order(sets: Sequence[tuple[int, int]], seed: int, epoch: int) -> NDArray[np.int64]:
    """Sample numbers, running over all sets of (samples, repeat), in the order of one epoch.

    Each repeat of a set is a permutation of its own, laid evenly over its share of the epoch with a little chance in
    it: any stretch of the epoch holds every set in its proportion, and two showings of a sample are a repeat apart.
    """
    numbers, places, first = [], [], 0
    for which, (count, repeat) in enumerate(sets):
        for turn in range(repeat):
            rng = np.random.default_rng((_ORDER, seed, epoch, which, turn))
            numbers.append(first + rng.permutation(count))
            places.append((turn + (np.arange(count) + rng.random(count)) / max(count, 1)) / repeat)
        first += count
    return np.concatenate(numbers)[np.argsort(np.concatenate(places), kind="stable")]


class SampleReader(Dataset["Batch | UserError"]):
    """What runs in a worker: reads the bytes of a batch, decodes and augments them. A user's mistake is handed back
    as a value, since an exception would reach the main process wrapped in the worker's traceback.
    """

    def __init__(
        self,
        shards: list[Path],
        maps: list[NDArray[np.int64]],
        skeleton: Skeleton,
        size: tuple[int, int],
        seed: int,
        udp: bool,
    ) -> None:
        self.shards, self.maps, self.skeleton = shards, maps, skeleton
        self.size, self.seed, self.udp = size, seed, udp

    def __getitem__(self, request: _Request) -> Batch | UserError:
        try:
            return self._read(request)
        except UserError as error:
            return error

    def _read(self, request: _Request) -> Batch:
        # Late: albumentations takes a second to import, and only the processes that augment need it.
        from rtmpose.data.augment import Augmenter

        augmenter = Augmenter(request.augment, self.skeleton, self.size, self.udp)
        count, points = len(request.rows), self.skeleton.num_keypoints
        images = np.empty((count, self.size[1], self.size[0], 3), np.uint8)  # (B, H, W, 3)
        keypoints = np.empty((count, points, 2), np.float32)
        weights = np.empty((count, points), np.float32)
        keys = []
        for i, (position, shard, row) in enumerate(zip(request.positions, request.shards, request.rows, strict=True)):
            fields, crop = read_sample(self.shards[shard], row)
            mapping = self.maps[shard]
            visible = np.where(mapping >= 0, np.asarray(fields["visible"])[mapping], 0)
            rng = np.random.default_rng((_SAMPLE, self.seed, request.epoch, int(position)))
            images[i], keypoints[i], shown = augmenter(crop, fields, np.asarray(fields["keypoints"])[mapping], visible, rng)
            weights[i] = shown > 0
            keys.append(fields["key"])
        return Batch(torch.from_numpy(images), torch.from_numpy(keypoints), torch.from_numpy(weights), keys)


def read_sample(shard: Path, row: NDArray[Any]) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """One sample's JSON fields and decoded image (H, W, 3) RGB; UserError naming shard and offset where it is
    damaged.
    """
    at, size, json_at, json_size = (int(row[name]) for name in ("image", "image_bytes", "json", "json_bytes"))
    first = min(at, json_at)
    with shard.open("rb", buffering=0) as file:
        content = memoryview(os.pread(file.fileno(), max(at + size, json_at + json_size) - first, first))
    try:
        fields = json.loads(bytes(content[json_at - first : json_at - first + json_size]))
    except ValueError as error:
        raise UserError(f"{shard} at byte {json_at}: damaged sample; cut the shards again (stage shard)") from error
    image = decode(content[at - first : at - first + size])
    if image is None:
        raise UserError(f"{shard} at byte {at}: damaged image; cut the shards again (stage shard)")
    return fields, image


class _Plan(Sampler[_Request]):
    """Hands the epoch that is planned to the loader, whose workers live over all epochs."""

    def __init__(self) -> None:
        self.requests: Iterator[_Request] = iter(())

    def __iter__(self) -> Iterator[_Request]:
        return self.requests


class TrainStream:
    """The training batches of a mix of shard sets, for one rank.

    `batch_size` is the global batch; `udp` chooses the crop of heatmap targets. Raises UserError for missing shards
    and for an input larger, or of another shape, than they were cut for.
    """

    def __init__(
        self,
        entries: Sequence[MixEntry],
        skeleton: Skeleton,
        input_size: tuple[int, int],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        udp: bool = False,
        workers: int = 0,
    ) -> None:
        self.manifests = {entry.dir: read_manifest(entry.dir, "train") for entry in entries}
        self.seed, self.batch_size, self.rank, self.world = seed, batch_size, rank, world
        self.sets = [(int(self.manifests[entry.dir]["samples"]), entry.repeat) for entry in entries]
        self.samples_per_epoch = sum(count * repeat for count, repeat in self.sets)
        if self.samples_per_epoch == 0:
            raise UserError(f"no training samples in {[str(entry.dir) for entry in entries]}")
        self.steps_per_epoch = -(-self.samples_per_epoch // batch_size)
        shards: list[Path] = []
        maps, rows, numbers = [], [], []
        for folder, manifest in self.manifests.items():
            _refuse_larger(folder, manifest, input_size)
            mapping = np.array(Skeleton.from_dict(manifest["skeleton"]).map_to(skeleton))
            for shard, index in zip(manifest["shards"], read_index(folder, manifest), strict=True):
                numbers.append(np.full(len(index), len(shards), np.int32))
                rows.append(index)
                shards.append(folder / shard["name"])
                maps.append(mapping)
        self.rows, self.shard_of = np.concatenate(rows), np.concatenate(numbers)
        self.plan = _Plan()
        reader = SampleReader(shards, maps, skeleton, input_size, seed, udp)
        self.loader = _loader(reader, self.plan, workers)

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_step` on; UserError where `augment` is stronger than the shards allow.

        One epoch is read at a time: asking for the next one ends the one before.
        """
        for folder, manifest in self.manifests.items():
            _refuse_stronger(folder, manifest, augment)
        self.plan.requests = self._requests(epoch, augment, start_step)
        return _raising(iter(self.loader))

    def _requests(self, epoch: int, augment: AugmentConfig, start_step: int) -> Iterator[_Request]:
        order = epoch_order(self.sets, self.seed, epoch)
        begin, end = (self.batch_size * rank // self.world for rank in (self.rank, self.rank + 1))
        for step in range(start_step, self.steps_per_epoch):
            positions = np.arange(step * self.batch_size + begin, step * self.batch_size + end)
            samples = order[positions % len(order)]
            yield _Request(epoch, augment, positions, self.shard_of[samples], self.rows[samples])


def worker_context(*preload: str) -> ForkServerContext:
    """Processes that start clean: forked from a server that never ran a thread, since a fork of a process whose
    torch, OpenCV or Ray threads hold locks can hang. The server imports `preload` once, while this process goes
    on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    forkserver.ensure_running()
    return context


def _loader(reader: SampleReader, plan: _Plan, workers: int) -> DataLoader[Any]:
    return DataLoader(
        reader,
        batch_size=None,  # a request is a batch already
        sampler=plan,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_one_thread,
        persistent_workers=workers > 0,
        multiprocessing_context=worker_context("rtmpose.data.stream", "rtmpose.data.augment") if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # of its own, so that opening a loader does not move the global one
    )


def _raising(batches: Iterator[Batch | UserError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _unchanged(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)


def _refuse_larger(folder: Path, manifest: dict[str, Any], size: tuple[int, int]) -> None:
    cut = manifest["cut_for"]["input_size"]
    if size[0] > cut[0] or size[1] > cut[1] or size[0] * cut[1] != size[1] * cut[0]:
        raise UserError(
            f"{folder / MANIFEST}: cut for inputs of the shape of {cut[0]}x{cut[1]} and up to it, input_size is "
            f"{size[0]}x{size[1]}; set shard.input_size and cut the shards again"
        )


def _refuse_stronger(folder: Path, manifest: dict[str, Any], augment: AugmentConfig) -> None:
    for name in ("shift", "scale", "rotate"):
        allowed, asked = manifest["cut_for"][name], getattr(augment, name)
        if asked > allowed:
            raise UserError(f"{folder / MANIFEST}: cut for augmentation with {name} up to {allowed:g}, not {asked:g}")


def read_eval(folder: Path, ids: Collection[int | str] | None = None) -> Iterator[EvalImage]:
    """The photographs of a folder of evaluation shards, in the raw set's order; with `ids` only these."""
    manifest = read_manifest(folder, "eval")
    wanted = None if ids is None else set(ids)
    for shard, index in zip(manifest["shards"], read_index(folder, manifest), strict=True):
        for row in index:
            fields, image = read_sample(folder / shard["name"], row)
            image_id, width, height = fields["image_id"], fields["width"], fields["height"]
            if wanted is None or image_id in wanted:
                yield EvalImage(image_id, image, width, height, fields["annotations"], fields["file_name"])
