"""What a network loses against its teacher (DWPose, arXiv 2307.15880, section 3.1).

Both losses are summed over the rows, like all of ours. The reference takes their mean over a device's rows,
beside a SimCC loss that it sums over them: its weights hold for `DEVICE_ROWS` rows, and are divided by that
here. `rtmpose.losses` says more of the two conventions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from rtmpose.targets import at_least_float32

Logits = tuple[Tensor, Tensor]
DEVICE_ROWS = 64  # of the published configurations, at 256x192 and with eight devices


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of two feature maps (N, C, H, W), summed over channels, cells and rows (equation 1).

    A sum, not a mean over C·H·W: to it belongs the weight of the published configurations.
    """
    difference = at_least_float32(student) - at_least_float32(teacher)
    return difference.square().sum()


def logit_loss(student: Logits, teacher: Logits, beta: float) -> Tensor:
    """KL(softmax(beta · teacher) || softmax(beta · student)) of SimCC logits ((N, K, Wx), (N, K, Wy)), summed
    over bins, axes, points and rows, over K (equation 3 plus a constant; beta = 1 / tau of the SimCC loss).

    All points count, those that are not labelled too: the teacher has an opinion of them (section 3.1).
    """
    total = torch.zeros((), device=student[0].device)
    for ours, theirs in zip(student, teacher, strict=True):
        log_ours = functional.log_softmax(at_least_float32(ours) * beta, -1)
        log_theirs = functional.log_softmax(at_least_float32(theirs) * beta, -1)
        total = total + functional.kl_div(log_ours, log_theirs, reduction="sum", log_target=True)
    return total / student[0].shape[1]
