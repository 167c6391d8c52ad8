"""What happens to an update whose loss or gradient is not finite: it is undone and counted. Too many of them
in a row end the run, and a file lists the samples that were in them.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtmpose.files import UserError, write_atomic

KEPT_BATCHES = 64


class Step(NamedTuple):
    """What one update did, on the device: its loss summed over the global batch (), the norm of its gradient
    before clipping (), and whether it was skipped () bool.
    """

    loss: Tensor
    grad_norm: Tensor
    skipped: Tensor


class Guard:
    """Judges updates on the device, where the host does not wait for the verdict.

    Loss and gradient norm are the same on every worker, and so is the verdict. `counts` (3,) int64: updates
    skipped so far, skipped in a row up to now, and the longest such row.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        flat = [buffer.view(-1) for buffer in model.buffers()]
        dtypes = list(dict.fromkeys(buffer.dtype for buffer in flat))
        self.groups = [[buffer for buffer in flat if buffer.dtype == dtype] for dtype in dtypes]

    def buffers(self) -> list[Tensor]:
        """A copy of all that forward passes change (batch norm's statistics), one flat tensor for
        each dtype.
        """
        return [torch.cat(group) for group in self.groups]

    def judge(self, loss: Tensor, grad_norm: Tensor, before: list[Tensor]) -> Tensor:
        """Whether to skip the update () bool; if so the buffers are again as they were `before`."""
        after = self.buffers()
        finite = torch.stack(
            [loss.isfinite(), grad_norm.isfinite(), *(part.isfinite().all() for part in after)]
        )
        skipped = ~finite.all()
        for group, old, new in zip(self.groups, before, after, strict=True):
            chosen = torch.where(skipped, old, new).split([len(buffer) for buffer in group])
            torch._foreach_copy_(group, list(chosen))
        total, row, longest = self.counts
        row = (row + skipped) * skipped
        self.counts = torch.stack([total + skipped, row, torch.maximum(longest, row)])
        return skipped


class Recent:
    """The samples of this worker's last batches, and which updates were skipped."""

    def __init__(self, count: int) -> None:
        self.batches: deque[tuple[int, Tensor, list[str]]] = deque(maxlen=count)

    def add(self, step: int, done: Step, keys: list[str]) -> None:
        self.batches.append((step, done.skipped, keys))

    def error_after(self, path: Path, limit: int) -> UserError:
        """Write the samples to `path`, oldest batch first, and return what to raise after `limit` skipped
        updates in a row.
        """
        lines = [
            {"step": step, "skipped": bool(skipped), "keys": keys} for step, skipped, keys in self.batches
        ]
        write_atomic(path, json.dumps(lines, indent=1) + "\n")
        return UserError(
            f"{path}: loss or gradient was not finite in {limit} updates in a row; this file lists the "
            "samples of the last batches: mend damaged labels among them, or lower optim.lr or set "
            "optim.clip_grad in params.yaml"
        )
