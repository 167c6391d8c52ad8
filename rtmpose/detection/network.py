"""RTMDet in PyTorch (arXiv 2212.07784): CSPNeXt, a pyramid that mixes its last three levels both ways, and a
head that says for every cell how surely it is of a class and how far the sides of its box are.

State-dict keys and shapes are those of the official checkpoints (`backbone.*`, `neck.*`, `bbox_head.*`).
Their networks take the blue channel first; this one takes RGB like all networks here, and turns it round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rtmpose.files import UserError
from rtmpose.models.cspnext import ConvNormAct, CSPNeXt, Scale, SeparableConv, conv3x3
from rtmpose.models.pyramid import Pyramid
from rtmpose.models.weights import load_exactly, read_weights

Size = Literal["nano", "tiny", "s", "m", "l", "x"]
STRIDES = (8, 16, 32)  # input px per cell of the three levels
STACKED = 2  # convolutions of each branch of the head
PRIOR = 0.01  # how sure an untrained network is that a cell is of a class
STEM, HEAD = "backbone.stem.2.conv.weight", "bbox_head.rtm_cls.0.weight"  # weights that every RTMDet has
LEAST = 32  # px that an input's sides are multiples of


@dataclass(frozen=True)
class Design:
    """What makes a size: its scale, whether convolutions are separable, whether the head's levels share their
    convolutions, and whether distances are exponentials of what the head gives.
    """

    scale: Scale
    separable: bool = False
    shared: bool = True
    exponential: bool = False


DESIGNS: dict[str, Design] = {
    "nano": Design(Scale(0.33, 0.25), separable=True, shared=False),
    "tiny": Design(Scale(0.167, 0.375)),
    "s": Design(Scale(0.33, 0.5)),
    "m": Design(Scale(0.67, 0.75), exponential=True),
    "l": Design(Scale(1.0, 1.0), exponential=True),
    "x": Design(Scale(1.33, 1.25), exponential=True),
}


class Head(nn.Module):
    """Per level two branches of convolutions. Levels have norms of their own; with `shared` they have the
    convolutions before them in common, which the state dict then holds once for each level.
    """

    def __init__(self, channels: int, classes: int, design: Design) -> None:
        super().__init__()
        self.exponential = design.exponential
        levels = range(len(STRIDES))

        def branch() -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(
                    *(conv3x3(channels, channels, separable=design.separable) for _ in range(STACKED))
                )
                for _ in levels
            )

        self.cls_convs, self.reg_convs = branch(), branch()
        self.rtm_cls = nn.ModuleList(nn.Conv2d(channels, classes, 1) for _ in levels)
        self.rtm_reg = nn.ModuleList(nn.Conv2d(channels, 4, 1) for _ in levels)
        if design.shared:
            for convs in (self.cls_convs, self.reg_convs):
                for level in list(convs)[1:]:
                    for first, other in zip(_plain(convs[0]), _plain(level), strict=True):
                        other.conv = first.conv
        for layer in self.rtm_cls:
            nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level class logits (N, C, h, w) and distances (N, 4, h, w) px: left, top, right, bottom."""
        scores, distances = [], []
        for number, level in enumerate(levels):
            scores.append(self.rtm_cls[number](self.cls_convs[number](level)))
            sides = self.rtm_reg[number](self.reg_convs[number](level))
            if self.exponential:
                sides = sides.float().exp()  # exp in half precision overflows at 11
            distances.append(sides * STRIDES[number])
        return scores, distances


def _plain(branch: nn.Module) -> list[ConvNormAct | SeparableConv]:
    return [layer for layer in branch.children() if isinstance(layer, ConvNormAct)]


class RTMDet(nn.Module):
    """Normalised RGB (N, 3, H, W), sides multiples of 32 -> class logits (N, A, C) and boxes (N, A, 4) xyxy
    px of the input, for the A = HW/64 + HW/256 + HW/1024 cells of all levels, the finest first.
    """

    def __init__(self, size: str, classes: int = 1) -> None:
        super().__init__()
        if size not in DESIGNS:
            raise UserError(f"detector size {size!r}: give one of {', '.join(get_args(Size))}")
        design = DESIGNS[size]
        self.size, self.classes = size, classes
        widths = [design.scale.channels(full) for full in (256, 512, 1024)]
        self.backbone = CSPNeXt(design.scale, separable=design.separable)
        self.neck = Pyramid(widths, widths[0], design.scale.blocks(3), design.separable)
        self.bbox_head = Head(widths[0], classes, design)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores, distances = self.maps(images)
        corners = points(images.shape[-1], images.shape[-2], images.device)
        sides = _rows(distances).float()
        return _rows(scores), torch.cat([corners - sides[..., :2], corners + sides[..., 2:]], dim=-1)

    def maps(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The head's own outputs, per level."""
        scores, distances = self.bbox_head(self.neck(self.backbone.levels(images.flip(1))))
        return scores, distances


def _rows(maps: Sequence[Tensor]) -> Tensor:
    """(N, C, h, w) per level -> (N, A, C)."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)


def points(width: int, height: int, device: torch.device | str = "cpu") -> Tensor:
    """The upper left corners (A, 2) px of the cells of all levels, from which distances are counted."""
    found = []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(height // stride, device=device),
            torch.arange(width // stride, device=device),
            indexing="ij",
        )
        found.append(torch.stack([x, y], dim=-1).reshape(-1, 2) * float(stride))
    return torch.cat(found)


def strides(width: int, height: int, device: torch.device | str = "cpu") -> Tensor:
    """Input px per cell (A,) of the cells of all levels."""
    counts = [(height // stride) * (width // stride) for stride in STRIDES]
    return torch.cat(
        [torch.full((n,), float(s), device=device) for n, s in zip(counts, STRIDES, strict=True)]
    )


def is_rtmdet(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights are those of an RTMDet, by their names."""
    return STEM in weights and HEAD in weights


def load_rtmdet(path: Path, size: str | None = None) -> RTMDet:
    """The network of a checkpoint, official or ours, in evaluation mode; its size (unless said) and number of
    classes are those of the weights. UserError naming the first weight that does not fit.
    """
    weights = read_weights(path)
    stem, head = weights.get(STEM), weights.get(HEAD)
    if stem is None or head is None:
        raise UserError(f"{path}: holds no RTMDet: its names are such as {next(iter(weights))}; give one")
    found = size or next((name for name, one in DESIGNS.items() if one.scale.channels(64) == len(stem)), "")
    network = RTMDet(found, len(head))
    load_exactly(network, path, f"give a checkpoint of RTMDet-{found}, or its --size")
    return network.eval()
