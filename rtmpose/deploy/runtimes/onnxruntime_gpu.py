"""ONNX Runtime on an NVIDIA GPU, through its CUDA or its TensorRT provider, with every node there or not at
all: the runtime itself would go on without a word on the CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort

from rtmpose.deploy.quiet import quiet
from rtmpose.deploy.runtimes.base import (
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    require_precision,
)
from rtmpose.deploy.runtimes.onnx_form import onnx_form
from rtmpose.deploy.runtimes.onnxruntime import WARNING_ONLY, through
from rtmpose.files import one_line, sha256_of

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def load_cuda(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Open the file of `precision` on the CUDA provider; fp32 without TF32, which has 10 bits of mantissa."""
    require_precision("ONNX Runtime's CUDA provider", precision, ("fp32", "fp16"))
    _require(CUDA, placement)
    return _open(onnx_form(files, precision), CUDA, {"use_tf32": "0"}, batch)


def load_tensorrt(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Open the file of `precision` on the TensorRT provider; its engines are kept beside the file."""
    require_precision("ONNX Runtime's TensorRT provider", precision, ("fp32", "fp16", "int8"))
    _require(TENSORRT, placement)
    path = onnx_form(files, precision, "onnxruntime-tensorrt")
    options = {
        "trt_fp16_enable": str(precision == "fp16"),
        "trt_int8_enable": str(precision == "int8"),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(_engines(path)),
    }
    return _open(path, TENSORRT, options, batch)


def _engines(path: Path) -> Path:
    """The provider's own cache, one for each file and version; inside, the provider tells GPUs apart."""
    return path.with_suffix(f".ort-{ort.__version__}-{sha256_of(path)[:16]}.engines")


def _require(provider: str, placement: Placement) -> None:
    if placement.device != "gpu":
        raise NotPossible(f"{provider} computes on a GPU only")
    if provider not in ort.get_available_providers():
        raise NotPossible(
            f"not run here: this onnxruntime {ort.__version__} has no {provider} (it has "
            f"{', '.join(ort.get_available_providers())}); on a machine with an NVIDIA GPU put "
            f"onnxruntime-gpu=={ort.__version__} in its place"
        )


def _open(path: Path, provider: str, settings: dict[str, Any], batch: int) -> Session:
    """A session of one batch size: with free sizes some nodes would compute shapes, on the CPU.

    CUDA's libraries are those of NVIDIA's packages beside this one, which PyTorch brings too.
    """
    with quiet():  # what is missing is told when the session opens
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.log_severity_level = WARNING_ONLY
    options.add_free_dimension_override_by_name("batch", batch)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=[(provider, settings)])
    except Exception as error:  # the binding raises classes of its own, also for nodes left to the CPU
        raise NotPossible(f"{provider} does not run all of this network: {one_line(error)[:300]}") from None
    if session.get_providers()[0] != provider:
        raise NotPossible(
            f"not run here: ONNX Runtime chose {session.get_providers()[0]} instead of {provider}; its CUDA "
            "libraries, or the GPU, are missing"
        )
    session.disable_fallback()  # a failing call would otherwise open the session anew on the CPU
    return Session(through(session), ort.__version__, provider)
