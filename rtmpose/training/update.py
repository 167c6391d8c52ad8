"""One update: encode targets on the device, forward under autocast, loss summed over the global batch and divided by its size
(`optim` says how that relates to the reference), AdamW, EMA.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rtmpose.config import OptimParams, Precision
from rtmpose.data.stream import Batch
from rtmpose.losses import heatmap_mse_loss, simcc_kl_loss
from rtmpose.models import normalise
from rtmpose.targets import Codec, SimCC, UDPHeatmap
from rtmpose.training.optim import Ema, adamw


@dataclass(frozen=True)
class Task:
    """What is learned: a network, the codec of its targets, and a loss that is summed over the batch."""

    model: nn.Module
    codec: Codec
    loss: Callable[[Any, Any, Tensor], Tensor]


def simcc_task(model: nn.Module, codec: SimCC, tau: float) -> Task:
    """SimCC finetuning: KL between softened targets and predictions, β = 1/τ (RTMPose section 3.3.1)."""
    return Task(model, codec, lambda output, target, weight: simcc_kl_loss(output, target, weight, beta=1.0 / tau))


def heatmap_task(model: nn.Module, codec: UDPHeatmap) -> Task:
    """UDP heatmap pretraining: weighted squared error, a mean over points and pixels and a sum over the batch."""
    return Task(model, codec, lambda output, target, weight: heatmap_mse_loss(output, target, weight) * len(weight))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """bf16 autocast on the device, or nothing for fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def at_least_float32(output: Tensor) -> Tensor:
    """Losses are summed in float32, or in float64 where the network is."""
    return output.to(torch.promote_types(output.dtype, torch.float32))


class Updater:
    """Applies one update after another to a task's network. `global_batch` is the divisor of the summed loss."""

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
    ) -> None:
        self.task, self.device, self.precision = task, device, precision
        self.scale = world / global_batch  # DDP averages over ranks, the loss is a sum over the global batch
        self.clip = optim.clip_grad
        self.optimizer = adamw(task.model, lr=optim.lr, weight_decay=weight_decay)
        self.ema = Ema(task.model, momentum=ema_momentum, gamma=optim.ema_gamma)
        self.forward: nn.Module = (
            task.model if world == 1 else nn.parallel.DistributedDataParallel(task.model, broadcast_buffers=False)
        )

    def loss(self, images: Tensor, keypoints: Tensor, visible: Tensor) -> Tensor:
        """Loss of normalised images (B, 3, H, W), summed over the batch; labels (B, K, 2) px and (B, K)."""
        with torch.no_grad():
            targets, weights = self.task.codec.encode(keypoints, visible)
        with autocast(self.device, self.precision):
            output = self.forward(images)
        output = tuple(map(at_least_float32, output)) if isinstance(output, tuple) else at_least_float32(output)
        return self.task.loss(output, targets, weights)

    def batch_loss(self, batch: Batch) -> Tensor:
        """Loss of a batch as it comes from the stream, on the device."""
        images = normalise(batch.images.to(self.device, non_blocking=True))
        keypoints = batch.keypoints.to(self.device, non_blocking=True)
        return self.loss(images, keypoints, batch.weights.to(self.device, non_blocking=True))

    def step(self, batch: Batch, lr: float) -> Tensor:
        """One update at rate `lr`; returns this rank's summed loss without waiting for the device."""
        loss = self.batch_loss(batch)
        self.apply(loss * self.scale, lr)
        return loss.detach()

    def apply(self, loss: Tensor, lr: float) -> None:
        """Backward, clip, AdamW, EMA."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.task.model.parameters(), self.clip)
        self.optimizer.step()
        self.ema.update(self.task.model)
