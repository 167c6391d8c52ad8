"""The training loop. It takes a rank, a stream of batches, a store and two callbacks, and knows no Ray.

A run depends on its parameters and seed alone. It can be killed after any update, and goes on from its last
checkpoint. The host reads what happened on the device every `log_steps` updates.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rtmpose.config import AugmentConfig, Precision, TrainParams
from rtmpose.data.stream.batch import Batch
from rtmpose.files import UserError
from rtmpose.training.checkpoint import Store
from rtmpose.training.guard import KEPT_BATCHES, Recent, Step
from rtmpose.training.optim import learning_rate
from rtmpose.training.update import Task, Updater


class Stream(Protocol):
    """Where batches come from: of shards (`rtmpose.data.stream`), or of whole photographs for detectors."""

    steps_per_epoch: int

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_step` on, the same whenever it is asked for."""
        ...

    def refuse_stronger(self, augment: AugmentConfig) -> None:
        """UserError for an augmentation that the stored data cannot give."""
        ...


class Restraint(Protocol):
    """How training holds a network's weights back: by decay, and by an average (EMA)."""

    @property
    def weight_decay(self) -> float: ...

    @property
    def ema_momentum(self) -> float: ...


class Meter:
    """Means over the updates since the last reading; skipped ones are left out. The device is read only then.

    `batch` is the size of the global batch: losses are divided by it, and samples are counted in it. `totals`
    (3,), None after a reading, goes into checkpoints, so that a resumed run reports the same loss. The rates
    are those of this process.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.restart()

    def restart(self) -> None:
        self.totals: Tensor | None = None  # loss, gradient norm, updates
        self.updates, self.waited, self.since = 0, 0.0, time.perf_counter()

    def add(self, done: Step, waited: float) -> None:
        figures = torch.stack([done.loss, done.grad_norm.to(done.loss.dtype), torch.ones_like(done.loss)])
        figures = figures.masked_fill(done.skipped, 0.0)
        self.totals = figures if self.totals is None else self.totals + figures
        self.updates += 1
        self.waited += waited

    def read(self) -> dict[str, float]:
        """Loss per sample, gradient norm before clipping (NaN where all updates were skipped), samples/s,
        share of the time that this process waited for data (on a GPU, which works on behind it, an upper
        bound of what the device waited).
        """
        assert self.totals is not None
        seconds = time.perf_counter() - self.since
        loss, norm, good = self.totals.tolist()
        report = {
            "loss": loss / (good * self.batch) if good else math.nan,
            "grad_norm": norm / good if good else math.nan,
            "samples_per_s": self.updates * self.batch / seconds,
            "data_wait": self.waited / seconds,
        }
        self.restart()
        return report


def memory(device: torch.device) -> dict[str, float]:
    """Resident memory of this process and, where there is one, the most that CUDA tensors took; GB."""
    report = {"memory_gb": psutil.Process().memory_info().rss / 1e9}
    return report | (
        {"cuda_gb": torch.cuda.max_memory_allocated(device) / 1e9} if device.type == "cuda" else {}
    )


def prefetched(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches, copied to a CUDA device while it still computes the update before; on a CPU as
    they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    copies, compute = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    for batch in batches:
        with torch.cuda.stream(copies):
            images, keypoints, weights = (rows.to(device, non_blocking=True) for rows in batch[:3])
        compute.wait_stream(copies)
        for rows in (images, keypoints, weights):
            # Without this its memory could be handed out again while an update still reads it.
            rows.record_stream(compute)
        yield Batch(images, keypoints, weights, batch.keys, batch.damaged)


def timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that were spent waiting for it."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - start


def from_rank0(decision: bool, device: torch.device, world: int) -> bool:
    """Rank 0's `decision`, on each of `world` ranks; they wait for it."""
    flag = torch.tensor(int(decision), device=device)
    if world > 1:
        dist.broadcast(flag, src=0)
    return bool(flag)


def check_split(params: TrainParams, world: int, workers: str = "hardware.workers") -> None:
    """UserError where a batch has fewer rows than `world` workers with `accumulate` parts each; `workers`
    names their key.
    """
    if params.batch_size // world < params.accumulate:
        raise UserError(
            f"params.yaml: batch_size {params.batch_size} is too small for {workers} {world} x accumulate "
            f"{params.accumulate}: every part needs a sample; raise it or lower one of the two"
        )


