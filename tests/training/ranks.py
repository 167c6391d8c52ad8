"""Several workers of one test, each a process of its own, joined by gloo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from rtmpose.data.stream.loader import worker_context


def on_ranks(world: int, folder: Path, work: Callable[[int, int], Any]) -> list[Any]:
    """`work(rank, world)` on every rank, a function of a module; what each returned (tensors in dicts and
    lists).
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Imported once, not in every process; DistributedDataParallel imports the second one.
    worker_context("rtmpose.training.update", "torch._dynamo")
    start_processes(_rank, (world, folder, work), nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _rank(rank: int, world: int, folder: Path, work: Callable[[int, int], Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    try:
        torch.save(work(rank, world), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def share(rows: int, rank: int, world: int) -> slice:
    """Rank's part of a batch, as the stream divides it; shares differ by a row where it does not divide
    evenly.
    """
    return slice(rows * rank // world, rows * (rank + 1) // world)
