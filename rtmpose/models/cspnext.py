"""CSPNeXt, the backbone of RTMPose (RTMPose section 3.1; design from RTMDet, arXiv 2212.07784, section 3.2).

State-dict keys and shapes are those of the official checkpoints. Poses take the last stage (stride 32) alone,
detectors the last three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Scale(NamedTuple):
    """How much of the full (`l`) network a size has: share of the blocks, share of the channels."""

    depth: float
    width: float

    def channels(self, full: int) -> int:
        return int(full * self.width)

    def blocks(self, full: int) -> int:
        return max(round(full * self.depth), 1)


SIZES = {
    "t": Scale(0.167, 0.375),
    "s": Scale(0.33, 0.5),
    "m": Scale(0.67, 0.75),
    "l": Scale(1.0, 1.0),
    "x": Scale(1.33, 1.25),
}
STRIDE = 32  # input pixels per feature cell


class DepthwiseConv(nn.Conv2d):
    """A depthwise convolution of stride 1 with an odd kernel. Where CPUs train it in bf16 it has a weight
    gradient of its own: PyTorch's is five to nine times slower there, a seventh of the whole update.
    """

    def forward(self, input: Tensor) -> Tensor:
        on_cpu = (
            input.dtype == torch.bfloat16
            and input.device.type == "cpu"
            and torch.cpu._is_avx512_bf16_supported()
        )
        if (
            on_cpu
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and not torch.compiler.is_compiling()
        ):
            return _Depthwise.apply(input, self.weight)
        return super().forward(input)


class _Depthwise(torch.autograd.Function):
    """(N, C, H, W), (C, 1, k, k) -> (N, C, H, W). The weight is rounded to the input's type, its gradient is
    not.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight := weight.to(x.dtype))
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        same = {"padding": weight.shape[-1] // 2, "groups": len(weight)}
        dx = F.conv2d(grad, weight.flip(2, 3), **same) if ctx.needs_input_grad[0] else None
        few = zip(x.split(8), grad.split(8), strict=True)  # the copies of 8 images stay in the cache
        return dx, torch.stack([_weight_gradient(*part, same["padding"]) for part in few]).sum(0)


def _weight_gradient(x: Tensor, grad: Tensor, padding: int) -> Tensor:
    """Each image's channel convolved with its gradient as the kernel, summed over images: (C, 1, k, k), at
    least float32.
    """
    n, c, h, w = x.shape
    planes = x.permute(2, 3, 0, 1).reshape(1, h, w, n * c).permute(0, 3, 1, 2)  # (1, NC, H, W), channels-last
    each = F.conv2d(
        planes, grad.contiguous().view(n * c, 1, h, w), padding=padding, groups=n * c
    )  # (1, NC, k, k)
    return each.view(n, c, 1, *each.shape[2:]).sum(0, dtype=torch.promote_types(x.dtype, torch.float32))


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, SiLU; the padding keeps the size at stride 1. See
    `use_hardswish`.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        kind = DepthwiseConv if groups > 1 and stride == 1 else nn.Conv2d
        self.conv = kind(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1)
        self.activation: Callable[[Tensor], Tensor] = F.silu

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))