@dataclass
class Position:
    """Where a run is: updates done, the best AP so far with its error and epoch, and whether it was stopped
    because its patience ran out.
    """

    step: int = 0
    best_ap: float = -2.0  # pycocotools says -1 where there is nothing to measure
    best_error: float = math.inf
    best_epoch: int = 0
    best_sha256: str = ""
    stopped: bool = False


def is_better(metrics: Mapping[str, float], best: Position) -> bool:
    """Whether an evaluation beats the best so far: by its AP, then by its mean keypoint error, since AP is 0
    for long at first.

    An AP that is NaN beats nothing, and an error that is NaN no other. AP is -1 where the tuning split holds
    nobody: then the newest weights are the best.
    """
    ap, error = metrics["AP"], metrics.get("error", math.inf)
    if ap < 0 and best.best_ap <= ap:
        return True
    return (ap, -math.inf if math.isnan(error) else -error) > (best.best_ap, -best.best_error)


def _unmeasured(ap: float) -> str:
    """Why an AP tells nothing."""
    if math.isnan(ap):
        return "AP on the tuning split is not a number, these weights are not chosen"
    return (
        "AP on the tuning split is -1, it holds no person with labelled points: the newest weights are kept"
    )


class Run:
    """A training run over `params.epochs` epochs, resumed from `store` when it holds a checkpoint.

    `rank` of `world` workers: more than one need the default process group. UserError for more workers or
    `accumulate` parts than a batch has rows, and when updates go wrong one after another.
    """

    def __init__(
        self,
        task: Task,
        stream: Stream,
        store: Store,
        *,
        params: TrainParams,
        model_params: Restraint,
        evaluate: Callable[[nn.Module], dict[str, float]],
        report: Callable[[dict[str, Any]], None],
        epoch_done: Callable[[dict[str, Any]], None],
        device: torch.device,
        precision: Precision,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.stream, self.store, self.params = stream, store, params
        self.evaluate, self.report, self.epoch_done = evaluate, report, epoch_done
        self.rank, self.world = rank, world
        check_split(params, world)
        for augment in {params.strong, params.weak}:  # now, not after hundreds of epochs
            stream.refuse_stronger(augment)
        self.updater = Updater(
            task,
            device=device,
            precision=precision,
            global_batch=params.batch_size,
            world=world,
            weight_decay=model_params.weight_decay,
            optim=params.optim,
            ema_momentum=model_params.ema_momentum,
            accumulate=params.accumulate,
            frozen=params.freeze,
            compile=params.compile,
        )
        self.position, self.meter = Position(), Meter(params.batch_size)
        # Updates are judged on the device and read every `log_steps`: the samples of those in a row are kept
        # until then.
        self.recent = Recent(max(KEPT_BATCHES, params.log_steps + params.max_bad_updates))
        self.started = time.perf_counter()
        self._restore()
        self.first_step = self.position.step

    def _restore(self) -> None:
        state = self.store.load()
        if state is None:
            return
        before, now = state["precision"], self.updater.precision
        if before != now:
            raise UserError(
                f"{self.store.folder}: this run has computed in {before} so far and cannot go on in {now}; "
                f"set hardware.precision: {before}, or delete the folder to start anew"
            )
        self.updater.task.model.load_state_dict(state["model"])
        self.updater.ema.load(state["ema"], state["ema_updates"])
        self.updater.optimizer.load_state_dict(state["optimizer"])
        self.updater.guard.counts.copy_(state["guard"])
        if state["meter"] is not None:
            self.meter.totals = state["meter"].to(self.updater.device)
        torch.set_rng_state(state["rng"])
        self.position = Position(**state["position"])
        if self.rank == 0 and self.position.best_sha256 and not self.store.best_is(self.position.best_sha256):
            # Written after this checkpoint, or damaged. The evaluations that follow choose anew; those that
            # are only repeated come to the same choice, since what was written later was better.
            self.position.best_ap, self.position.best_error = Position.best_ap, Position.best_error

    def _save(self) -> None:
        self._stop_if_bad()
        if self.rank == 0:
            self.store.save(
                {
                    "step": self.position.step,
                    "precision": self.updater.precision,
                    "position": vars(self.position),
                    "model": self.updater.task.model.state_dict(),
                    "ema": self.updater.ema.state,
                    "ema_updates": self.updater.ema.updates,
                    "optimizer": self.updater.optimizer.state_dict(),
                    "guard": self.updater.guard.counts,
                    "meter": self.meter.totals,
                    "rng": torch.get_rng_state(),
                }
            )

    def train(self) -> Position:
        """All epochs that are left; the best weights by AP lie in the store afterwards."""
        params, steps = self.params, self.stream.steps_per_epoch
        for epoch in range(self.position.step // steps, params.epochs):
            if self.position.stopped:
                break
            self._epoch(epoch, self.position.step - epoch * steps)
            if (epoch + 1) % params.evaluate_every == 0 or epoch + 1 == params.epochs:
                if self.rank == 0:
                    self._evaluate(epoch)
                if params.patience is not None and epoch + 1 < params.epochs:
                    patient = epoch + 1 - self.position.best_epoch < params.patience
                    self.position.stopped = not from_rank0(patient, self.updater.device, self.world)
            self._save()
            self.epoch_done(vars(self.position) | {"epoch": epoch + 1})
        return self.position

    def _epoch(self, epoch: int, start_step: int) -> None:
        params, steps = self.params, self.stream.steps_per_epoch
        if (guide := self.updater.task.guide) is not None:
            guide.begin_epoch(epoch, params.epochs)
        augment = params.weak if epoch >= params.epochs - params.weak_epochs else params.strong
        batches = prefetched(self.stream.epoch(epoch, augment, start_step), self.updater.device)
        for batch, waited in timed(batches):
            lr = learning_rate(
                self.position.step, optim=params.optim, epochs=params.epochs, steps_per_epoch=steps
            )
            done = self.updater.step(batch, lr)
            self.meter.add(done, waited)
            self.position.step += 1
            step = self.position.step
            self.store.note_damaged(step, batch.damaged)
            self.recent.add(step, done, batch.keys)
            if step % params.log_steps == 0 or step % steps == 0:
                self._stop_if_bad()
                if self.rank == 0:
                    self.report(self._status(lr) | self.meter.read())
            if params.checkpoint_steps and step % params.checkpoint_steps == 0 and step % steps:
                self._save()

    def _stop_if_bad(self) -> None:
        limit = self.params.max_bad_updates
        if int(self.updater.guard.counts[2]) >= limit:  # the same on every rank
            raise self.recent.error_after(self.store.folder / f"bad_batches.rank{self.rank}.json", limit)

    def _status(self, lr: float) -> dict[str, Any]:
        step, total = self.position.step, self.params.epochs * self.stream.steps_per_epoch
        seconds = time.perf_counter() - self.started
        left = seconds / max(step - self.first_step, 1) * (total - step)
        return {
            "step": step,
            "steps": total,
            "epoch": step / self.stream.steps_per_epoch,
            "lr": lr,
            "best_AP": self.position.best_ap,
            "damaged_samples": self.store.damaged(),
            "skipped_updates": int(self.updater.guard.counts[0]),
            "seconds_left": left,
        } | memory(self.updater.device)

    def _evaluate(self, epoch: int) -> None:
        model = copy.deepcopy(self.updater.task.model)
        model.load_state_dict(self.updater.ema.state)
        metrics = self.evaluate(model)
        if not metrics["AP"] >= 0:
            self.store.warn(f"epoch {epoch + 1}: {_unmeasured(metrics['AP'])}")
        if is_better(metrics, self.position):
            error = metrics.get("error", math.inf)
            self.position.best_ap, self.position.best_epoch = metrics["AP"], epoch + 1
            self.position.best_error = math.inf if math.isnan(error) else error
            self.position.best_sha256 = self.store.save_best(self.updater.averaged())
        self.report({"step": self.position.step, "best_AP": self.position.best_ap} | metrics)
        self.meter.restart()
