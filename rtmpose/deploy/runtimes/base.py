"""What all runtimes have in common: images in, the network's outputs out, in a precision and a place that are
set on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rtmpose.machine import bf16_instructions, cpu_kind

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
            f"this CPU ({cpu_kind()}) has no bf16 instructions (avx512_bf16, amx_bf16 or ARM bf16); it would "
            "be emulated"
        )
