"""Batch norm over the batch of all workers (Ioffe and Szegedy, arXiv 1502.03167, where the batch is the
global one).

`torch.nn.SyncBatchNorm` does this between CUDA devices only; `SyncBatchNorm2d` does it between CPU workers.
With it an update does not depend on how the batch is split.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with batch norm over all workers; its parameters, buffers and state-dict keys stay what they
    are.

    On CUDA devices PyTorch's own, whose kernels are fused. It makes the host wait once a layer, to leave out
    workers without rows; the stream gives every worker rows.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # it adds behaviour and no state
    return model


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of all workers' rows together, also where they
    have different numbers of rows; in evaluation it is `nn.BatchNorm2d` itself. Needs the default process
    group.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.momentum is not None and self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        output, mean, biased, count = _GlobalNorm.apply(input, self.weight, self.bias, self.eps)
        with torch.no_grad():
            unbiased = biased * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
            self.num_batches_tracked.add_(1)
        return output


class _GlobalNorm(torch.autograd.Function):
    """Normalises with global statistics: one collective forward, one backward.

    Only the gradient of the input is exchanged. Those of weight and bias are this worker's share, as of every
    other parameter: DistributedDataParallel brings the shares together.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, C, H, W), (C,), (C,) to the output (N, C, H, W), mean and biased variance (C,), and the values
        per channel ().
        """
        mean, biased, count = _global_moments(x, weight.dtype)
        ctx.save_for_backward(x, weight, mean, biased, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, biased, count)
        return F.batch_norm(x, mean, biased, weight, bias, False, 0.0, eps), mean, biased, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """With x̂ the normalised input and sums over all workers: dx = (w/σ) (dy - Σdy/n - x̂ Σ(dy x̂)/n)."""
        x, weight, mean, biased, count = ctx.saved_tensors
        # As if the statistics were constants: the first term of dx, and this worker's Σ(dy x̂) and Σdy.
        direct, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, biased, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([grad_weight, grad_bias])  # (2, C)
        dist.all_reduce(sums)
        inverse = (biased + ctx.eps).rsqrt()  # 1/σ
        slope, offset = -weight * inverse.square() * sums[0] / count, -weight * inverse * sums[1] / count
        # (x - mean) slope + offset per channel: batch norm with a variance of 1 is a fast way to compute it.
        rest = F.batch_norm(x, mean, torch.ones_like(mean), slope, offset, False, 0.0, 0.0)
        return direct.add_(rest), grad_weight, grad_bias, None


def _global_moments(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of all workers' x (N, C, H, W), and how many values each channel has ()
    of `dtype`.

    Workers' moments are combined by their distances from the common mean: sums of squares would cancel.
    """
    # Running statistics that nobody reads: their type is the result's.
    scratch = x.new_zeros(2, x.shape[1], dtype=dtype)
    # `var_mean` would be 15 times slower channels-last.
    mean, biased = torch.batch_norm_update_stats(x, scratch[0], scratch[1], 0.0)
    count = mean.new_full((1,), x.numel() / x.shape[1])
    own = torch.cat([mean, biased, count])  # (2C + 1,)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    # (R, C), (R, C), (R, 1)
    means, variances, counts = torch.stack(every).split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    share = counts / total
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), total