class SeparableConv(nn.Module):
    """A depthwise, then a pointwise convolution: with 5x5 a large receptive field at a small price."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 5, stride: int = 1) -> None:
        super().__init__()
        self.depthwise_conv = ConvNormAct(inputs, inputs, kernel, stride, groups=inputs)
        self.pointwise_conv = ConvNormAct(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


def conv3x3(inputs: int, outputs: int, stride: int = 1, *, separable: bool = False) -> nn.Module:
    """A 3x3 convolution with norm and SiLU, or the separable one that takes its place in a nano network."""
    if separable:
        return SeparableConv(inputs, outputs, 3, stride)
    return ConvNormAct(inputs, outputs, 3, stride)


class Block(nn.Module):
    """3x3 convolution and a separable 5x5 one, with an identity shortcut in all stages but the last."""

    def __init__(self, channels: int, identity: bool, separable: bool = False) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, separable=separable)
        self.conv2 = SeparableConv(channels, channels)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        return x + y if self.identity else y


class ChannelAttention(nn.Module):
    """Each channel times a gate in [0, 1], computed from all channels' means over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.fc.bias)  # type: ignore[arg-type]  # a convolution built with bias has one

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class CSPLayer(nn.Module):
    """Cross-stage partial layer: half of the channels pass the blocks, half go by, attention weighs both."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int,
        *,
        identity: bool,
        attention: bool = True,
        separable: bool = False,
    ) -> None:
        super().__init__()
        half = outputs // 2
        self.main_conv = ConvNormAct(inputs, half, 1)
        self.short_conv = ConvNormAct(inputs, half, 1)
        self.final_conv = ConvNormAct(2 * half, outputs, 1)
        self.blocks = nn.Sequential(*(Block(half, identity, separable) for _ in range(blocks)))
        self.attention = ChannelAttention(2 * half) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        aside = self.short_conv(x)
        both = torch.cat((self.blocks(self.main_conv(x)), aside), dim=1)
        return self.final_conv(self.attention(both))


class SpatialPyramidPooling(nn.Module):
    """The features beside their maxima over 5x5, 9x9 and 13x13 windows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvNormAct(channels, half, 1)
        self.conv2 = ConvNormAct(4 * half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pyramid = [self.conv1(x)]
        for _ in range(3):  # a 5x5 maximum of a 5x5 maximum is the 9x9 maximum, of that again the 13x13 one
            pyramid.append(F.max_pool2d(pyramid[-1], 5, stride=1, padding=2))
        return self.conv2(torch.cat(pyramid, dim=1))


def _stage(inputs: int, outputs: int, blocks: int, *, last: bool, separable: bool) -> nn.Sequential:
    # The order decides which fresh weights a seed gives.
    pooling = [SpatialPyramidPooling(outputs)] if last else []
    halving = conv3x3(inputs, outputs, 2, separable=separable)
    layer = CSPLayer(outputs, outputs, blocks, identity=not last, separable=separable)
    return nn.Sequential(halving, *pooling, layer)


class CSPNeXt(nn.Module):
    """(N, 3, H, W) normalised RGB -> (N, C, H/32, W/32), C = `channels` = 1024 x the width factor.

    `separable`: with separable convolutions behind the stem, as in RTMDet-nano.
    """

    def __init__(self, scale: Scale, *, separable: bool = False) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (scale.channels(full) for full in (64, 128, 256, 512, 1024))
        self.channels = c5
        self.stem = nn.Sequential(
            ConvNormAct(3, c1 // 2, 3, 2), ConvNormAct(c1 // 2, c1 // 2, 3), ConvNormAct(c1 // 2, c1, 3)
        )
        self.stage1 = _stage(c1, c2, scale.blocks(3), last=False, separable=separable)
        self.stage2 = _stage(c2, c3, scale.blocks(6), last=False, separable=separable)
        self.stage3 = _stage(c3, c4, scale.blocks(6), last=False, separable=separable)
        self.stage4 = _stage(c4, c5, scale.blocks(3), last=True, separable=separable)

    def forward(self, images: Tensor) -> Tensor:
        return self.levels(images)[-1]

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The features at strides 8, 16 and 32: (N, C/4, H/8, W/8), (N, C/2, H/16, W/16), (N, C, H/32,
        W/32).
        """
        eighth = self.stage2(self.stage1(self.stem(images)))
        sixteenth = self.stage3(eighth)
        return eighth, sixteenth, self.stage4(sixteenth)


HARDSWISH = "backbone.hardswish"  # the mark's key in a network's state dict


def use_hardswish(network: nn.Module) -> None:
    """Let hard-swish, x·clip(x + 3, 0, 6) / 6, follow the convolutions of CSPNeXt and its neck, not SiLU
    (arXiv 1905.02244, section 5.2): it needs no exponential and no division.

    Shapes would not tell the two networks apart, so the backbone gets a mark in the state dict.
    """
    for module in network.modules():
        if isinstance(module, ConvNormAct):
            module.activation = F.hardswish
    backbone, _, name = HARDSWISH.rpartition(".")
    network.get_submodule(backbone).register_buffer(name, torch.ones((), dtype=torch.int64))
