"""Float16 emulated on any CPU, one operation at a time, and how large the values of a network become in it.

A runtime may hide that a value does not fit: ONNX Runtime's CPU provider has no float16 convolutions and
computes them in float32. Here the result of every operation is rounded to float16, as a device that has
float16 alone would store it. Sums inside an operation are float32, as on most devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

LARGEST = 65504.0  # of float16
TINY = 2.0**-14  # float16's smallest normal number


@dataclass
class Range:
    """The values of one part of a network before they are rounded: the largest magnitude, and how many of
    those that are not zero lie below float16's smallest normal number.
    """

    largest: float = 0.0
    small: int = 0
    count: int = 0

    @property
    def small_share(self) -> float:
        return self.small / self.count if self.count else 0.0

    def add(self, values: Tensor) -> None:
        """Count `values` in; one that is not a number makes the largest infinite."""
        size = values.abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
        self.largest = max(self.largest, float(size.max()))
        self.small += int(((size > 0) & (size < TINY)).sum())
        self.count += int((size > 0).sum())


@torch.no_grad()
def emulated(network: nn.Module, images: Tensor, *, flush: bool = False) -> tuple[Any, dict[str, Range]]:
    """What a float16 `network` gives for `images` where each operation's result is rounded to float16, and
    the range of each of its parts, by name.

    flush: numbers below 2^-14 become zero, weights and constants included, as on devices without subnormals.
    """
    mode = _Rounding(flush)
    with _named(network, mode), mode:
        return network(images), mode.ranges


@torch.no_grad()
def rounded_alone(network: nn.Module, images: Tensor) -> Any:
    """What a float32 `network` gives where weights and results keep float16's 11 digits, but neither overflow
    nor underflow: the part of float16's error that no form of the network avoids.
    """
    with _Digits():
        return network(images)


class _Rounding(TorchDispatchMode):
    """Rounds what operations on float16 tensors give; the operations themselves are computed in float32."""

    rounds = torch.float16

    def __init__(self, flush: bool = False) -> None:
        super().__init__()
        self.flush = flush
        self.where = [""]
        self.ranges: dict[str, Range] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            return tree_map_only(Tensor, self._flushed, func(*args, **kwargs))
        floats = {leaf.dtype for leaf in tree_leaves((args, kwargs))
                  if isinstance(leaf, Tensor) and leaf.is_floating_point()}  # fmt: skip
        if func.is_view or floats != {self.rounds}:
            return func(*args, **kwargs)
        wide_args, wide_kwargs = tree_map_only(Tensor, self._widened, (args, kwargs))
        rounded = tree_map_only(Tensor, self._rounded, func(*wide_args, **wide_kwargs))
        return args[0].copy_(rounded) if func._schema.is_mutable else rounded

    def _widened(self, x: Tensor) -> Tensor:
        return self._flushed(x).float() if x.dtype == torch.float16 else x

    def _rounded(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        if x.numel():  # batch norm also gives back empty statistics
            self.ranges.setdefault(self.where[-1], Range()).add(x)
        return self._flushed(x.half())

    def _flushed(self, x: Tensor) -> Tensor:
        return x.masked_fill(x.abs() < TINY, 0) if self.flush and x.dtype == torch.float16 else x


class _Digits(_Rounding):
    """Rounds what operations on float32 tensors take and give to 11 binary digits."""

    rounds = torch.float32

    def _widened(self, x: Tensor) -> Tensor:
        return self._rounded(x)

    def _rounded(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return x
        mantissa, exponent = torch.frexp(x)
        return torch.ldexp((mantissa * 2**11).round(), exponent - 11)


@contextmanager
def _named(network: nn.Module, mode: _Rounding) -> Iterator[None]:
    """Tell `mode` which part of the network computes."""

    def leave(*_: object) -> None:
        mode.where.pop()

    handles = []
    for name, module in network.named_modules():
        words = name.split(".")
        part = ".".join(words[: 2 if words[0] == "backbone" else 3])
        handles.append(module.register_forward_pre_hook(lambda *_, part=part: mode.where.append(part)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
