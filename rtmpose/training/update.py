"""One update: encode targets on the device, forward under autocast, loss summed over the global batch and
divided by its size (`optim` says how that relates to the reference), AdamW, EMA. However the batch is split
among workers, the update is the same.

Nothing here waits for the device: what a step did comes back as tensors, and a bad one is undone where it
happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rtmpose.data.stream.batch import Batch
from rtmpose.losses import heatmap_mse_loss, simcc_kl_loss
from rtmpose.models import autocast, normalise
from rtmpose.targets import SimCC, UDPHeatmap, at_least_float32
from rtmpose.training.guard import Guard, Step
from rtmpose.training.malloc import keep_freed_memory
from rtmpose.training.optim import ADAM_EPS, MEAN_EPS, Ema, adamw, freeze, loss_scale, update_unless
from rtmpose.training.sync_bn import synchronise_batch_norm

if TYPE_CHECKING:
    from rtmpose.config import OptimParams, Precision


class Encoder(Protocol):
    """How what is labelled becomes what the network is to give."""

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Any, Tensor]:
        """Points (B, K, 2) px and weights (B, K) -> targets and their weights, as the loss takes them."""
        ...


class Guide(Protocol):
    """What a network learns from besides labels, such as another network."""

    def to(self, device: torch.device) -> None:
        """Move to where the network is trained."""
        ...

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Epoch `epoch` (from 0) of `epochs` begins."""
        ...

    def lesson(self, images: Tensor) -> Any:
        """What it makes of normalised images (N, 3, H, W); the loss then gets (targets, lesson)."""
        ...


Code = TypeVar("Code", bound=Encoder)


@dataclass(frozen=True)
class Task(Generic[Code]):
    """What is learned: a network, its targets' codec, a loss that is summed over the batch, and AdamW's
    epsilon for it. Weights whose names begin with `only_training` serve the training alone.
    """

    model: nn.Module
    codec: Code
    loss: Callable[[Any, Any, Tensor], Tensor]
    eps: float = ADAM_EPS
    guide: Guide | None = None
    only_training: str | None = None


def simcc_task(model: nn.Module, codec: SimCC, tau: float) -> Task:
    """SimCC finetuning: KL between softened targets and predictions, β = 1/τ (RTMPose section 3.3.1)."""
    return Task(
        model, codec, lambda output, target, weight: simcc_kl_loss(output, target, weight, beta=1.0 / tau)
    )


def heatmap_task(model: nn.Module, codec: UDPHeatmap) -> Task:
    """UDP heatmap pretraining: weighted squared error, a mean over points and pixels and a sum over the
    batch.
    """
    return Task(
        model,
        codec,
        lambda output, target, weight: heatmap_mse_loss(output, target, weight) * len(weight),
        MEAN_EPS,
    )


class Updater:
    """Applies one update after another to a task's network, which it moves to `device` and trains
    channels-last.

    `global_batch` is the divisor of the summed loss; of its rows this one of `world` workers gets its share,
    which it passes through the network in `accumulate` parts. `frozen` and `compile`: see `TrainParams`.
    """

    def __init__(
        self,
        task: Task,
        *,
        device: torch.device,
        precision: Precision,
        global_batch: int,
        world: int = 1,
        weight_decay: float,
        optim: OptimParams,
        ema_momentum: float,
        accumulate: int = 1,
        frozen: Sequence[str] = (),
        compile: bool = False,
    ) -> None:
        self.task, self.device, self.precision, self.world = task, device, precision, world
        self.scale, self.clip, self.accumulate = loss_scale(global_batch, world), optim.clip_grad, accumulate
        keep_freed_memory(device)
        task.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if task.guide is not None:
            task.guide.to(device)
        if world > 1:
            synchronise_batch_norm(task.model, device)
        self.frozen_modules = freeze(task.model, frozen)
        self.keep_frozen_in_eval()
        self.optimizer = adamw(task.model, optim, weight_decay, task.eps)
        self.parameters = [
            parameter for group in self.optimizer.param_groups for parameter in group["params"]
        ]
        self.ema = Ema(task.model, momentum=ema_momentum, gamma=optim.ema_gamma)
        self.guard = Guard(task.model, device)
        self.parallel = (
            nn.parallel.DistributedDataParallel(task.model, forward_sync_buffers=False) if world > 1 else None
        )
        self.forward: Callable[[Tensor], Any] = self.parallel or task.model
        if compile:
            self.forward = torch.compile(self.forward)

    def keep_frozen_in_eval(self) -> None:
        """Put frozen modules in evaluation mode; `model.train()` undoes it, so call this after that."""
        for module in self.frozen_modules:
            module.eval()

    def averaged(self) -> dict[str, Tensor]:
        """The average (EMA) of all weights that the network keeps when it is trained."""
        extra = self.task.only_training
        return {k: v for k, v in self.ema.state.items() if extra is None or not k.startswith(extra)}

    def loss(self, images: Tensor, keypoints: Tensor, visible: Tensor) -> Tensor:
        """Loss of normalised images (B, 3, H, W), summed over the batch; labels (B, K, 2) px and (B, K)."""
        with torch.no_grad():
            targets, weights = self.task.codec.encode(keypoints, visible)
        with autocast(self.device.type, self.precision):
            output = self.forward(images)
            if self.task.guide is not None:
                targets = targets, self.task.guide.lesson(images)
        output = (
            tuple(map(at_least_float32, output)) if isinstance(output, tuple) else at_least_float32(output)
        )
        return self.task.loss(output, targets, weights)

    def batch_loss(self, batch: Batch) -> Tensor:
        """Loss of a batch as it comes from the stream, on the device."""
        images = normalise(batch.images.to(self.device, non_blocking=True))
        keypoints = batch.keypoints.to(self.device, non_blocking=True)
        return self.loss(images, keypoints, batch.weights.to(self.device, non_blocking=True))

    def step(self, batch: Batch, lr: float) -> Step:
        """One update on a batch as it comes from the stream, at rate `lr`, without waiting for the device."""
        parts = zip(*(rows.tensor_split(self.accumulate) for rows in batch[:3]), strict=True)
        batches = (Batch(images, keypoints, weights, [], []) for images, keypoints, weights in parts)
        return self.update((partial(self.batch_loss, part) for part in batches), lr)

    def update(self, losses: Iterable[Callable[[], Tensor]], lr: float) -> Step:
        """One update on the sum of `accumulate` losses, each computed when the one before has been propagated
        back; where loss or gradient is not finite, nothing changes.
        """
        before = self.guard.buffers()
        self.optimizer.zero_grad(set_to_none=True)
        done = []
        for number, compute in enumerate(losses, 1):
            with self.parallel.no_sync() if self.parallel and number < self.accumulate else nullcontext():
                loss = compute()
                (loss * self.scale).backward()
            done.append(loss.detach())
        total = torch.stack(done).sum()
        if self.world > 1:
            dist.all_reduce(total)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        skipped = self.guard.judge(total, norm, before)
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        update_unless(skipped, self.optimizer, lr)
        self.ema.update(skipped)
        return Step(total, norm, skipped)
