"""AdamW groups, the learning-rate schedule and the exponential moving average of RTMPose's recipe (section 3.3).

**One convention for the loss.** Ours is summed over the global batch and divided by its size B. The reference sums over one
device's batch (256 in the published settings) and averages over devices: its gradients are 256 times ours. Adam's update
does not change under a common factor as long as its epsilon changes with it, hence `ADAM_EPS`; a clipping value of the
reference (35 in some configurations) means 35 / 256 = 0.137 here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from rtmpose.config import OptimParams

REFERENCE_DEVICE_BATCH = 256
ADAM_EPS = 1e-8 / REFERENCE_DEVICE_BATCH


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two AdamW groups: everything decayed except normalisation layers' parameters and every `bias`.

    ScaleNorm's `g`, the GAU's `gamma` and `beta` and the residual `scale` are decayed, as the reference does.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in model.modules():
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (free if is_norm or name == "bias" else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def adamw(model: nn.Module, *, lr: float, weight_decay: float, eps: float = ADAM_EPS) -> torch.optim.AdamW:
    """AdamW (β 0.9, 0.999) over `parameter_groups`, with the fused kernel where there is one."""
    fused = all(p.dtype in (torch.float32, torch.float64) for p in model.parameters())
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=(0.9, 0.999), eps=eps, fused=fused)


def learning_rate(step: int, *, optim: OptimParams, epochs: int, steps_per_epoch: int) -> float:
    """Rate that update `step` (from 0) runs at: linear warm-up, flat for half of the epochs, then cosine to the end.

    The warm-up reaches the full rate at its last step, so its denominator is `warmup_steps - 1`.
    """
    base, total, flat = optim.lr, epochs * steps_per_epoch, (epochs // 2) * steps_per_epoch
    if step < optim.warmup_steps:
        share = step / max(optim.warmup_steps - 1, 1)
        return base * (optim.warmup_start + (1.0 - optim.warmup_start) * share)
    if step < flat:
        return base
    phase = min((step - flat) / max(total - flat, 1), 1.0)
    return base * (optim.final_lr + 0.5 * (1.0 - optim.final_lr) * (1.0 + math.cos(math.pi * phase)))


def ema_momentum(update: int, momentum: float, gamma: float) -> float:
    """Share of the source at update `update` (>= 1): near 1 at first, `momentum` in the end."""
    return (1.0 - momentum) * math.exp(-(1.0 + update) / gamma) + momentum


class Ema:
    """Moving average of a whole state dict, batch-norm statistics included; integer buffers keep their first value.

    The first update copies; update s >= 1 mixes in `ema_momentum(s)` of the source. `momentum` 0 keeps a plain copy.
    """

    def __init__(self, model: nn.Module, *, momentum: float, gamma: float) -> None:
        self.momentum, self.gamma, self.updates = momentum, gamma, 0
        self.state = {key: value.detach().clone() for key, value in model.state_dict().items()}
        self._floating = [key for key, value in self.state.items() if value.is_floating_point()]
        self._average = [self.state[key] for key in self._floating]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        source = model.state_dict()
        if self.updates == 0 or self.momentum == 0:
            keys: Iterable[str] = source if self.updates == 0 else self._floating
            for key in keys:
                self.state[key].copy_(source[key])
        else:
            new: list[Tensor] = [source[key] for key in self._floating]
            torch._foreach_lerp_(self._average, new, ema_momentum(self.updates, self.momentum, self.gamma))
        self.updates += 1

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Take over the averages and the update count of a checkpoint."""
        for key, value in state.items():
            self.state[key].copy_(value)
        self.updates = updates
