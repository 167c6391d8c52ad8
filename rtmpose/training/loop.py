"""The training loop: takes a rank, a stream of batches, a store and two callbacks; knows no Ray.

A run is a function of its parameters and seed alone: it can
be killed after any update and goes on from its last checkpoint.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rtmpose.config import ModelParams, Precision, TrainParams
from rtmpose.data.stream import Batch, TrainStream
from rtmpose.training.checkpoint import Store
from rtmpose.training.optim import learning_rate
from rtmpose.training.update import Task, Updater


class Meter:
    """Loss, rate and data-wait since the last reading; the loss is read from the device only then."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.samples, self.waited, self.since = 0, 0.0, time.perf_counter()

    def add(self, loss: Tensor, samples: int, waited: float) -> None:
        self.total = loss if self.total is None else self.total + loss
        self.samples += samples
        self.waited += waited

    def read(self) -> dict[str, float]:
        assert self.total is not None
        seconds = time.perf_counter() - self.since
        report = {
            "loss": float(self.total) / self.samples,
            "samples_per_s": self.samples / seconds,
            "data_wait": self.waited / seconds,
        }
        self.__init__()  # type: ignore[misc]
        return report


def timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that were spent waiting for it."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - start


@dataclass
class Position:
    """Where a run is: updates done, and the best AP so far with its epoch."""

    step: int = 0
    best_ap: float = -2.0  # pycocotools says -1 where there is nothing to measure
    best_epoch: int = -1


class Run:
    """A training run over `params.epochs` epochs, resumed from `store` when it holds a checkpoint."""

    def __init__(
        self,
        task: Task,
        stream: TrainStream,
        store: Store,
        *,
        params: TrainParams,
        model_params: ModelParams,
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
        self.rank = rank
        task.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if world > 1 and device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(task.model)
        self.updater = Updater(
            task,
            device=device,
            precision=precision,
            global_batch=params.batch_size,
            world=world,
            weight_decay=model_params.weight_decay,
            optim=params.optim,
            ema_momentum=model_params.ema_momentum,
        )
        self.position, self.meter = Position(), Meter()
        self.started = time.perf_counter()
        self._restore()
        self.first_step = self.position.step

    def _restore(self) -> None:
        state = self.store.load()
        if state is None:
            return
        self.updater.task.model.load_state_dict(state["model"])
        self.updater.ema.load(state["ema"], state["ema_updates"])
        self.updater.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        self.position = Position(**state["position"])

    def _save(self) -> None:
        if self.rank == 0:
            self.store.save(
                {
                    "step": self.position.step,
                    "position": vars(self.position),
                    "model": self.updater.task.model.state_dict(),
                    "ema": self.updater.ema.state,
                    "ema_updates": self.updater.ema.updates,
                    "optimizer": self.updater.optimizer.state_dict(),
                    "rng": torch.get_rng_state(),
                }
            )

    def train(self) -> Position:
        """All epochs that are left; the best weights by AP lie in the store afterwards."""
        steps = self.stream.steps_per_epoch
        for epoch in range(self.position.step // steps, self.params.epochs):
            self._epoch(epoch, self.position.step - epoch * steps)
            if self.rank == 0 and ((epoch + 1) % self.params.evaluate_every == 0 or epoch + 1 == self.params.epochs):
                self._evaluate(epoch)
            self._save()
            self.epoch_done(vars(self.position) | {"epoch": epoch + 1})
        return self.position

    def _epoch(self, epoch: int, start_step: int) -> None:
        params, steps = self.params, self.stream.steps_per_epoch
        augment = params.weak if epoch >= params.epochs - params.weak_epochs else params.strong
        for batch, waited in timed(self.stream.epoch(epoch, augment, start_step)):
            lr = learning_rate(self.position.step, optim=params.optim, epochs=params.epochs, steps_per_epoch=steps)
            loss = self.updater.step(batch, lr)
            self.meter.add(loss, len(batch.images), waited)
            self.store.note_damaged(batch.damaged)
            self.position.step += 1
            step = self.position.step
            if self.rank == 0 and (step % params.log_steps == 0 or step % steps == 0):
                self.report(self._status(lr) | self.meter.read())
            if params.checkpoint_steps and step % params.checkpoint_steps == 0 and step % steps:
                self._save()

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
            "seconds_left": left,
        }

    def _evaluate(self, epoch: int) -> None:
        model = copy.deepcopy(self.updater.task.model)
        model.load_state_dict(self.updater.ema.state)
        metrics = self.evaluate(model)
        if metrics["AP"] > self.position.best_ap:
            self.position.best_ap, self.position.best_epoch = metrics["AP"], epoch + 1
            self.store.save_best(self.updater.ema.state)
        self.report({"step": self.position.step, "best_AP": self.position.best_ap} | metrics)
        self.meter = Meter()
