"""ONNX Runtime on the CPU, in fp32 and, from a quantised file, in int8."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnxruntime as ort

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.base import (
    Infer,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    require_cpu,
)
from rtmpose.files import UserError
from rtmpose.machine import cpu_kind, needs_reduced_range

PROVIDER = "CPUExecutionProvider"
ARM = ("aarch64", "arm64")  # with halves where the CPU has arithmetic for them, else by way of fp32
WARNING_ONLY = 3  # ONNX Runtime's severity "error": its hints about the machine do not belong in a report


def open_file(
    path: Path, threads: int = 0, fix: str = "run the export stage", *, spinning: bool = True
) -> ort.InferenceSession:
    """A CPU session of `path` with `threads` threads (0: ONNX Runtime's choice); UserError with the `fix` for
    a file that is not there or damaged.

    Threads that wait for each other spin, which is faster where they have their cores to themselves; without
    `spinning` they leave them to others.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {fix}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = WARNING_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    try:
        return ort.InferenceSession(str(path), options, providers=[PROVIDER])
    except Exception as error:  # the binding raises classes of its own for each way a file can be damaged
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a complete ONNX model; {fix} again ({reason})") from None


def read_card(path: Path) -> ModelCard:
    """The metadata that our export stored in `path`; UserError where the file is no model of ours, or the
    metadata is that of another model.
    """
    session = open_file(path, threads=1)
    try:
        properties = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError:
        raise UserError(f"{path}: metadata is damaged: no text; export the model again") from None
    card = ModelCard.from_properties(properties, path)
    values = (*session.get_inputs(), *session.get_outputs())
    card.refuse_unlike({value.name: value.shape for value in values}, path)
    return card


def refuse_saturation(card: ModelCard, path: Path) -> None:
    """NotPossible where the file `path` has weights whose sums this CPU would cut off, by its card, which in
    files from before this was noted says nothing.
    """
    if card.weight_bits == 8 and needs_reduced_range():
        raise NotPossible(
            f"{path}: has 8-bit weights, whose sums this CPU ({cpu_kind()}) cuts off at 16 bits; "
            "`rtmpose quantize` writes 7-bit ones here"
        )


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Open the exported file, or for int8 the quantised one, and never on another provider than asked for."""
    from rtmpose.deploy.runtimes.onnx_form import onnx_form

    require_cpu("ONNX Runtime's CPU provider", placement)
    if precision == "bf16" or (precision == "fp16" and platform.machine() not in ARM):
        raise NotPossible(
            f"ONNX Runtime's CPU provider has no {precision} kernels for convolutions on {platform.machine()}"
        )
    path = onnx_form(files, precision)
    if precision == "int8":
        refuse_saturation(read_card(path), path)
    session = open_file(path, placement.threads)
    if session.get_providers() != [PROVIDER]:
        raise NotPossible(f"ONNX Runtime chose {session.get_providers()} instead of {PROVIDER}")
    return Session(through(session), ort.__version__, PROVIDER)


def through(session: ort.InferenceSession) -> Infer:
    """A session as a function of float32 arrays, whatever its file takes and gives."""
    names = [output.name for output in session.get_outputs()]
    half = session.get_inputs()[0].type == "tensor(float16)"

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = session.run(names, {"input": images.astype(np.float16) if half else images})
        return tuple(output.astype(np.float32, copy=False) for output in outputs)

    return infer
