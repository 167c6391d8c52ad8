"""MNN on the CPU, from the exported file.

Its Python package `MNN.tools` is never imported: on import it asks pip to install a logging service's client,
and its command reports each conversion to that service. The converter itself is in the module `_tools`.
"""

from __future__ import annotations

import subprocess
import sys

import MNN
import numpy as np
from MNN import expr

from rtmpose.deploy.runtimes.base import (
    Infer,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    require_cpu,
    require_precision,
)
from rtmpose.deploy.runtimes.conversion import Conversion, Parts
from rtmpose.deploy.runtimes.onnx_form import onnx_form
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.machine import cpu_kind, usable_flags

CONVERTER = "import sys, _tools; _tools.mnnconvert(sys.argv)"
FP16 = frozenset({"asimdhp", "fphp"})  # half-precision arithmetic of ARMv8.2, as the Linux kernel names it


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Open the converted network in fp32, or in fp16 where the CPU computes in it."""
    require_cpu("MNN", placement)
    parts = convert(files, precision)
    outputs = read_card(files.onnx).outputs
    infer = _open(parts, outputs, precision, placement.threads)
    return Session(infer, MNN.version(), "CPU")


def convert(files: ModelFiles, precision: Precision) -> Parts:
    """`*.mnn`, made where it is missing or of another model. The file is fp32 also for fp16: MNN converts
    when it opens it.
    """
    require_precision("MNN", precision, ("fp32", "fp16"))
    if precision == "fp16" and not cpu_flags_for_fp16():
        raise NotPossible(f"MNN computes fp16 on ARMv8.2 only; on this CPU ({cpu_kind()}) it takes fp32")
    outputs = read_card(files.onnx).outputs
    return Conversion(
        "mnn", (".mnn",), f"MNN {MNN.version()}", _make, lambda parts: _open(parts, outputs, precision, 1)
    ).converted(files, precision)


def cpu_flags_for_fp16() -> frozenset[str]:
    """The half-precision instructions of this CPU that MNN uses."""
    return usable_flags() & FP16


def _make(files: ModelFiles, precision: Precision, parts: Parts) -> None:
    arguments = {
        "-f": "ONNX",
        "--modelFile": str(onnx_form(files, "fp32")),
        "--MNNModel": str(parts[0]),
        "--bizCode": "rtmpose",
    }
    command = [sys.executable, "-c", CONVERTER, *(word for pair in arguments.items() for word in pair)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mnnconvert ended with status {done.returncode}: {done.stderr.strip()[-200:]}")


def _open(parts: Parts, outputs: tuple[str, ...], precision: Precision, threads: int) -> Infer:
    settings = {
        "backend": "CPU",
        "precision": "high" if precision == "fp32" else "low",
        "numThread": threads,
    }
    runtime = MNN.nn.create_runtime_manager((settings,))
    try:
        net = MNN.nn.load_module_from_file(str(parts[0]), ["input"], list(outputs), runtime_manager=runtime)
    except (RuntimeError, SystemError):  # a file that is cut short; the converter says nothing of a full disk
        net = None
    if net is None:
        raise NotPossible(f"{parts[0]}: MNN cannot read it, or it has not the outputs {', '.join(outputs)}")

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        taken = expr.const(np.ascontiguousarray(images), list(images.shape), expr.NCHW)
        return tuple(np.array(found.read()) for found in net.forward([taken]))

    return infer
