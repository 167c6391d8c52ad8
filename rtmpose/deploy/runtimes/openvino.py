"""OpenVINO on the CPU."""

from __future__ import annotations

import numpy as np
import openvino as ov

from rtmpose.deploy.runtimes.base import (
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    require_bf16,
)

TYPES = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16}


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Compile the exported file for one batch size.

    Precision is set on purpose: on a CPU with bf16 instructions OpenVINO would choose bf16 by itself. What
    the compiled model says it uses is checked against what was asked for.
    """
    if placement.device != "cpu":
        raise NotPossible("OpenVINO is tried on the CPU only")
    if precision not in TYPES:
        raise NotPossible(f"OpenVINO on a CPU runs this file in fp32 or bf16, not in {precision}")
    core = ov.Core()
    if precision == "bf16":
        require_bf16()
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise NotPossible("OpenVINO does not list BF16 among this CPU's capabilities")
    model = core.read_model(str(files.onnx))
    shape = model.input("input").get_partial_shape()
    shape[0] = batch
    model.reshape({"input": shape})
    wanted = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": placement.threads,
        "INFERENCE_PRECISION_HINT": TYPES[precision],
    }
    compiled = core.compile_model(model, "CPU", wanted)
    for key in ("INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT"):
        if compiled.get_property(key) != wanted[key]:
            raise NotPossible(f"OpenVINO uses {key}={compiled.get_property(key)} instead of {wanted[key]}")
    request = compiled.create_infer_request()

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = request.infer({"input": images}, share_inputs=True)
        return tuple(outputs[output] for output in compiled.outputs)

    return Session(infer, ov.__version__, "CPU")
