"""One trial of a search: where it starts, what it trains, when it reports, and how it goes on after a kill.

A trial depends on its point and seed alone. So one that was killed goes on from its last report and computes
what it would have computed. All trials of one network start from one checkpoint, which was warmed up beyond
SimCC's initial plateau.
Nothing here knows Ray: `tune.py` calls it in the worker processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rtmpose.config import AugmentConfig, Params, with_values
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.stream import TrainStream
from rtmpose.files import UserError, append, locked
from rtmpose.fingerprint import fingerprint
from rtmpose.models import load_weights, save_tensors
from rtmpose.precision import refuse_emulation
from rtmpose.search.ledger import FIGURES, UNMEASURED, Report
from rtmpose.search.space import ARCHITECTURE, Point, resolved
from rtmpose.training.job import Job, build_task, open_stream, tuning_ap
from rtmpose.training.loop import check_split, from_rank0
from rtmpose.training.optim import learning_rate
from rtmpose.training.update import Task, Updater


@dataclass(frozen=True)
class Worker:
    """Where one of `world` workers of a trial computes, and which of them it is."""

    device: torch.device
    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class TrialSpec:
    """One trial as a worker gets it: its number, point and seed; `judged`, whether it may be stopped early;
    and `known`, how many of its reports the ledger has.
    """

    number: int
    point: Point
    seed: int
    judged: bool
    known: int = 0


def say(text: str) -> None:
    print(f"search    {text}", flush=True)


def search_device(params: Params) -> torch.device:
    """Where the warm-up and the trials compute, as `hardware.gpus_per_worker` says."""
    if not params.hardware.gpus_per_worker:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "params.yaml: hardware.gpus_per_worker: the search finds no CUDA device here; set it to 0"
        )
    return torch.device("cuda")


def trial_threads(params: Params) -> int:
    """A trial's share of one worker's CPUs."""
    return max(int(params.hardware.cpus_per_worker / params.search.concurrent), 1)


def report_steps(steps: int, reports: int) -> list[int]:
    """The updates after which to evaluate: the ends of `reports` equal shares of `steps`, such as 3, 7 and 10
    for three reports in ten steps.
    """
    reports = min(reports, steps)
    return [round(steps * (index + 1) / reports) for index in range(reports)]


def batches(stream: TrainStream, augment: AugmentConfig, steps: int, start: int = 0) -> Iterator[Batch]:
    """The batches of the updates from `start` to before `steps`, over as many epochs as that takes."""
    while start < steps:
        epoch, first = divmod(start, stream.steps_per_epoch)
        for batch in stream.epoch(epoch, augment, first):
            yield batch
            start += 1
            if start == steps:
                return


def updates(
    job: Job,
    task: Task,
    steps: int,
    worker: Worker,
    *,
    seed: int,
    decay: bool,
    state: dict[str, Any] | None = None,
) -> Iterator[tuple[int, Updater]]:
    """Train `task` for `steps` updates; yields (updates done, updater) after each.

    `decay` lowers the learning rate over the second half. `state` is what `snapshot` wrote in an earlier run
    of the same trial: training goes on from there.
    """
    params, train = job.params, job.train
    refuse_emulation(job.precision, params.hardware.precision, worker.device.type == "cuda")
    check_split(train, worker.world, "search.workers")
    seeded = params.model_copy(update={"seed": seed})
    stream = open_stream(seeded, train, job.mix, udp=task.codec.udp, rank=worker.rank, world=worker.world)
    task.model.train()
    optim = train.optim.model_copy(update={"warmup_steps": min(train.optim.warmup_steps, max(steps // 4, 1))})
    updater = Updater(
        task,
        device=worker.device,
        precision=job.precision,
        global_batch=train.batch_size,
        world=worker.world,
        weight_decay=params.model.weight_decay,
        optim=optim,
        ema_momentum=0.0,
        accumulate=train.accumulate,
        frozen=train.freeze,
    )
    if state is not None:
        task.model.load_state_dict(state["model"])
        updater.optimizer.load_state_dict(state["optimizer"])
    start = state["step"] if state is not None else 0
    for step, batch in enumerate(batches(stream, train.strong, steps, start), start):
        lr = learning_rate(
            step, optim=optim, epochs=2, steps_per_epoch=max(steps // 2, 1) if decay else steps
        )
        updater.step(batch, lr)
        yield step + 1, updater


def snapshot(path: Path, step: int, updater: Updater, **more: Any) -> None:
    """Write what `updates` needs to go on after `step` updates."""
    state = {
        "step": step,
        "model": updater.task.model.state_dict(),
        "optimizer": updater.optimizer.state_dict(),
    }
    save_tensors(path, state | more)


def read_snapshot(path: Path) -> dict[str, Any] | None:
    """What `snapshot` wrote, None where there is nothing."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def warm_up(job: Job, worker: Worker) -> Path:
    """Where all trials of the job's network start: the pretrained backbone after `warmup_steps` of SimCC
    training.

    The first trial that needs it trains it, with the recipe's values for everything but the network; other
    trials wait. A warm-up that was killed goes on from the last quarter that it had finished.
    """
    path = warm_file(job)
    part = path.with_suffix(".part")
    with locked(path.with_suffix(".lock")) if worker.rank == 0 else nullcontext():
        if from_rank0(path.exists(), worker.device, worker.world):
            return path
        task, steps = build_task(job), job.params.search.warmup_steps
        state, start = read_snapshot(part), time.perf_counter()
        first = state["step"] if state is not None else 0
        for step, updater in updates(
            job, task, steps, worker, seed=job.params.seed, decay=False, state=state
        ):
            if step in report_steps(steps, 4) and worker.rank == 0:
                seconds = time.perf_counter() - start
                rate = (step - first) * job.train.batch_size / seconds
                minutes, rest = divmod(int(seconds / (step - first) * (steps - step)), 60)
                note(
                    job.store,
                    f"warm-up step {step:6d}/{steps}  {rate:.0f} samples/s  {minutes}m{rest:02d}s left",
                )
                snapshot(part, step, updater)
        if worker.rank == 0:
            save_tensors(path, {key: value.cpu() for key, value in task.model.state_dict().items()})
            part.unlink(missing_ok=True)
        from_rank0(True, worker.device, worker.world)  # it is there before anybody reads it
    return path


