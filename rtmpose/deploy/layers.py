"""The layers of the exported network that stand in the place of trained ones (see `form`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_weights

from rtmpose.deploy.ranges import TINY
from rtmpose.models.cspnext import ChannelAttention, ConvNormAct
from rtmpose.models.heads.rtmw import RTMWHead, maps_of_levels
from rtmpose.models.heads.simcc import QUERY_DIM, GatedAttention, ScaleNorm, SimCCHead

SATURATED = 32.0  # sigmoid(-32) is 1e-14: beyond, a gate stays shut or open


class Gate(nn.Module):
    """What bends its input, and therefore must know the power of two that the input was divided by."""

    power = 1.0

    def unscaled(self, x: Tensor, limit: float) -> Tensor:
        """The input in its own units, held within ±limit so that it cannot overflow."""
        if self.power > 1:
            x = x.clamp(-limit / self.power, limit / self.power)
        return x if self.power == 1 else x * self.power


class SiLU(Gate):
    """x·sigmoid(x), on x divided by a power of two."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.power == 1 else x * torch.sigmoid(self.unscaled(x, SATURATED))


class HardSwish(Gate):
    """x·clip(x + 3, 0, 6) / 6, on x divided by a power of two."""

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(x) if self.power == 1 else x * F.hardsigmoid(self.unscaled(x, SATURATED))


ACTIVATIONS: Mapping[Callable[[Tensor], Tensor], type[Gate]] = {F.silu: SiLU, F.hardswish: HardSwish}


class ChannelGate(Gate):
    """Channel attention, on features divided by a power of two."""

    def __init__(self, attention: ChannelAttention) -> None:
        super().__init__()
        self.fc = attention.fc

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc(x.mean((2, 3), keepdim=True))
        return x * F.hardsigmoid(self.unscaled(gate, SATURATED))


