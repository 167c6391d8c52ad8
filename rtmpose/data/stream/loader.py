"""Batches are loaded by worker processes, which hold no state: what they read is planned by the stream, and
their random draws follow from (seed, epoch, position).
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from rtmpose.config import AugmentConfig
from rtmpose.data.shards.cache import RemoteShard, ShardCache
from rtmpose.data.shards.sample import DamagedSample, decode_part, read_row, read_sample
from rtmpose.data.stream.augment import Augmenter
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.order import Ints, Purpose
from rtmpose.files import UserError
from rtmpose.skeleton import Skeleton


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
        self.num_keypoints = skeleton.num_keypoints

    def __getitem__(self, request: Request) -> Batch | UserError:
        try:
            return self._read(request)
        except UserError as error:
            return error

    def _read(self, request: Request) -> Batch:
        augmenter = Augmenter(request.augment, self.skeleton, self.size, self.udp)
        count = len(request.rows)
        images = np.zeros((count, self.size[1], self.size[0], 3), np.uint8)  # (B, H, W, 3)
        keypoints = np.zeros((count, self.num_keypoints, 2), np.float32)
        weights = np.zeros((count, self.num_keypoints), np.float32)
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
            rng = np.random.default_rng((Purpose.SAMPLE, self.seed, request.epoch, int(position)))
            points, visible = mapped(fields, self.maps[request.sets[i]])
            images[i], keypoints[i], shown = augmenter(
                partial(decode_part, content), fields, points, visible, rng
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


def worker_context(*preload: str) -> ForkServerContext:
    """Processes that start clean: forked from a server that never ran a thread, since a fork of a process
    whose torch, OpenCV or Ray threads hold locks can hang. The server imports `preload` once, while this
    process goes on.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    forkserver.ensure_running()
    return context


def open_loader(
    reader: SampleReader, requests: Sampler[Request], workers: int
) -> DataLoader[Batch | UserError]:
    """`reader[request]` for every request, in their order, by `workers` processes (0: this one), which live
    over all epochs.
    """
    return DataLoader(
        reader,
        batch_size=None,  # a request is a batch already
        sampler=requests,
        num_workers=workers,
        worker_init_fn=_one_thread,
        persistent_workers=workers > 0,
        multiprocessing_context=worker_context(__name__) if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # of its own, so that opening a loader does not move the global one
    )


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
