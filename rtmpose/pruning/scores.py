"""How much a channel matters: by its batch norm alone, or by what the loss would change without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from rtmpose.models import PoseNet
from rtmpose.models.cspnext import ConvNormAct


def _norms(network: PoseNet) -> dict[str, nn.BatchNorm2d]:
    """Batch norms by the name of the convolution that they belong to."""
    return {name: module.bn for name, module in network.named_modules() if isinstance(module, ConvNormAct)}


def norm_scores(network: PoseNet) -> dict[str, Tensor]:
    """|γ| of each channel (C,): how far its values spread before the activation (network slimming, arXiv
    1708.06519, section 3). Needs no data.
    """
    return {name: norm.weight.detach().abs() for name, norm in _norms(network).items()}


def taylor_scores(network: PoseNet, losses: Iterable[Callable[[PoseNet], Tensor]]) -> dict[str, Tensor]:
    """Mean over `losses` of (γ·∂L/∂γ + β·∂L/∂β)² of each channel (C,): to first order the squared change of
    the loss when the channel's norm gives 0 (arXiv 1906.10771, equation 8, with the norm as the gate).

    Each of `losses` computes one batch's loss with the network, which is in evaluation mode meanwhile and
    stays as it is.
    """
    norms, training = _norms(network), network.training
    found = {name: torch.zeros_like(norm.weight) for name, norm in norms.items()}
    count = 0
    network.eval()
    parameters = [each for norm in norms.values() for each in (norm.weight, norm.bias)]
    for compute in losses:
        gradients = torch.autograd.grad(compute(network), parameters)
        for number, (name, norm) in enumerate(norms.items()):
            change = norm.weight * gradients[2 * number] + norm.bias * gradients[2 * number + 1]
            found[name] += change.detach().square()
        count += 1
    network.train(training)
    return {name: total / max(count, 1) for name, total in found.items()}
