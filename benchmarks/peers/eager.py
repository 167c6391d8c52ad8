"""The usual way to train our network on a GPU, which ours stands beside."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rtmpose.data.stream.batch import Batch
from rtmpose.models import autocast, normalise
from rtmpose.targets import at_least_float32
from rtmpose.training.optim import adamw, ema_momentum
from rtmpose.training.update import Task

if TYPE_CHECKING:
    from rtmpose.config import OptimParams


class Eager:
    """The same network trained the usual way: NCHW, AdamW unfused, float32 on a CPU and float16 with a scaler
    on a GPU, EMA tensor by tensor. Stands for MMPose where its environment cannot be set up.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        *,
        global_batch: int,
        weight_decay: float,
        momentum: float,
        optim: OptimParams,
    ) -> None:
        self.task, self.device, self.scale = task, device, 1.0 / global_batch
        self.momentum, self.gamma = momentum, optim.ema_gamma
        self.half = device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half)
        groups = adamw(task.model, optim, weight_decay).param_groups
        self.optimizer = torch.optim.AdamW(
            [{key: group[key] for key in ("params", "weight_decay")} for group in groups]
        )
        self.average, self.updates = copy.deepcopy(task.model.state_dict()), 0

    def step(self, batch: Batch, lr: float) -> Tensor:
        images = normalise(batch.images.to(self.device)).contiguous()
        targets, weights = self.task.codec.encode(
            batch.keypoints.to(self.device), batch.weights.to(self.device)
        )
        with autocast(self.device.type, "fp16" if self.half else "fp32"):
            output = tuple(map(at_least_float32, self.task.model(images)))
        loss = self.task.loss(output, targets, weights)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        self.scaler.scale(loss * self.scale).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        self.updates += 1
        share = ema_momentum(self.updates, self.momentum, self.gamma)
        for key, value in self.task.model.state_dict().items():
            if value.is_floating_point():
                self.average[key].mul_(1.0 - share).add_(value, alpha=share)
