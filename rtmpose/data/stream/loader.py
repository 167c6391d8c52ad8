"""Worker processes that start clean, and the DataLoader that keeps them over all epochs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


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
    reader: Dataset[Any], requests: Sampler[Any], collate: Callable[[Any], Any], workers: int, *preload: str
) -> DataLoader[Any]:
    """`reader[request]` for every request, in their order, by `workers` processes (0: this one) that import
    `preload`.
    """
    return DataLoader(
        reader,
        batch_size=None,  # a request is a batch already
        sampler=requests,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_one_thread,
        persistent_workers=workers > 0,
        multiprocessing_context=worker_context(*preload) if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # of its own, so that opening a loader does not move the global one
    )


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
