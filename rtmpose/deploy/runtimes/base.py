"""What all runtimes have in common: images in, the network's outputs out, in a precision and a place that are
set on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np

from rtmpose.machine import bf16_instructions, cpu_kind

RuntimeName = Literal[
    "pytorch",
    "pytorch-compiled",
    "onnxruntime",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "ncnn",
    "mnn",
    "litert",
    "executorch",
    "rknn",
    "coreml",
]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
DeviceKind = Literal["cpu", "gpu"]
TENSORRT: frozenset[RuntimeName] = frozenset({"tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt"})
# float32 (N, 3, H, W) RGB normalised → float32 simcc_x (N, K, 2W) and simcc_y (N, K, 2H), or heatmaps
# (N, K, H/4, W/4)
Infer = Callable[[np.ndarray], tuple[np.ndarray, ...]]


class NotPossible(Exception):
    """This runtime cannot run this model here; the text is the reason that a report prints."""


@dataclass(frozen=True)
class Spent:
    """What a process has cost so far: the most memory that it had, MB, and its CPU time, s."""

    peak_mb: float
    cpu_s: float


@dataclass(frozen=True)
class Session:
    """A model that is open in a runtime: call it with images.

    Where the runtime computes in another process, `elsewhere` tells what that one has cost.
    """

    infer: Infer
    version: str  # the runtime's own, such as "1.31.1"
    device: str  # what it computes on, in the runtime's words, such as "CPUExecutionProvider"
    elsewhere: Callable[[], Spent] | None = None

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.infer(images)


@dataclass(frozen=True)
class ModelFiles:
    """An exported model and, for PyTorch, the weights it was exported from.

    Other forms of the model lie beside it and share its stem: `rtmpose.onnx`, `rtmpose.fp16.onnx`,
    `rtmpose.int8.onnx`, `rtmpose.int8.symmetric.onnx`, `rtmpose.int8.xml`, `rtmpose.ncnn.param`.
    """

    onnx: Path
    weights: Path | None = None

    def form(self, precision: Precision, ending: str = ".onnx") -> Path:
        """Where the model lies in a precision and a file format: fp32 has no word in its name."""
        return self.onnx.with_suffix(ending if precision == "fp32" else f".{precision}{ending}")

    def onnx_for(self, runtime: RuntimeName, precision: Precision) -> Path:
        """The ONNX file that a runtime reads: TensorRT takes only int8 whose zero points are all 0."""
        symmetric = precision == "int8" and runtime in TENSORRT
        return self.form(precision, ".symmetric.onnx" if symmetric else ".onnx")


@dataclass(frozen=True)
class Placement:
    """Where a model runs, and with how many CPU threads. OpenVINO can part them among `streams`: each
    computes a call, all at the same time.
    """

    device: DeviceKind = "cpu"
    threads: int = 1
    streams: int = 1


def tried_name(runtime: str, precision: str, device: DeviceKind) -> str:
    """How reports name a runtime and precision: "onnxruntime_int8", and on a GPU "pytorch_fp16_gpu"."""
    return f"{runtime}_{precision}" + ("_gpu" if device == "gpu" else "")


def tried_parts(name: str) -> tuple[RuntimeName, Precision, DeviceKind]:
    """What a `tried_name` stands for; ValueError where it is none."""
    device: DeviceKind = "gpu" if name.endswith("_gpu") else "cpu"
    runtime, _, precision = name.removesuffix("_gpu").rpartition("_")
    if runtime not in get_args(RuntimeName) or precision not in get_args(Precision):
        raise ValueError(f"{name} is no runtime and precision")
    return cast("RuntimeName", runtime), cast("Precision", precision), device


# Images of one pass in OpenVINO, where there are as many: each takes less time than alone, and in a pass of
# eight hardly less than in one of four.
TOGETHER = 4

# How a runtime opens a model: (files, precision, placement, batch) → Session, or NotPossible.
Loader = Callable[[ModelFiles, Precision, Placement, int], Session]


def require_cpu(runtime: str, placement: Placement) -> None:
    """NotPossible where a runtime that is tried on the CPU only is asked for on a GPU."""
    if placement.device != "cpu":
        raise NotPossible(f"{runtime} is tried on the CPU only")


def require_precision(runtime: str, precision: Precision, possible: Collection[Precision]) -> None:
    """NotPossible where a runtime is asked for a precision that it has no way to compute in."""
    if precision not in possible:
        raise NotPossible(f"{runtime} runs this model in {' or '.join(possible)}, not in {precision}")


def image_by_image(infer: Infer, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """A batch through a runtime that computes one image at a time; `infer` may reuse its output buffers."""
    rows = [[np.array(output) for output in infer(images[i : i + 1])] for i in range(len(images))]
    return tuple(np.concatenate(output) for output in zip(*rows, strict=True))


def refuse_other_batch(images: np.ndarray, batch: int) -> None:
    """ValueError for a batch of another size than the session was opened for."""
    if len(images) != batch:
        raise ValueError(f"this session was opened for batches of {batch}, not of {len(images)}")


def require_bf16() -> None:
    """NotPossible on a CPU that would emulate bfloat16."""
    if not bf16_instructions():
        raise NotPossible(
            f"this CPU ({cpu_kind()}) has no bf16 instructions (avx512_bf16, amx_bf16 or ARM bf16); it would "
            "be emulated"
        )
