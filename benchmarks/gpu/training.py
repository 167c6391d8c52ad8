"""Training steps, for which PyTorch is enough, and how long they wait for data."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from peers.eager import Eager
from torch import Tensor

from gpu.scale import Result, Scale, ratio
from rtmpose.data.stream.batch import Batch
from rtmpose.models import build_pose_net
from rtmpose.targets import SimCC
from rtmpose.training.update import Updater, simcc_task

POINTS, TAU, LR = 17, 0.1, 1e-4
Trainer = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Optim:
    """What an update asks of `rtmpose.config.OptimParams`, which needs more than PyTorch."""

    lr: float = LR
    clip_grad: float | None = None
    ema_gamma: float = 2000.0
    decay_norms: bool = False


def train_step(device: torch.device, scale: Scale) -> Result:
    """Samples/s of each way by slices that alternate, their first losses, and ratios to the usual way, each
    with the interval of a paired comparison by slices where NumPy is there.
    """
    steps = {way: _trainer(way, device, scale) for way in scale.ways}
    batches = _batches(scale)
    losses = {}
    for way, step in steps.items():
        began = time.perf_counter()
        losses[way] = [float(step(batches[number % len(batches)])) for number in range(3)]
        print(f"  {way}: first losses {losses[way]}, {time.perf_counter() - began:.1f} s", flush=True)
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    chance = random.Random(0)
    for _ in range(scale.slices):
        for way in chance.sample(list(steps), len(steps)):
            seconds[way].append(_slice(device, steps[way], batches, scale.steps))
    samples = scale.rows * scale.steps
    found: Result = {"losses": losses, "rows": scale.rows}
    for way, times in seconds.items():
        found[way] = {"samples_per_s": round(samples / median(times), 1), **ratio(seconds["amp"], times)}
    if device.type == "cuda":
        found["memory_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6)
    first = [values[0] for values in losses.values()]
    if max(first) - min(first) > 0.02 * abs(first[0]):
        raise AssertionError(f"the ways' first losses differ: {losses}")
    return found


def _trainer(way: str, device: torch.device, scale: Scale) -> Trainer:
    torch.manual_seed(0)
    network = build_pose_net(scale.size, "simcc", POINTS, scale.input_size).train()
    task, optim = simcc_task(network, SimCC(scale.input_size), TAU), cast(Any, Optim())
    if way == "amp":
        network.to(device)
        usual = Eager(task, device, global_batch=scale.rows, weight_decay=0.05, momentum=0.0002, optim=optim)
        return lambda batch: usual.step(batch, LR)
    updater = Updater(
        task,
        device=device,
        precision="bf16" if device.type == "cuda" else "fp32",
        global_batch=scale.rows,
        weight_decay=0.05,
        optim=optim,
        ema_momentum=0.0002,
        compile=way == "compiled",
    )
    return lambda batch: updater.step(batch, LR).loss


def _batches(scale: Scale, number: int = 4) -> list[Batch]:
    """Random images and keypoints, as the stream gives them."""
    chance = torch.Generator().manual_seed(0)
    (width, height), rows = scale.input_size, scale.rows
    found = []
    for _ in range(number):
        images = torch.randint(0, 256, (rows, height, width, 3), dtype=torch.uint8, generator=chance)
        points = torch.rand(rows, POINTS, 2, generator=chance) * torch.tensor(scale.input_size)
        weights = (torch.rand(rows, POINTS, generator=chance) < 0.9).float()
        found.append(Batch(images, points, weights, [], []))
    return found


def _slice(device: torch.device, step: Trainer, batches: list[Batch], steps: int) -> float:
    _wait(device)
    began = time.perf_counter()
    for number in range(steps):
        step(batches[number % len(batches)])
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def data_wait(device: torch.device, scale: Scale) -> Result:
    """The share of the time that updates on rendered people wait for the loader's workers."""
    from rtmpose.data.stream.mix import MixEntry
    from rtmpose.data.stream.stream import TrainStream
    from rtmpose.descriptors import load_skeleton
    from rtmpose.training.loop import prefetched, timed

    with tempfile.TemporaryDirectory() as name:
        shards = _rendered(Path(name), scale)
        stream = TrainStream(
            [MixEntry(shards, 50)],
            load_skeleton("coco17"),
            scale.input_size,
            batch_size=scale.rows,
            seed=0,
            workers=scale.loader_workers,
        )
        step = _trainer("bf16", device, scale)
        batches = timed(prefetched(_epochs(stream), device))
        for _ in range(2):  # the workers start
            step(next(batches)[0])
        waited, samples = 0.0, 0
        _wait(device)
        began = time.perf_counter()
        for _ in range(scale.steps * 2):
            batch, seconds = next(batches)
            step(batch)
            waited, samples = waited + seconds, samples + len(batch.images)
        _wait(device)
        took = time.perf_counter() - began
    return {
        "data_wait": round(waited / took, 4),
        "samples_per_s": round(samples / took, 1),
        "loader_workers": scale.loader_workers,
    }


def _epochs(stream: Any) -> Iterator[Batch]:
    """Batches without end, under the strong augmentation of the published recipes."""
    from peers.environment import published_augmentation

    augment, epoch = published_augmentation(), 0
    while True:
        yield from stream.epoch(epoch, augment)
        epoch += 1


def _rendered(folder: Path, scale: Scale) -> Path:
    from rtmpose.data.mannequins.dataset import render_dataset
    from rtmpose.data.raw.annotations import read_images
    from rtmpose.data.shards.write import write_train_shards
    from rtmpose.descriptors import load_dataset

    render_dataset(folder / "raw", "coco17", level="easy", images={"train": scale.images}, seed=0)
    dataset = load_dataset("coco17")
    raws = [raw for raw in read_images(dataset, folder / "raw", "train") if raw.persons]
    write_train_shards(raws, folder / "shards", dataset=dataset, input_size=scale.input_size, workers=4)
    return folder / "shards"
