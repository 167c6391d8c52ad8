"""The head of RTMW (arXiv 2407.08634, section 3.1: the hierarchical encoding module): points are read off two
levels of the pyramid, the coarse one and a fine one that the coarse one is spread into.

State-dict keys and shapes are those of the official checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtmpose.models.heads.simcc import SPLIT_RATIO, GatedAttention, initialise, mixed

FINER = 2  # cells of the fine level per cell of the coarse one, in each direction


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; the size stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class RTMWHead(nn.Module):
    """Features fine (N, C/2, H/16, W/16) and coarse (N, C, H/32, W/32) -> SimCC logits x (N, K, 2W) and
    y (N, K, 2H).

    Each level gives one map per point, which is flattened and mixed to half of `hidden`; the halves are
    joined, and the points then attend to each other as in RTMPose. What the fine level gets of the coarse one
    is its channels spread out to pixels. `kernel` is the size of all three convolutions.
    """

    def __init__(
        self,
        channels: int,
        num_keypoints: int,
        input_size: tuple[int, int],
        stride: int,
        kernel: int,
        hidden: int,
        gau: bool,
    ) -> None:
        super().__init__()
        width, height = input_size
        cells = (width // stride) * (height // stride)
        spread = channels // FINER**2
        self.conv_dec = ConvNormReLU(spread, spread, kernel)
        self.final_layer = ConvNormReLU(channels, num_keypoints, kernel)
        self.final_layer2 = ConvNormReLU(channels // 2 + spread, num_keypoints, kernel)
        self.mlp = mixed(cells, hidden // 2)
        self.mlp2 = mixed(cells * FINER**2, hidden // 2)
        self.gau = GatedAttention(hidden) if gau else nn.Identity()
        self.cls_x = nn.Linear(hidden, width * SPLIT_RATIO, bias=False)
        self.cls_y = nn.Linear(hidden, height * SPLIT_RATIO, bias=False)
        self.apply(initialise)

    def forward(self, levels: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        coarse, fine = maps_of_levels(levels, self.conv_dec, self.final_layer, self.final_layer2)
        points = self.gau(torch.cat((self.mlp(coarse), self.mlp2(fine)), dim=2))  # (N, K, hidden)
        return self.cls_x(points), self.cls_y(points)


def maps_of_levels(
    levels: tuple[Tensor, Tensor], conv_dec: nn.Module, final_layer: nn.Module, final_layer2: nn.Module
) -> tuple[Tensor, Tensor]:
    """One flattened map per point from the coarse and from the fine level: (N, K, cells), (N, K, 4 cells)."""
    fine, coarse = levels
    spread = conv_dec(F.pixel_shuffle(coarse, FINER))
    return final_layer(coarse).flatten(2), final_layer2(torch.cat((spread, fine), dim=1)).flatten(2)