def warm_file(job: Job) -> Path:
    """Where the trials of the job's network start."""
    shape = {name: getattr(job.params.model, name) for name in ARCHITECTURE}
    return job.store / f"warm-{fingerprint(**shape)}.pt"


def note(folder: Path, text: str) -> None:
    """Leave a line for the driver to print, since this worker may be on another machine."""
    append(folder / "notes.txt", f"{text}\n")


def trial_reports(spec: TrialSpec, job: Job, worker: Worker) -> Generator[Report]:
    """Train one point from the warmed-up network, and yield its reports; those that the ledger has already
    are left out.

    A trial that may not be stopped reports its end only. Rank 0 of several workers evaluates; the others'
    reports have no figures.
    """
    recipe, search = job.params, job.params.search
    params = with_values(recipe, resolved(recipe, spec.point))
    network = {name: getattr(params.model, name) for name in ARCHITECTURE}
    warm = warm_up(
        replace(job, params=recipe.model_copy(update={"model": recipe.model.model_copy(update=network)})),
        worker,
    )
    job = replace(job, params=params, tau=params.finetune.tau, sigma=params.finetune.sigma, init=None)
    task = build_task(job)
    load_weights(task.model, warm)
    evaluate = tuning_ap(job, task, worker.device)
    steps = max(round(search.trial_steps * recipe.finetune.batch_size / params.finetune.batch_size), 1)
    due = report_steps(steps, search.reports if spec.judged else 1)
    path = trial_file(job.store, spec.number)
    state = read_snapshot(path)
    reports: list[Report] = state["reports"] if state is not None else []
    yield from reports[spec.known :]
    for step, updater in updates(
        job, task, steps, worker, seed=recipe.seed + 1 + spec.seed, decay=True, state=state
    ):
        if step in due:
            figures = evaluate(updater.task.model) if worker.rank == 0 else {}
            updater.task.model.train()
            updater.keep_frozen_in_eval()
            last = step == steps
            # The last report has the same number in every trial, however many came before.
            index = search.reports if last else len(reports) + 1
            finite = {
                key: float(figures[key]) for key in FIGURES if math.isfinite(figures.get(key, math.nan))
            }
            unknown: Report = {} if "AP" in finite or worker.rank > 0 else {UNMEASURED: True}
            reports.append({"report": index, "step": step, "AP": 0.0} | unknown | finite)
            if not last and worker.rank == 0:
                snapshot(path, step, updater, reports=reports)
            if len(reports) > spec.known:
                yield reports[-1]


def trial_file(folder: Path, number: int | str) -> Path:
    """An unfinished trial at its last report."""
    return folder / f"trial-{number}.pt"
