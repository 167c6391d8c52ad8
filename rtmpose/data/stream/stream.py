"""From shards to batches: ranks, workers and resuming change neither the order of an epoch nor a sample's
random draws.

Step b of an epoch is rows [bB, (b+1)B) of its order (see `rtmpose.data.stream.order`); rank r of R takes the
rows [rB/R, (r+1)B/R) of the step; the last batch is filled up by beginning the order again. The main process
plans, worker processes read, decode and augment. Any position is reached without computing what lies before.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Sampler

from rtmpose.config import AugmentConfig
from rtmpose.data.shards.cache import RemoteShard, ShardCache
from rtmpose.data.shards.manifest import (
    read_manifest,
    refuse_larger,
    refuse_small_cache,
    refuse_stronger,
    remote_shard,
)
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.loader import Request, SampleReader, open_loader
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.order import EpochOrder, Ints, SetSize
from rtmpose.data.stream.prefetch import Prefetch, RankPart
from rtmpose.files import UserError
from rtmpose.skeleton import Skeleton


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
        self.seed, self.batch_size, self.window, self.cache = seed, batch_size, window, cache
        self.slice = batch_size * rank // world, batch_size * (rank + 1) // world
        self.part = RankPart(self.slice[0] / batch_size, self.slice[1] / batch_size, batch_size)
        self.sets = [
            SetSize(np.array([shard["samples"] for shard in manifest["shards"]], np.int64), entry.repeat)
            for entry, manifest in zip(entries, self.manifests, strict=True)
        ]
        self.samples_per_epoch = sum(int(size.shards.sum()) * size.repeat for size in self.sets)
        if self.samples_per_epoch == 0:
            raise UserError(f"no training samples in {[str(entry.dir) for entry in entries]}")
        self.steps_per_epoch = -(-self.samples_per_epoch // batch_size)
        maps = []
        for folder, manifest in zip(self.folders, self.manifests, strict=True):
            refuse_larger(folder, manifest, input_size)
            maps.append(_mapping(folder, manifest, skeleton))
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        held = [self.part.held(len(size.shards), window, ranks) for size in self.sets]
        refuse_small_cache(cache, self.manifests, held)
        reader = SampleReader(maps, skeleton, input_size, seed, udp, on_corrupt == "skip", cache)
        self.planned = _Planned()
        self.loader = open_loader(reader, self.planned, workers)

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_step` on; UserError where `augment` is stronger than the
        shards allow.

        One epoch is read at a time: once the next one is asked for, this one yields no more batches.
        """
        self.refuse_stronger(augment)
        self.planned.requests = requests = self.requests(epoch, augment, start_step)
        return _batches(iter(self.loader), requests)

    def refuse_stronger(self, augment: AugmentConfig) -> None:
        """UserError where an augmentation can show more of a photograph than the shards hold."""
        for folder, manifest in zip(self.folders, self.manifests, strict=True):
            refuse_stronger(folder, manifest, augment)

    def requests(
        self, epoch: int, augment: AugmentConfig, start_step: int = 0
    ) -> Generator[Request, None, None]:
        """What this rank reads at each step of an epoch, from `start_step` on."""
        order = EpochOrder(self.sets, self.seed, epoch, self.window)
        prefetch = self.prefetch()
        begin, end = self.slice
        for step in range(start_step, self.steps_per_epoch):
            first, stop = step * self.batch_size, min((step + 1) * self.batch_size, self.samples_per_epoch)
            rows = order.rows(first, stop)
            if prefetch is not None:
                prefetch.step(order, rows)
            rows = rows[np.argsort(rows["place"], kind="stable")]
            while len(rows) < self.batch_size:  # filled up by beginning again
                missing = min(self.batch_size - len(rows), self.samples_per_epoch)
                rows = np.concatenate([rows, order.rows(0, missing)])
            mine = rows[begin:end]
            shards = [
                self.shard(*pair) for pair in zip(mine["set"].tolist(), mine["shard"].tolist(), strict=True)
            ]
            positions = np.arange(first + begin, first + end)
            yield Request(epoch, augment, positions, mine["set"], shards, mine["row"])

    def shard(self, which: int, number: int) -> Path | RemoteShard:
        """Where shard `number` of a set lies: in the set's folder, or at its manifest's URL."""
        manifest = self.manifests[which]
        if manifest["url"] is None:
            return self.folders[which] / manifest["shards"][number]["name"]
        return remote_shard(manifest, number)

    def prefetch(self) -> Prefetch | None:
        """What copies the shards of remote sets in time; None where all sets are local."""
        remote = [which for which, manifest in enumerate(self.manifests) if manifest["url"]]
        if not remote:
            return None
        assert self.cache is not None  # refused at opening
        return Prefetch(self.cache, remote, self.part, self.shard)


class _Planned(Sampler[Request]):
    """Hands the epoch that is planned to the loader, whose workers live over all epochs."""

    def __init__(self) -> None:
        self.requests: Iterator[Request] = iter(())

    def __iter__(self) -> Iterator[Request]:
        return self.requests


def _mapping(folder: Path, manifest: dict[str, Any], target: Skeleton) -> Ints:
    """Which own points make each point of the target skeleton, as `loader.mapped` takes it."""
    own = Skeleton.from_dict(manifest["skeleton"])
    pairs = np.array(own.map_to(target))
    if (pairs < 0).all():
        raise UserError(
            f"{folder}: no point of {own.name} is one of {target.name}; give it maps.{target.name} in its "
            "descriptor"
        )
    return pairs[:, 0] if (pairs[:, 0] == pairs[:, 1]).all() else pairs


def _batches(
    loaded: Iterator[Batch | UserError], requests: Generator[Request, None, None]
) -> Iterator[Batch]:
    try:
        for batch in loaded:
            if isinstance(batch, UserError):
                raise copy(batch)  # `batch` itself would be in a ring with its traceback
            yield batch
    finally:
        # It holds the stream, and the stream the loader: such a ring delays the workers' end by seconds.
        requests.close()
