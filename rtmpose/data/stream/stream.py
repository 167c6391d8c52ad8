"""From shards to batches: an epoch's order is a function of (seed, epoch), of the shards, their window and
the global batch; a sample's chance is one of (seed, epoch, position). Ranks, workers and resuming change
neither.

Step b of an epoch is rows [bB, (b+1)B) of that order; rank r of R takes the rows [rB/R, (r+1)B/R) of it; the
last batch is filled up by beginning the order again. Workers hold no state: the main process plans, they
read, decode and augment. Any position is reached without computing what lies before it.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from rtmpose.config import AugmentConfig
from rtmpose.data.shards.cache import RemoteShard, ShardCache
from rtmpose.data.shards.manifest import (
    read_manifest,
    refuse_larger,
    refuse_small_cache,
    refuse_stronger,
    shard_places,
)
from rtmpose.data.shards.sample import DamagedSample, decode_part, read_row, read_sample
from rtmpose.data.stream.augment import Augmenter
from rtmpose.data.stream.loader import open_loader
from rtmpose.files import UserError
from rtmpose.skeleton import Skeleton

Ints = NDArray[np.int64]

CHUNK = 4096  # samples of all sets that are interleaved at a time
LANES = 1 << 20
FETCHERS = 4  # downloads at a time
_TURN, _SAMPLE, _WINDOW, _CHUNK = range(4)  # what a generator is for: the first word of its seed


@dataclass(frozen=True)
class MixEntry:
    """One set of training shards and how often an epoch shows each of its samples."""

    dir: Path
    repeat: int


class Batch(NamedTuple):
    """uint8 RGB images (B, H, W, 3), keypoints (B, K, 2) float32 in input px, weights (B, K) float32, the
    samples' keys, and what was wrong with the damaged ones, which are black and weigh nothing.
    """

    images: torch.Tensor
    keypoints: torch.Tensor
    weights: torch.Tensor
    keys: list[str]
    damaged: list[str]


@dataclass(frozen=True, eq=False)
class Request:
    """All that a worker needs to know of a batch: positions in the epoch, and for each its set, shard and
    row.
    """

    epoch: int
    augment: AugmentConfig
    positions: Ints
    sets: Ints
    shards: list[Path | RemoteShard]
    rows: Ints


class SetSize(NamedTuple):
    """The number of samples in each shard (S,) of a set, and how often an epoch shows it."""

    shards: Ints
    repeat: int


class _Turn:
    """One showing of a set: its shards in an order of its own, a window of them at a time, shuffled within
    the window.
    """

    def __init__(self, shards: Ints, window: int, seed: tuple[int, ...]) -> None:
        self.seed = seed
        self.order = np.random.default_rng((_TURN, *seed)).permutation(len(shards))
        self.ends = np.cumsum(shards[self.order])
        # Windows of equal numbers of shards: a short last one would mix badly.
        self.cuts = np.linspace(0, len(shards), max(1, round(len(shards) / window)) + 1).astype(int)
        self.window_ends = self.ends[self.cuts[1:] - 1]
        self.window, self.places = -1, np.empty(0, np.int64)

    def shards_of(self, window: int) -> Ints:
        """The shards of a window in the turn's order; none beyond the last."""
        return (
            self.order[self.cuts[window] : self.cuts[window + 1]]
            if window < len(self.cuts) - 1
            else self.order[:0]
        )

    def samples(self, items: Ints) -> Ints:
        """(shard, row, lane, window) of the showings number `items`, ascending, (n, 4). The lane says how far
        in its window's row of samples a sample lies, in LANES steps.
        """
        found = np.empty_like(items)
        windows = np.searchsorted(self.window_ends, items, side="right")
        begins = np.concatenate([[0], self.window_ends])
        for window in np.unique(windows).tolist():
            first, end = begins[window], begins[window + 1]
            if window != self.window:
                rng = np.random.default_rng((_WINDOW, *self.seed, window))
                self.window, self.places = window, first + rng.permutation(end - first)
            found[windows == window] = self.places[items[windows == window] - first]
        at = np.searchsorted(self.ends, found, side="right")
        lanes = (found - begins[windows]) * LANES // np.diff(begins)[windows]
        return np.stack(
            [self.order[at], found - np.where(at > 0, self.ends[at - 1], 0), lanes, windows], axis=1
        )


