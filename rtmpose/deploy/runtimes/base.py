"""One way to run a model in every runtime: images in, SimCC vectors out, with threads and precision set on
purpose.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rtmpose.config import Precision

RuntimeName = Literal["pytorch", "onnxruntime", "openvino"]
# float32 (N, 3, H, W) RGB normalised → float32 simcc_x (N, K, 2W), simcc_y (N, K, 2H)
Infer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class NotPossible(Exception):
    """This runtime cannot run this model here; the text is the reason that a report prints."""


@dataclass(frozen=True)
class ModelFiles:
    """An exported model and, for PyTorch, the weights it was exported from."""

    onnx: Path
    weights: Path | None = None


def open_session(
    runtime: RuntimeName, files: ModelFiles, precision: Precision, threads: int, batch: int
) -> Infer:
    """Load the model into a runtime that uses `threads` CPU threads; `batch` is a hint, other sizes may be
    refused.

    Raises NotPossible when the runtime is not installed, cannot do this precision on this CPU, or ignores a
    setting.
    """
    if precision == "bf16" and not bf16_instructions():
        raise NotPossible(
            "this CPU has no bf16 instructions (avx512_bf16, amx_bf16 or ARM bf16); it would be emulated"
        )
    try:
        match runtime:
            case "pytorch":
                from rtmpose.deploy.runtimes import pytorch

                return pytorch.load(files, precision, threads)
            case "onnxruntime":
                from rtmpose.deploy.runtimes import onnxruntime

                return onnxruntime.load(files, precision, threads)
            case "openvino":
                from rtmpose.deploy.runtimes import openvino

                return openvino.load(files, precision, threads, batch)
    except ImportError as error:
        raise NotPossible(f"not installed ({error})") from None


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
