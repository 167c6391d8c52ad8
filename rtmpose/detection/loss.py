"""What RTMDet learns from: which cells answer for which box, and how wrong they are.

The assignment is that of arXiv 2212.07784, section 3.3 (dynamic soft labels). The losses are quality focal
loss (arXiv 2006.04388) and GIoU (arXiv 1902.09630).

Boxes travel through the training stream as two points each, the upper left and the lower right corner.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rtmpose.detection.network import RTMDet, points, strides
from rtmpose.training.optim import MEAN_EPS
from rtmpose.training.update import Task

CANDIDATES = 13  # the best overlaps, whose sum says how many cells a box gets
FOCUS = 2.0  # exponent of the quality focal loss
OVERLAP_COST, BOX_WEIGHT = 3.0, 2.0  # weights of the IoU in the assignment, and of the GIoU loss
CENTRE_BASE, CENTRE_REACH = 10.0, 3.0  # a cell costs 10 ** (cells to the box's centre - 3)
TINY = 1e-7


class Corners:
    """The training stream's points as boxes."""

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B, 2M, 2) px and weights (B, 2M) -> boxes (B, M, 4) xyxy px and which are there (B, M)."""
        return keypoints.reshape(len(keypoints), -1, 4), visible[:, ::2]


def detection_task(network: RTMDet, size: tuple[int, int]) -> Task[Corners]:
    """A detector that learns people from images of `size` (w, h) px."""
    corners, cells = points(*size), strides(*size)

    def loss(output: tuple[Tensor, Tensor], boxes: Tensor, there: Tensor) -> Tensor:
        logits, found = output
        where = corners.to(found.device), cells.to(found.device)
        # A mean in the reference; the loop wants a sum over the batch.
        return detection_loss(logits, found, boxes, there > 0, *where) * len(boxes)

    return Task(network, Corners(), loss, MEAN_EPS)


def detection_loss(
    logits: Tensor, found: Tensor, boxes: Tensor, there: Tensor, corners: Tensor, cells: Tensor
) -> Tensor:
    """The loss of a batch (), a mean over what is to be found.

    Args:
        logits: (B, A, C) of the cells; class 0 is people, and the only one that is learned.
        found: (B, A, 4) xyxy px, the cells' boxes.
        boxes: (B, M, 4) xyxy px, annotated.
        there: (B, M) bool, which of them are boxes and not filling.
        corners: (A, 2) px and cells (A,) px: where the cells lie, and their strides.
    """
    quality = torch.zeros_like(logits)
    chosen, wanted, weights = [], [], []
    for number in range(len(logits)):
        truth = boxes[number, there[number]]
        cell, box, overlap = assign(logits[number, :, 0], found[number], truth, corners, cells)
        quality[number, cell, 0] = overlap
        chosen.append(found[number, cell])
        wanted.append(truth[box])
        weights.append(overlap)
    total = torch.cat(weights)
    share = total.sum().clamp_min(1.0)
    wrong = (quality - logits.sigmoid()).abs().pow(FOCUS)
    surely = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    apart = 1.0 - overlaps(torch.cat(chosen), torch.cat(wanted), enclosing=True)
    return ((wrong * surely).sum() + BOX_WEIGHT * (apart * total).sum()) / share


@torch.no_grad()
def assign(
    logits: Tensor, found: Tensor, truth: Tensor, corners: Tensor, cells: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Which cells answer for which of M annotated boxes of one image.

    Logits (A,), found boxes (A, 4), annotated ones (M, 4), corners (A, 2), strides (A,) -> n cells (n,), the
    box of each (n,), and their overlap (n,), which is what the cell's score is to be. Only cells inside of a
    box can answer for it. A box gets as many as its best overlaps sum up to, one at least, those that cost
    least by class, overlap and distance to its centre; a cell that two boxes want answers for the cheaper.
    """
    inside = (corners[:, None] > truth[:, :2]).all(-1) & (corners[:, None] < truth[:, 2:]).all(-1)  # (A, M)
    near = inside.any(1).nonzero()[:, 0]
    if not len(near):
        return near, near.clone(), logits.new_zeros(0)
    inside, logits = inside[near], logits[near, None].expand(-1, len(truth))
    overlap = overlaps(found[near, None], truth[None])  # (n, M)
    middle = (truth[:, :2] + truth[:, 2:]) / 2
    distance = (corners[near, None] - middle).norm(dim=-1) / cells[near, None]
    wrong = F.binary_cross_entropy_with_logits(logits, overlap, reduction="none")
    cost = wrong * (overlap - logits.sigmoid()).abs().pow(FOCUS)
    cost = cost - OVERLAP_COST * (overlap + TINY).log() + CENTRE_BASE ** (distance - CENTRE_REACH)
    cost = cost.masked_fill(~inside, torch.inf)
    best = overlap.masked_fill(~inside, 0.0).topk(min(CANDIDATES, len(near)), dim=0).values
    count = best.sum(0).int().clamp_min(1)
    place = cost.argsort(0).argsort(0)
    taken = (place < count) & cost.isfinite()
    price, box = cost.masked_fill(~taken, torch.inf).min(1)
    cell = price.isfinite().nonzero()[:, 0]
    return near[cell], box[cell], overlap[cell, box[cell]]


def overlaps(a: Tensor, b: Tensor, *, enclosing: bool = False) -> Tensor:
    """Intersection over union of boxes (..., 4) xyxy, one by one; with `enclosing` GIoU, which is lower by
    the share of the box around both that neither covers.
    """
    common = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0)
    both = common.prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (a, b)]
    union = (areas[0] + areas[1] - both).clamp_min(TINY)
    iou = both / union
    if not enclosing:
        return iou
    around = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return iou - (around - union) / around.clamp_min(TINY)
