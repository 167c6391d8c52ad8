"""How large the files are that a runtime loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rtmpose.deploy.runtimes.base import ModelFiles, Precision, RuntimeName

MB = 1e6
IN_PLACE = frozenset({"openvino"})  # reads files that the workflow wrote; others convert theirs on the spot
QUANTIZED = frozenset({"litert", "executorch"})  # in int8 the workflow wrote theirs, with a receipt
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
    return _mb(_loaded(files, runtime, precision))


def sources(files: ModelFiles, runtime: RuntimeName, precision: Precision) -> list[Path]:
    """The files of the workflow that a runtime's model comes from: what it loads, or what that was converted
    from; always with the exported file.
    """
    if precision == "int8" and runtime in QUANTIZED:
        used = [files.form(precision, ending) for ending in (*ENDINGS[runtime], f".{runtime}.json")]
    elif runtime in ENDINGS and runtime not in IN_PLACE:
        used = [path for path in (files.form(precision), files.weights) if path is not None]
    else:
        used = _loaded(files, runtime, precision)
    return sorted({files.onnx, *(path for path in used if path.is_file())})


def _loaded(files: ModelFiles, runtime: RuntimeName, precision: Precision) -> list[Path]:
    if runtime.startswith("pytorch") and files.weights is not None:
        return [files.weights]
    own = [files.form(precision, ending) for ending in ENDINGS.get(runtime, ())]
    for paths in (own, [files.onnx_for(runtime, precision)]):
        if paths and all(path.exists() for path in paths):
            return paths
    return [files.onnx]


def _mb(paths: list[Path]) -> float:
    inside = [each for path in paths for each in ([path] if path.is_file() else path.rglob("*"))]
    return round(sum(path.stat().st_size for path in inside if path.is_file()) / MB, 3)