class EpochOrder:
    """The samples of one epoch in order, at any position; opening takes time that grows with shards, not
    samples.

    A set is shown `repeat` times, each time in another permutation; showings of all sets are interleaved
    evenly, so any stretch of the epoch holds every set in its proportion.
    """

    def __init__(self, sets: Sequence[SetSize], seed: int, epoch: int, window: int) -> None:
        self.sets, self.seed, self.window = sets, (seed, epoch), window
        self.once = [int(size.shards.sum()) for size in sets]
        self.shown = [samples * size.repeat for samples, size in zip(self.once, sets, strict=True)]
        self.chunks = max(1, sum(self.shown) // CHUNK)
        self._turns: dict[int, tuple[int, _Turn]] = {}
        self._chunk: tuple[int, Ints] = (-1, np.empty((0, 6), np.int64))

    def rows(self, start: int, stop: int) -> Ints:
        """(set, shard, row in the shard, lane, window, turn) of the positions from `start` to before `stop`,
        (n, 6).
        """
        parts = [np.empty((0, 6), np.int64)]
        chunk = bisect_right(range(self.chunks), start, key=self._chunk_start) - 1
        while start < stop:
            first = self._chunk_start(chunk)
            parts.append(self._interleaved(chunk)[start - first : stop - first])
            start, chunk = start + len(parts[-1]), chunk + 1
        return np.concatenate(parts)

    def _chunk_start(self, chunk: int) -> int:
        return sum(chunk * shown // self.chunks for shown in self.shown)

    def _interleaved(self, chunk: int) -> Ints:
        if self._chunk[0] != chunk:
            rng = np.random.default_rng((_CHUNK, *self.seed, chunk))
            rows, times = [], []
            for which, shown in enumerate(self.shown):
                items = np.arange(chunk * shown // self.chunks, (chunk + 1) * shown // self.chunks)
                rows.append(self._samples(which, items))
                times.append((items + rng.random(len(items))) / max(shown, 1))
            self._chunk = (chunk, np.concatenate(rows)[np.argsort(np.concatenate(times), kind="stable")])
        return self._chunk[1]

    def _samples(self, which: int, items: Ints) -> Ints:
        found = np.full((len(items), 6), which)
        turns = items // max(self.once[which], 1)
        for number in np.unique(turns).tolist():
            mine = turns == number
            found[mine, 1:5] = self.turn(which, number).samples(items[mine] - number * self.once[which])
        found[:, 5] = turns
        return found

    def turn(self, which: int, number: int) -> _Turn:
        """Showing `number` of a set; the last one that was asked for is kept."""
        if self._turns.get(which, (-1, None))[0] != number:
            self._turns[which] = (
                number,
                _Turn(self.sets[which].shards, self.window, (*self.seed, which, number)),
            )
        return self._turns[which][1]


class SampleReader(Dataset["Batch | UserError"]):
    """What runs in a worker: reads the bytes of a batch, decodes and augments them. A user's mistake is
    handed back as a value, since an exception would reach the main process wrapped in the worker's traceback.
    """

    def __init__(
        self,
        maps: list[Ints],
        skeleton: Skeleton,
        size: tuple[int, int],
        seed: int,
        udp: bool,
        skip: bool,
        cache: ShardCache | None,
    ) -> None:
        self.maps, self.skeleton, self.size, self.seed = maps, skeleton, size, seed
        self.udp, self.skip, self.cache = udp, skip, cache

    def __getitem__(self, request: Request) -> Batch | UserError:
        try:
            return self._read(request)
        except UserError as error:
            return error

    def _read(self, request: Request) -> Batch:
        augmenter = Augmenter(request.augment, self.skeleton, self.size, self.udp)
        count, points = len(request.rows), len(self.skeleton.names)
        images = np.zeros((count, self.size[1], self.size[0], 3), np.uint8)  # (B, H, W, 3)
        keypoints = np.zeros((count, points, 2), np.float32)
        weights = np.zeros((count, points), np.float32)
        keys, damaged = [""] * count, []
        for i, (position, shard, row) in enumerate(
            zip(request.positions, request.shards, request.rows, strict=True)
        ):
            try:
                fields, content = self._sample(shard, int(row))
            except DamagedSample as error:
                if not self.skip:
                    raise
                damaged.append(str(error))
                continue
            rng = np.random.default_rng((_SAMPLE, self.seed, request.epoch, int(position)))
            drawn, visible = mapped(fields, self.maps[request.sets[i]])
            images[i], keypoints[i], shown = augmenter(
                partial(decode_part, content), fields, drawn, visible, rng
            )
            weights[i], keys[i] = shown > 0, fields["key"]
        return Batch(
            torch.from_numpy(images), torch.from_numpy(keypoints), torch.from_numpy(weights), keys, damaged
        )

    def _sample(self, shard: Path | RemoteShard, row: int) -> tuple[dict[str, Any], memoryview]:
        if isinstance(shard, Path):
            return read_sample(shard, read_row(shard, row))
        assert self.cache is not None  # refused at opening
        copy = self.cache.fetch(shard)
        try:
            return read_sample(copy, read_row(copy, row), shard.tar.url)
        except DamagedSample:  # the copy is damaged, or was evicted meanwhile: once more from the store
            self.cache.drop(shard)
            copy = self.cache.fetch(shard)
            return read_sample(copy, read_row(copy, row), shard.tar.url)


def mapped(fields: dict[str, Any], mapping: Ints) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A sample's keypoints (K, 2) crop px and visible (K,) in the target skeleton, whose points are the means
    of the pairs of own points in `mapping` (K, 2), visible when both are; -1 where there is none, and (K,)
    where every pair is one point.
    """
    points, visible = np.asarray(fields["keypoints"])[mapping], np.array([*fields["visible"], 0])[mapping]
    return (points, visible) if mapping.ndim == 1 else (points.mean(axis=1), visible.min(axis=1))


def _mapping(folder: Path, manifest: dict[str, Any], target: Skeleton) -> Ints:
    own = Skeleton.from_dict(manifest["skeleton"])
    pairs = np.array(own.map_to(target))
    if (pairs < 0).all():
        raise UserError(
            f"{folder}: no point of {own.name} is one of {target.name}; give it maps.{target.name} in its "
            "descriptor"
        )
    return pairs[:, 0] if (pairs[:, 0] == pairs[:, 1]).all() else pairs


class _Planned(Sampler[Request]):
    """Hands the epoch that is planned to the loader, whose workers live over all epochs."""

    def __init__(self) -> None:
        self.requests: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.requests


class TrainStream:
    """The training batches of a mix of shard sets, for one rank.

    `batch_size` is the global batch; `udp` chooses the crop of heatmap targets; `window` is the number of
    shards that are shuffled together; `cache` keeps copies of remote shards; `on_corrupt` says whether a
    damaged sample ends the run or is skipped and named in its batch. Raises UserError for missing shards and
    for an input larger, or of another shape, than they were cut for.
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
        window: int = 32,
        cache: ShardCache | None = None,
        on_corrupt: Literal["error", "skip"] = "error",
    ) -> None:
        self.folders = [entry.dir for entry in entries]
        self.manifests = [read_manifest(folder, "train") for folder in self.folders]
        self.shards = [
            shard_places(folder, manifest)
            for folder, manifest in zip(self.folders, self.manifests, strict=True)
        ]
        self.seed, self.batch_size, self.window = seed, batch_size, window
        self.slice = batch_size * rank // world, batch_size * (rank + 1) // world
        self.sets = [
            SetSize(np.array([shard["samples"] for shard in manifest["shards"]], np.int64), entry.repeat)
            for entry, manifest in zip(entries, self.manifests, strict=True)
        ]
        self.samples_per_epoch = sum(int(size.shards.sum()) * size.repeat for size in self.sets)
        if self.samples_per_epoch == 0:
            raise UserError(f"no training samples in {[str(entry.dir) for entry in entries]}")
        self.steps_per_epoch = -(-self.samples_per_epoch // batch_size)
        for folder, manifest in zip(self.folders, self.manifests, strict=True):
            refuse_larger(folder, manifest, input_size)
        self.cache = cache
        refuse_small_cache(cache, self.manifests, [self._held(len(size.shards)) for size in self.sets])
        maps = [
            _mapping(folder, manifest, skeleton)
            for folder, manifest in zip(self.folders, self.manifests, strict=True)
        ]
        reader = SampleReader(maps, skeleton, input_size, seed, udp, on_corrupt == "skip", self.cache)
        self.planned = _Planned()
        self.loader = open_loader(reader, self.planned, _unchanged, workers, "rtmpose.data.stream.stream")

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_step` on; UserError where `augment` is stronger than the
        shards allow.

        One epoch is read at a time: asking for the next one ends the one before.
        """
        for folder, manifest in zip(self.folders, self.manifests, strict=True):
            refuse_stronger(folder, manifest, augment)
        self.planned.requests = requests = self.requests(epoch, augment, start_step)
        return _batches(iter(self.loader), requests)

    def requests(
        self, epoch: int, augment: AugmentConfig, start_step: int = 0
    ) -> Generator[Request, None, None]:
        """What this rank reads at each step of an epoch, from `start_step` on."""
        order = EpochOrder(self.sets, self.seed, epoch, self.window)
        begin, end = self.slice
        reached: dict[int, tuple[int, int]] = {}
        for step in range(start_step, self.steps_per_epoch):
            first, stop = step * self.batch_size, min((step + 1) * self.batch_size, self.samples_per_epoch)
            found = order.rows(first, stop)
            self._fetch_ahead(order, found, reached)
            # By lane: each rank's rows come from its own part of every window's shards, and it needs no
            # others.
            found = found[np.argsort(found[:, 3], kind="stable")]
            while len(found) < self.batch_size:  # filled up by beginning again
                found = np.concatenate(
                    [found, order.rows(0, min(self.batch_size - len(found), self.samples_per_epoch))]
                )
            mine = found[begin:end]
            shards = [self.shards[which][shard] for which, shard in mine[:, :2]]
            yield Request(
                epoch, augment, np.arange(first + begin, first + end), mine[:, 0], shards, mine[:, 2]
            )

    def _fetch_ahead(self, order: EpochOrder, rows: Ints, reached: dict[int, tuple[int, int]]) -> None:
        """When a step begins a window of a remote set, start to copy this rank's part of it and of the next
        one.
        """
        for which in (which for which, manifest in enumerate(self.manifests) if manifest["url"]):
            mine = rows[rows[:, 0] == which]
            if not len(mine) or reached.get(which, (-1, -1)) >= (
                newest := (int(mine[-1, 5]), int(mine[-1, 4]))
            ):
                continue
            reached[which] = newest
            windows = [order.turn(which, newest[0]).shards_of(newest[1] + step) for step in (0, 1)]
            wanted = [
                self.shards[which][shard] for shards in windows for shard in shards[self._part(len(shards))]
            ]
            remote = [shard for shard in wanted if isinstance(shard, RemoteShard)]
            # First all that are there count as used, so that no download evicts them.
            missing = [shard for shard in remote if self.cache is not None and not self.cache.touch(shard)]
            for part in range(min(FETCHERS, len(missing))):
                Thread(target=self._fetch, args=(missing[part::FETCHERS],), daemon=True).start()

    def _fetch(self, shards: list[RemoteShard]) -> None:
        assert self.cache is not None  # refused at opening
        for shard in shards:
            with suppress(
                UserError
            ):  # the reader that needs this shard meets the same failure, and reports it
                self.cache.fetch(shard)

    def _held(self, count: int) -> int:
        """How many of a set's `count` shards the ranks of this machine want at a time: their parts of three
        windows, the one that is being left, the one that is read, and the next.
        """
        window, ranks = (
            count / max(1, round(count / self.window)),
            int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        )
        part = self._part(math.ceil(window))
        return min(count, 3 * min(math.ceil(window), ranks * (part.stop - part.start)))

    def _part(self, count: int) -> slice:
        """Which of a window's `count` shards this rank reads: its share of the lanes, and three standard
        deviations of where a batch's rows divide.
        """
        low, high = (rows / self.batch_size for rows in self.slice)
        spread = 1.5 / self.batch_size**0.5
        return slice(max(0, int(count * (low - spread))), int(count * (high + spread)) + 1)


def _batches(
    loaded: Iterator[Batch | UserError], requests: Generator[Request, None, None]
) -> Iterator[Batch]:
    try:
        for batch in loaded:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        # it holds the stream, and the stream the loader: such a ring delays the workers' end by seconds
        requests.close()


def _unchanged(batch: Any) -> Any:
    return batch
