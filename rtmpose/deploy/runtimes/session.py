"""Opening a model in a runtime by name. Each runtime is imported when it is asked for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import cast, get_args

import numpy as np

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.base import (
    Infer,
    Loader,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    RuntimeName,
    Session,
    image_by_image,
)
from rtmpose.files import UserError


def open_session(
    runtime: RuntimeName,
    files: ModelFiles,
    precision: Precision = "fp32",
    placement: Placement | None = None,
    batch: int = 1,
) -> Session:
    """Load the model into a runtime, by default on the CPU with one thread; other batch sizes than `batch`
    may be refused.

    Raises NotPossible when the runtime is not installed, cannot do this precision in this place, or ignores a
    setting; UserError when what it computes has not the sizes that the model card says.
    """
    from rtmpose.deploy.runtimes.onnxruntime import read_card

    card = read_card(files.onnx)
    try:
        session = _loader(runtime)(files, precision, placement or Placement(), batch)
    except ImportError as error:
        raise NotPossible(f"not installed ({error})") from None
    _refuse_other_sizes(session, card, files, batch)
    return session


def open_any_number(
    runtime: RuntimeName,
    files: ModelFiles,
    precision: Precision,
    placement: Placement,
    *,
    crops: bool = False,
) -> Infer:
    """As `open_session`, for batches of any size: OpenVINO computes several images in a pass, others one by
    one. With `crops` it takes uint8 RGB (N, H, W, 3) as they were cut, which OpenVINO alone does: NotPossible
    for others.
    """
    if runtime != "openvino":
        if crops:
            raise NotPossible(f"{runtime} takes normalised images, no crops")
        return partial(image_by_image, open_session(runtime, files, precision, placement))
    try:
        from rtmpose.deploy.runtimes import openvino
    except ImportError as error:
        raise NotPossible(f"not installed ({error})") from None
    return openvino.load_any_number(files, precision, placement, crops=crops)


def convert_model(runtime: str, files: ModelFiles, precision: str) -> tuple[Path, ...]:
    """Write the model in a runtime's own format beside the ONNX file, unless it is there; where it then lies.

    UserError for a runtime without a format of its own, an unknown precision, and what cannot be converted
    here, with the reason.
    """
    from rtmpose.deploy.runtimes.onnxruntime import read_card

    read_card(files.onnx)  # a damaged file, and a model that is not ours, are told first
    kind = cast(Precision, precision)
    if precision not in get_args(Precision):
        raise UserError(f"--precision: {precision!r} is none of {', '.join(get_args(Precision))}")
    try:
        match runtime:
            case "ncnn":
                from rtmpose.deploy.runtimes import ncnn

                return ncnn.convert(files, kind)
            case "mnn":
                from rtmpose.deploy.runtimes import mnn

                return mnn.convert(files, kind)
            case "litert" | "executorch" | "rknn":
                from rtmpose.deploy.runtimes import apart

                return apart.convert(runtime, files, kind)
            case "coreml":
                from rtmpose.deploy.runtimes import coreml

                return coreml.convert(files, kind)
    except ImportError as error:
        raise UserError(
            f"--runtime: {runtime} is not installed ({error}); pip install 'rtmpose[{runtime}]'"
        ) from None
    except NotPossible as reason:
        raise UserError(f"{files.onnx}: not converted: {reason}") from None
    raise UserError(f"--runtime: {runtime!r} is none of ncnn, mnn, litert, executorch, rknn, coreml")


def _refuse_other_sizes(session: Session, card: ModelCard, files: ModelFiles, batch: int) -> None:
    """One black batch through the session: not every format stores the sizes that it computes."""
    image, _ = card.shapes(batch)
    outputs = session(np.zeros(image, np.float32))
    found = {name: output.shape for name, output in zip(card.outputs, outputs, strict=False)}
    card.refuse_unlike({"input": image} | found, files.onnx)


def _loader(runtime: RuntimeName) -> Loader:
    """The function that opens a model in this runtime; ImportError where its package is not installed."""
    match runtime:
        case "pytorch" | "pytorch-compiled":
            from rtmpose.deploy.runtimes import pytorch

            return pytorch.load if runtime == "pytorch" else pytorch.load_compiled
        case "onnxruntime":
            from rtmpose.deploy.runtimes import onnxruntime

            return onnxruntime.load
        case "onnxruntime-cuda" | "onnxruntime-tensorrt":
            from rtmpose.deploy.runtimes import onnxruntime_gpu

            return (
                onnxruntime_gpu.load_cuda if runtime == "onnxruntime-cuda" else onnxruntime_gpu.load_tensorrt
            )
        case "openvino":
            from rtmpose.deploy.runtimes import openvino

            return openvino.load
        case "tensorrt" | "tensorrt-rtx":
            from rtmpose.deploy.runtimes import tensorrt

            return tensorrt.load if runtime == "tensorrt" else tensorrt.load_rtx
        case "ncnn":
            from rtmpose.deploy.runtimes import ncnn

            return ncnn.load
        case "mnn":
            from rtmpose.deploy.runtimes import mnn

            return mnn.load
        case "litert" | "executorch" | "rknn":
            from rtmpose.deploy.runtimes import apart

            return apart.loader(runtime)
        case "coreml":
            from rtmpose.deploy.runtimes import coreml

            return coreml.load
