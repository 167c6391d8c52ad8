"""AdamW groups, the learning-rate schedule and the exponential moving average of RTMPose's recipe (section
3.3).

**One convention for the loss.** Ours is summed over the global batch and divided by its size B. The
reference's SimCC loss is summed over one device's batch (256 in the published settings) and averaged over
devices, so its gradients are 256 times ours. Adam's update does not change under a common factor as long as
its epsilon changes with it, hence `ADAM_EPS`. A clipping value of the reference (35 in some configurations)
means 35 / 256 = 0.137 here, `optim.clip_grad` in the parameters. `loss_scale` is where the convention becomes
a number. The reference's heatmap loss is a mean over the batch, as ours is: pretraining keeps its epsilon,
`MEAN_EPS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import unwrap
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rtmpose.files import UserError

if TYPE_CHECKING:
    from rtmpose.config import OptimParams

REFERENCE_DEVICE_BATCH = 256
MEAN_EPS = 1e-8  # AdamW's epsilon for a loss that is a mean in the reference, too
ADAM_EPS = MEAN_EPS / REFERENCE_DEVICE_BATCH
# Epochs of MMPose's heatmap and SimCC baselines, of so many in all; here they are shares of any run.
MILESTONES, MILESTONE_EPOCHS = (170, 200), 210


def loss_scale(global_batch: int, world: int) -> float:
    """What a worker multiplies its summed loss by before the backward pass.

    The update's loss is Σ over all workers / `global_batch`; DistributedDataParallel makes a mean over
    `world` workers of what is to be a sum, hence `world`.
    """
    return world / global_batch


def freeze(model: nn.Module, beginnings: Sequence[str]) -> list[nn.Module]:
    """Stop training all weights whose state-dict keys start with one of `beginnings`; returns the modules
    that are frozen as a whole, whose batch norm is to keep its statistics. UserError for a beginning of no
    key, or when nothing is left to train.
    """
    for beginning in beginnings:
        if not any(key.startswith(beginning) for key in model.state_dict()):
            raise UserError(
                f"params.yaml: freeze: no weight of the network begins with {beginning!r}; see its "
                "state-dict keys"
            )
    for name, parameter in model.named_parameters():
        if name.startswith(tuple(beginnings)):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"params.yaml: freeze: {list(beginnings)} leaves nothing to train")
    return [module for name, module in model.named_modules() if f"{name}.".startswith(tuple(beginnings))]


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_norms: bool = False
) -> list[dict[str, object]]:
    """Two AdamW groups: everything decayed except (unless `decay_norms`) normalisation layers' parameters and
    every `bias`.

    ScaleNorm's `g`, the GAU's `gamma` and `beta` and the residual `scale` are decayed, as the reference does.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in model.modules():
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (free if not decay_norms and (is_norm or name == "bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


class _AdamW(torch.optim.AdamW):
    """PyTorch's AdamW, its methods without their wrappers, which import PyTorch's compiler to keep it out.

    That takes two seconds at the start of a run by one worker; several import it with
    DistributedDataParallel. No optimizer is compiled or differentiated here.
    """

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def adamw(
    model: nn.Module, optim: OptimParams, weight_decay: float, eps: float = ADAM_EPS
) -> torch.optim.AdamW:
    """AdamW (β 0.9, 0.999) over `parameter_groups`, as one kernel per group of tensors, on CPUs too."""
    groups = parameter_groups(model, weight_decay, optim.decay_norms)
    return _AdamW(groups, lr=optim.lr, betas=(0.9, 0.999), eps=eps, fused=True)


def update_unless(skipped: Tensor, optimizer: torch.optim.AdamW, lr: float) -> None:
    """One AdamW update at rate `lr`; where `skipped` () is true, parameters, moments and step counts stay as
    they were.

    The fused kernel reads that from the device. `found_inf` is the name it has for mixed precision's loss
    scaling.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
    optimizer.step()


def learning_rate(step: int, *, optim: OptimParams, epochs: int, steps_per_epoch: int) -> float:
    """Rate that update `step` (from 0) runs at: linear warm-up, flat for `optim.flat` of the epochs (whole
    ones), then cosine to the end; or with `optim.schedule: step` a tenth and a hundredth of the full rate
    behind `MILESTONES`.

    The warm-up reaches the full rate at its last step, so its denominator is `warmup_steps - 1`.
    """
    base, total, flat = optim.lr, epochs * steps_per_epoch, int(epochs * optim.flat) * steps_per_epoch
    if step < optim.warmup_steps:
        share = step / max(optim.warmup_steps - 1, 1)
        return base * (optim.warmup_start + (1.0 - optim.warmup_start) * share)
    if optim.schedule == "step":
        return base * 0.1 ** sum(step * MILESTONE_EPOCHS >= milestone * total for milestone in MILESTONES)
    if step < flat:
        return base
    phase = min((step - flat) / max(total - flat, 1), 1.0)
    return base * (optim.final_lr + 0.5 * (1.0 - optim.final_lr) * (1.0 + math.cos(math.pi * phase)))


def ema_momentum(update: int, momentum: float, gamma: float) -> float:
    """Share of the source at update `update` (>= 1): near 1 at first, `momentum` in the end."""
    return (1.0 - momentum) * math.exp(-(1.0 + update) / gamma) + momentum


class Ema:
    """Moving average of a whole state dict, batch-norm statistics included; integer buffers keep their first
    value.

    The first update copies; update s >= 1 mixes in `ema_momentum(s)` of the source. `momentum` 0 keeps a
    plain copy. Skipped updates change nothing but count as updates: like the learning rate's, this schedule
    is one of steps.
    """

    def __init__(self, model: nn.Module, *, momentum: float, gamma: float) -> None:
        self.momentum, self.gamma, self.updates = momentum, gamma, 0
        source = model.state_dict()  # its tensors are the model's own: they are looked up once
        self.state = {key: value.detach().clone() for key, value in source.items()}
        floating = [key for key, value in self.state.items() if value.is_floating_point()]
        self._all = list(self.state.values()), list(source.values())
        self._floating = [self.state[key] for key in floating], [source[key] for key in floating]

    @torch.no_grad()
    def update(self, skipped: Tensor) -> None:
        """Mix in the model as it is now, or leave the average as it is where `skipped` () is true."""
        average, source = self._floating if self.updates else self._all
        if self.updates == 0 or self.momentum == 0:
            # After a skipped update the model is what it was, and so is its copy.
            torch._foreach_copy_(average, source)
        else:
            share = ema_momentum(self.updates, self.momentum, self.gamma)
            change = torch._foreach_sub(source, average)
            torch._foreach_mul_(change, (~skipped).to(change[0].dtype) * share)
            torch._foreach_add_(average, change)
        self.updates += 1

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Take over the averages and the update count of a checkpoint."""
        for key, value in state.items():
            self.state[key].copy_(value)
        self.updates = updates
