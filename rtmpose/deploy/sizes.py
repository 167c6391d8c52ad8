"""How large the files are that a runtime loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rtmpose.deploy.runtimes.base import ModelFiles, Precision, RuntimeName

MB = 1e6
ENDINGS: Mapping[RuntimeName, tuple[str, ...]] = {
    "openvino": (".xml", ".bin"),
    "ncnn": (".ncnn.param", ".ncnn.bin"),
    "mnn": (".mnn",),
    "litert": (".tflite",),
    "executorch": (".pte",),
    "rknn": (".rknn",),
    "coreml": (".mlpackage",),
}


def file_mb(files: ModelFiles, runtime: RuntimeName, precision: Precision) -> float:
    """MB (10^6 bytes) of the model's files for a runtime and a precision.

    A runtime without files of its own in that precision loads the ONNX file, in that precision where there is
    one; PyTorch loads the weights.
    """
    if runtime.startswith("pytorch") and files.weights is not None:
        return _mb([files.weights])
    own = [files.form(precision, ending) for ending in ENDINGS.get(runtime, ())]
    for paths in (own, [files.form(precision)], [files.onnx]):
        if paths and all(path.exists() for path in paths):
            return _mb(paths)
    return _mb([files.onnx])


def _mb(paths: list[Path]) -> float:
    inside = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*"))]
    return round(sum(path.stat().st_size for path in inside if path.is_file()) / MB, 3)
