"""The pyramid of RTMDet and RTMW: features of several levels, mixed both ways (PAFPN, arXiv 1803.01534, with
the layers of CSPNeXt; arXiv 2212.07784, section 3.2). State-dict keys and shapes are those of the official
checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtmpose.models.cspnext import ConvNormAct, CSPLayer, conv3x3


class Pyramid(nn.Module):
    """Features of three levels, mixed from the top down and up again. With `outputs` all leave with so many
    channels, with None each with its own.
    """

    def __init__(
        self, inputs: Sequence[int], outputs: int | None, blocks: int, separable: bool = False
    ) -> None:
        super().__init__()

        def mix(channels: int, out: int) -> CSPLayer:
            return CSPLayer(channels, out, blocks, identity=False, attention=False, separable=separable)

        steps = list(pairwise(inputs))
        self.reduce_layers = nn.ModuleList(ConvNormAct(high, low, 1) for low, high in reversed(steps))
        self.top_down_blocks = nn.ModuleList(mix(2 * low, low) for low, _ in reversed(steps))
        self.downsamples = nn.ModuleList(conv3x3(low, low, 2, separable=separable) for low, _ in steps)
        self.bottom_up_blocks = nn.ModuleList(mix(2 * low, high) for low, high in steps)
        leaving = inputs if outputs is not None else ()
        self.out_convs = nn.ModuleList(conv3x3(each, outputs or 0, separable=separable) for each in leaving)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """From the finest level to the coarsest, in and out."""
        down = [levels[-1]]  # the finest mixed so far is the last
        for reduce, block, finer in zip(
            self.reduce_layers, self.top_down_blocks, reversed(levels[:-1]), strict=True
        ):
            down[-1] = reduce(down[-1])
            wide = F.interpolate(down[-1], scale_factor=2.0, mode="nearest")
            down.append(block(torch.cat([wide, finer], dim=1)))
        up = [down.pop()]
        for shrink, block, coarser in zip(
            self.downsamples, self.bottom_up_blocks, reversed(down), strict=True
        ):
            up.append(block(torch.cat([shrink(up[-1]), coarser], dim=1)))
        if not self.out_convs:
            return up
        return [conv(level) for conv, level in zip(self.out_convs, up, strict=True)]
