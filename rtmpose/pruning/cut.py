"""Cut the channels and blocks of a trained CSPNeXt network to those of a smaller size, all tensors alike.

Channels that are added to each other or that share a gate must be cut together. In CSPNeXt those are: a
block's 5x5 depthwise convolution and the 3x3 one before it; and, in stages with shortcuts, the outputs of all
blocks and of the convolution that they start from. What is left is an ordinary network of the smaller size.

Which channels go is decided by scores of batch norms (`scores`). Blocks behind a shortcut change little: of
those the ones go whose last norm scores least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rtmpose.files import UserError
from rtmpose.models import PoseNet
from rtmpose.models.cspnext import (
    Block,
    ChannelAttention,
    ConvNormAct,
    CSPLayer,
    CSPNeXt,
    SpatialPyramidPooling,
)

Scores = Mapping[str, Tensor]  # of the channels (C,) of every batch norm, by the name of its convolution


@torch.no_grad()
def cut(source: PoseNet, target: PoseNet, scores: Scores) -> None:
    """Fill `target` with those channels and blocks of `source` that score most, in their old order.

    Where both have the same size, the weights come out as they are. Raises UserError for networks that are
    no CSPNeXt under one head, or whose target is wider or deeper, naming the first layer that would grow.
    """
    if not (isinstance(source.backbone, CSPNeXt) and isinstance(target.backbone, CSPNeXt)):
        raise UserError("prune: the backbone must be CSPNeXt; a ResNet-50 has no smaller size")
    if source.neck is not None or target.neck is not None:
        raise UserError("prune: networks with neck rtmw cannot be cut; choose a smaller --size to train")
    left = _Cut(scores).backbone(source.backbone, target.backbone)
    _cut_inputs(source.head, target.head, left)


class _Cut:
    """Walks two networks side by side. Each method copies a layer and says which of its outputs are left."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores

    def backbone(self, source: CSPNeXt, target: CSPNeXt) -> Tensor:
        left = torch.arange(3)
        for number, (own, new) in enumerate(zip(source.stem, target.stem, strict=True)):
            left = self.conv(f"backbone.stem.{number}", own, new, left)
        for stage in ("stage1", "stage2", "stage3", "stage4"):
            pairs = zip(source.get_submodule(stage), target.get_submodule(stage), strict=True)  # type: ignore[call-overload]
            for number, (own, new) in enumerate(pairs):
                name = f"backbone.{stage}.{number}"
                if isinstance(own, ConvNormAct):
                    left = self.conv(name, own, new, left)
                elif isinstance(own, SpatialPyramidPooling):
                    left = self.pooling(name, own, new, left)
                else:
                    left = self.layer(name, own, new, left)
        return left

    def conv(
        self, name: str, source: nn.Module, target: nn.Module, inputs: Tensor, left: Tensor | None = None
    ) -> Tensor:
        """A convolution with its norm. `left` says which outputs are, None: those that score most."""
        own, new = cast(ConvNormAct, source), cast(ConvNormAct, target)
        if left is None:
            left = best(self.scores[name], new.conv.out_channels, name)
        weight = own.conv.weight[left]
        new.conv.weight.copy_(weight if own.conv.groups > 1 else weight[:, inputs])
        for key, value in new.bn.state_dict(keep_vars=True).items():
            old = own.bn.state_dict()[key]
            value.copy_(old[left] if old.ndim else old)
        return left

    def pooling(
        self, name: str, source: SpatialPyramidPooling, target: SpatialPyramidPooling, inputs: Tensor
    ) -> Tensor:
        left = self.conv(f"{name}.conv1", source.conv1, target.conv1, inputs)
        windows = range(source.conv2.conv.in_channels // source.conv1.conv.out_channels)
        spread = torch.cat([left + window * source.conv1.conv.out_channels for window in windows])
        return self.conv(f"{name}.conv2", source.conv2, target.conv2, spread)

    def layer(self, name: str, source: CSPLayer, target: CSPLayer, inputs: Tensor) -> Tensor:
        """A cross-stage partial layer; blocks that go are those whose last norm scores least."""
        half, own = target.main_conv.conv.out_channels, source.main_conv.conv.out_channels
        blocks = self.kept_blocks(name, source, target)
        last = [f"{name}.blocks.{number}.conv2.pointwise_conv" for number in blocks]
        shared = cast(Block, source.blocks[0]).identity
        main = f"{name}.main_conv"
        together = [main, *last] if shared else [main]
        left = best(summed([self.scores[each] for each in together]), half, main)
        self.conv(main, source.main_conv, target.main_conv, inputs, left)
        for number, new in zip(blocks, target.blocks, strict=True):
            left = self.block(f"{name}.blocks.{number}", source.blocks[number], new, left, shared)
        aside = self.conv(f"{name}.short_conv", source.short_conv, target.short_conv, inputs)
        both = torch.cat((left, aside + own))
        if isinstance(source.attention, ChannelAttention) and isinstance(target.attention, ChannelAttention):
            target.attention.fc.weight.copy_(source.attention.fc.weight[both][:, both])
            cast(Tensor, target.attention.fc.bias).copy_(cast(Tensor, source.attention.fc.bias)[both])
        return self.conv(f"{name}.final_conv", source.final_conv, target.final_conv, both)

    def kept_blocks(self, name: str, source: CSPLayer, target: CSPLayer) -> list[int]:
        """Which blocks of a layer stay, in their old order."""
        last = [
            self.scores[f"{name}.blocks.{number}.conv2.pointwise_conv"].mean()
            for number in range(len(source.blocks))
        ]
        return best(torch.stack(last), len(target.blocks), f"{name}.blocks").tolist()

    def block(self, name: str, source: nn.Module, target: nn.Module, inputs: Tensor, shared: bool) -> Tensor:
        own, new = cast(Block, source), cast(Block, target)
        separable, smaller = own.conv2, new.conv2
        depthwise = f"{name}.conv2.depthwise_conv"
        pair = summed([self.scores[f"{name}.conv1"], self.scores[depthwise]])
        inner = best(pair, cast(ConvNormAct, new.conv1).conv.out_channels, f"{name}.conv1")
        self.conv(f"{name}.conv1", own.conv1, new.conv1, inputs, inner)
        self.conv(depthwise, separable.depthwise_conv, smaller.depthwise_conv, inner, inner)
        return self.conv(
            f"{name}.conv2.pointwise_conv",
            separable.pointwise_conv,
            smaller.pointwise_conv,
            inner,
            inputs if shared else None,
        )


def best(scores: Tensor, count: int, name: str) -> Tensor:
    """The `count` indices that score most, in ascending order; UserError naming the layer that has fewer."""
    if count > len(scores):
        raise UserError(
            f"prune: {name} has {len(scores)} channels or blocks where the smaller size has {count}; give a "
            "size (--to) below that of the weights"
        )
    return scores.topk(count).indices.sort().values


def summed(scores: Sequence[Tensor]) -> Tensor:
    """Scores (C,) of channels that stay or go together, each norm's as a share of its own mean."""
    return torch.stack([each / each.mean().clamp(min=1e-12) for each in scores]).sum(0)


def _cut_inputs(source: nn.Module, target: nn.Module, left: Tensor) -> None:
    """Copy a head, of whose weights those that read features lose the channels that are gone."""
    new = target.state_dict(keep_vars=True)
    for key, old in source.state_dict().items():
        if key not in new:
            raise UserError(f"prune: the smaller network has no head.{key}; prune to the same head")
        unlike = [axis for axis in range(old.ndim) if old.shape[axis] != new[key].shape[axis]]
        for axis in unlike:
            old = old.index_select(axis, left)
        new[key].copy_(old)
