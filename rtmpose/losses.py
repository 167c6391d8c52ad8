"""Training losses: SimCC's Kullback-Leibler divergence and the heatmap's mean squared error.

How they are normalised, in one place. The reference divides the SimCC loss of its batch by the number of
keypoints K and by nothing else, so it grows with the batch; that is what `simcc_kl_loss` returns by default.
With `batch_size` = B, the size of the *global* batch, it is a mean over samples, and the parts of ranks or
micro-batches simply add up: an update does not depend on how the batch was split. (Dividing the sum by B
later is the same.) The two differ by B:

    reference loss of a device with b rows = b * (mean loss per sample)

AdamW's update does not change when the loss is multiplied by a constant, so learning rates carry over
unchanged. A gradient-clipping value does not: the reference's 35 at b = 256 rows is 35 / 256 here. The
heatmap loss is a mean over all elements in the reference too, and carries over as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from rtmpose.targets import at_least_float32


def simcc_kl_loss(
    prediction: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    weight: Tensor | None,
    beta: float = 10.0,
    *,
    label_beta: float | None = None,
    label_softmax: bool = True,
    batch_size: int | None = None,
) -> Tensor:
    """KL(softmax(beta * target) || softmax(beta * prediction)): mean over bins, sum over axes, points and
    rows, over K.

    RTMPose section 3.3 (beta = 1 / tau of the SimCC loss).

    Args:
        prediction: raw outputs ((N, K, Wx), (N, K, Wy)); half precision is computed in float32. target: the
        codec's Gaussians, same shapes. weight: (N, K) from the codec; None weighs every point 1. beta:
        inverse temperature of both distributions. label_beta: another inverse temperature for the targets.
        label_softmax: False takes the targets as they are. batch_size: size of the global batch to divide by
        (see the module's text); None: the reference's sum over rows.
    """
    total = torch.zeros((), device=prediction[0].device)
    for output, label in zip(prediction, target, strict=True):
        divergence = _divergence(
            output, label, beta, beta if label_beta is None else label_beta, label_softmax
        )
        total = total + (divergence if weight is None else divergence * weight).sum()
    return total / (prediction[0].shape[1] * (batch_size or 1))


def _divergence(output: Tensor, label: Tensor, beta: float, label_beta: float, label_softmax: bool) -> Tensor:
    """(N, K, W), (N, K, W) to (N, K), mean over the W bins."""
    output = at_least_float32(output)
    log_output = functional.log_softmax(output * beta, -1)
    if label_softmax:
        log_label = functional.log_softmax(label.to(output.dtype) * label_beta, -1)
        return functional.kl_div(log_output, log_label, reduction="none", log_target=True).mean(-1)
    return functional.kl_div(log_output, label.to(output.dtype), reduction="none").mean(-1)


def heatmap_mse_loss(
    prediction: Tensor, target: Tensor, weight: Tensor | None, *, batch_size: int | None = None
) -> Tensor:
    """Squared error of heatmaps (N, K, H, W), times weight (N, K), mean over all elements (not over the
    labelled ones).

    `batch_size` as in `simcc_kl_loss`; None divides by the rows given, which is the same for one whole batch.
    """
    prediction = at_least_float32(prediction)
    error = (prediction - target.to(prediction.dtype)).square().mean((-2, -1))  # (N, K)
    rows, points = error.shape
    return (error if weight is None else error * weight).sum() / (points * (batch_size or rows))