class ConvAct(nn.Module):
    """A convolution that has its batch norm in it, then SiLU or hard-swish."""

    def __init__(self, layer: ConvNormAct) -> None:
        super().__init__()
        self.conv = folded(layer.conv, layer.bn)
        self.act = ACTIVATIONS[layer.activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class ShareNorm(nn.Module):
    """(…, D) → x / max(rms(x), eps) over D, where x and eps are in the same units; then x's shares of its
    largest, and that largest (…, 1).
    """

    def __init__(self) -> None:
        super().__init__()
        self.eps = ScaleNorm.EPS

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        share, largest = shares(x, (-1,))
        rms = torch.sqrt((share * share).mean(-1, keepdim=True))
        # eps / largest by two factors, neither of which is below float16's smallest normal number
        least = max(self.eps, TINY)
        floor = least / largest * max(self.eps / least, TINY)
        return share / torch.maximum(rms, floor), share, largest


class ShareAttention(nn.Module):
    """The gated attention unit on shares: (N, K, D) → (N, K, D) of the order of one, and the float32 factors
    (N, K, 1) by which each point's row has been divided.

    Row i of the attention's part is (q_i k r_i)² u_i v times what is computed here: q_i, u_i and r_i are the
    largest query, gate and score of that point, k and v the largest key and value of the image.
    """

    def __init__(self, unit: GatedAttention) -> None:
        super().__init__()
        self.expanded = unit.expanded
        self.norm = ShareNorm()
        self.uv = unit.uv
        self.uv.weight.mul_(unit.ln.g)
        self.act = SiLU()
        each = torch.tensor([[QUERY_DIM**-0.5], [1.0]], dtype=unit.gamma.dtype)
        gamma, beta = unit.gamma * each, unit.beta * each  # (2, s): of queries, of keys
        powers = [ceiling_power(max(float(g.abs().max()), float(b.abs().max())))
                  for g, b in zip(gamma, beta, strict=True)]  # fmt: skip
        by = torch.tensor(powers, dtype=gamma.dtype)[:, None]
        self.gamma, self.beta = nn.Parameter(gamma / by), nn.Parameter(beta / by)
        self.o = unit.o
        self.res_scale = unit.res_scale
        self.input_power, self.power = 1.0, (powers[0] * powers[1]) ** 2

    def carry(self, points: float, uv: float, o: float) -> None:
        """Take the powers of two that the input and the two layers' outputs are divided by."""
        self.norm.eps /= points
        self.beta.div_(uv)
        self.input_power = points
        self.power *= uv**6 * o  # queries and keys twice each, gates and values once

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        normed, share, row_x = self.norm(x)
        u, v, base = torch.split(self.act(self.uv(normed)), [self.expanded, self.expanded, QUERY_DIM], dim=-1)
        query, row_q = shares(base * self.gamma[0] + self.beta[0], (-1,))
        key, all_k = shares(base * self.gamma[1] + self.beta[1], (1, 2))
        u, row_u = shares(u, (-1,))
        v, all_v = shares(v, (1, 2))
        score, row_s = shares(F.relu(query @ key.transpose(1, 2)), (-1,))  # (N, K, K) in [0, 1]
        attended = self.o(u * ((score * score) @ v))
        largest = wide(row_q) * wide(all_k) * wide(row_s)  # (N, K, 1)
        of_attended = largest * largest * wide(row_u) * wide(all_v) * self.power
        of_x = wide(row_x) * self.input_power
        row = torch.maximum(of_x, of_attended)
        kept = self.res_scale(share) * (of_x / row).to(x.dtype)
        return kept + attended * (of_attended / row).to(x.dtype), row


class ShareHead(nn.Module):
    """The SimCC head on shares: features → float32 logits x (N, K, 2W) and y (N, K, 2H)."""

    def __init__(self, head: SimCCHead | RTMWHead) -> None:
        super().__init__()
        self.mlp = _scaled(head.mlp)
        self.final_layer = head.final_layer
        self.norm = ShareNorm()
        self.gau = ShareAttention(head.gau) if isinstance(head.gau, GatedAttention) else None
        self.cls_x, self.cls_y = head.cls_x, head.cls_y

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.final_layer(features).flatten(2)  # (N, K, cells)
        return self.classified(self.mlp(self.norm(maps)[0]))

    def classified(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of points (N, K, hidden) before they attend to each other."""
        if self.gau is None:
            return wide(self.cls_x(points)), wide(self.cls_y(points))
        points, row = self.gau(points)
        return wide(self.cls_x(points)) * row, wide(self.cls_y(points)) * row


class ShareTwoLevelHead(ShareHead):
    """RTMW's head on shares: a fine and a coarse level → float32 logits x (N, K, 2W) and y (N, K, 2H)."""

    def __init__(self, head: RTMWHead) -> None:
        super().__init__(head)
        self.mlp2 = _scaled(head.mlp2)
        self.conv_dec, self.final_layer2 = head.conv_dec, head.final_layer2

    def forward(self, levels: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        coarse, fine = maps_of_levels(levels, self.conv_dec, self.final_layer, self.final_layer2)
        halves = self.mlp(self.norm(coarse)[0]), self.mlp2(self.norm(fine)[0])
        return self.classified(torch.cat(halves, dim=2))


def _scaled(mlp: nn.Module) -> nn.Linear:
    """The linear layer behind a norm, with the norm's learned factor in its weights."""
    norm, linear = mlp.children()
    assert isinstance(norm, ScaleNorm) and isinstance(linear, nn.Linear)
    linear.weight.mul_(norm.g)
    return linear


def ceiling_power(value: float) -> float:
    """The smallest power of two that is not below `value`; 1 for 0."""
    return 2.0 ** math.ceil(math.log2(value)) if value > 0 else 1.0


def shares(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x divided by its largest |value| along `dims`, and that value, at least float16's smallest normal."""
    largest = x.abs().amax(dims, keepdim=True).clamp(min=TINY)
    return x / largest, largest


def wide(x: Tensor) -> Tensor:
    """float16 as float32; others as they are, without an operation that a tracer would write down."""
    return x.float() if x.dtype == torch.float16 else x


def folded(layer: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> nn.Conv2d | nn.ConvTranspose2d:
    """A convolution that computes `layer` and then batch norm with its running statistics."""
    transposed = isinstance(layer, nn.ConvTranspose2d)
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
        transpose=transposed,
    )  # fmt: skip
    shape: dict[str, Any] = {
        name: getattr(layer, name)
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups")
    }
    made = (nn.ConvTranspose2d if transposed else nn.Conv2d)(**shape, device="meta")
    made.weight, made.bias = weight, bias
    return made
