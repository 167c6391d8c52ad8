"""OpenVINO on the CPU, in fp32, bf16 and, from a file that NNCF quantised, int8."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from rtmpose.deploy.origin import EXPORTED, refuse_other
from rtmpose.deploy.runtimes.base import (
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    require_bf16,
    require_cpu,
    require_precision,
)
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import UserError, one_line

HINTS: dict[Precision, Any] = {
    "fp32": ov.Type.f32,
    "bf16": ov.Type.bf16,
    "int8": ov.Type.f32,
}  # what is not quantised
MADE_BY = "`rtmpose quantize` writes it"
CONVOLVES_IN = {"fp32": {"f32"}, "bf16": {"bf16"}, "int8": {"u8", "i8"}}


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Compile the exported file, or for int8 the quantised one, for one batch size.

    Precision is set on purpose: on a CPU with bf16 instructions OpenVINO would choose bf16 by itself. What
    the compiled model says it uses is checked against what was asked for, setting by setting, and the
    precision by what its convolutions are computed in.
    """
    require_cpu("OpenVINO", placement)
    require_precision("OpenVINO on a CPU", precision, tuple(HINTS))
    core = ov.Core()
    if precision == "bf16":
        require_bf16()
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise NotPossible("OpenVINO does not list BF16 among this CPU's capabilities")
    wanted = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": placement.threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }
    compiled = core.compile_model(_read(core, files, precision, batch), "CPU", wanted)
    for key in ("INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT"):
        if compiled.get_property(key) != wanted[key]:
            raise NotPossible(f"OpenVINO uses {key}={compiled.get_property(key)} instead of {wanted[key]}")
    _refuse_other_precision(compiled, precision)
    outputs = [compiled.output(name) for name in read_card(files.onnx).outputs]
    request = compiled.create_infer_request()

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        found = request.infer({"input": images}, share_inputs=True)
        return tuple(found[output] for output in outputs)

    return Session(infer, ov.__version__, "CPU")


def _read(core: ov.Core, files: ModelFiles, precision: Precision, batch: int) -> ov.Model:
    """The file's network with its batch fixed; UserError where its sizes are another model's, NotPossible
    where a quantised one was made from another exported file.
    """
    path = files.form(precision, ".xml") if precision == "int8" else files.onnx
    if precision == "int8":
        _require_quantised(path)
    try:
        model = core.read_model(str(path))
    except RuntimeError as error:
        raise UserError(
            f"{path}: OpenVINO cannot read it; write it again ({one_line(error)[:200]})"
        ) from None
    if precision == "int8":
        info = EXPORTED.split(".")
        noted = str(model.get_rt_info(info).value) if model.has_rt_info(info) else None
        refuse_other(noted, path, files.onnx, MADE_BY)
    values = (*model.inputs, *model.outputs)
    shapes = {
        name: [size.get_length() if size.is_static else "free" for size in value.get_partial_shape()]
        for value in values
        for name in value.get_names()
    }
    read_card(files.onnx).refuse_unlike(shapes, path)
    shape = model.input("input").get_partial_shape()
    shape[0] = batch
    model.reshape({"input": shape})
    return model


def _require_quantised(path: Path) -> None:
    for part in (path, path.with_suffix(".bin")):
        if not part.is_file():
            raise NotPossible(f"{part}: no such file; {MADE_BY}")


def _refuse_other_precision(compiled: ov.CompiledModel, precision: Precision) -> None:
    """NotPossible where the compiled network computes no convolution in the precision that was asked for, or
    in fp32 and bf16 one in another.
    """
    types = Counter(
        str(operation.get_rt_info()["runtimePrecision"].value)
        for operation in compiled.get_runtime_model().get_ordered_ops()
        if "Convolution" in str(operation.get_rt_info()["layerType"].value)
    )
    expected = CONVOLVES_IN[precision]
    others = set(types) - expected
    if not expected & set(types) or (others and precision != "int8"):
        found = ", ".join(f"{count} in {kind}" for kind, count in types.items()) or "none found"
        raise NotPossible(f"OpenVINO computes the convolutions otherwise than in {precision}: {found}")
