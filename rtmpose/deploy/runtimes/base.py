"""What all runtimes have in common: images in, the network's outputs out, in a precision and a place that are
set on purpose.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

RuntimeName = Literal["pytorch", "onnxruntime", "openvino"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
# float32 (N, 3, H, W) RGB normalised → float32 simcc_x (N, K, 2W) and simcc_y (N, K, 2H), or heatmaps
# (N, K, H/4, W/4)
Infer = Callable[[np.ndarray], tuple[np.ndarray, ...]]


class NotPossible(Exception):
    """This runtime cannot run this model here; the text is the reason that a report prints."""


@dataclass(frozen=True)
class ModelFiles:
    """An exported model and, for PyTorch, the weights it was exported from."""

    onnx: Path
    weights: Path | None = None


@dataclass(frozen=True)
class Placement:
    """Where a model runs, and with how many CPU threads."""

    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = 1


def require_bf16() -> None:
    """NotPossible on a CPU that would emulate bfloat16."""
    if not bf16_instructions():
        raise NotPossible(
            "this CPU has no bf16 instructions (avx512_bf16, amx_bf16 or ARM bf16); it would be emulated"
        )


def cpu_flags() -> frozenset[str]:
    """The instruction sets that the Linux kernel reports for this CPU; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.split()[2:]
    )


def cpu_name() -> str:
    """The CPU's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def bf16_instructions() -> frozenset[str]:
    """Which of the bfloat16 instruction sets this CPU has."""
    return cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"}
