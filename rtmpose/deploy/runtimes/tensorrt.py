"""TensorRT and TensorRT-RTX on an NVIDIA GPU: strongly typed networks, whose precision is that of the ONNX
file.

An engine is built once for a GPU, a version, a file and a batch size, and kept beside the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.base import (
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    refuse_other_batch,
    require_precision,
)
from rtmpose.deploy.runtimes.onnx_form import onnx_form
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import read_bytes, sha256_of, write_atomic

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Open the engine of TensorRT, built first where there is none for this GPU, version, file and batch."""
    _refuse_without_gpu("TensorRT", precision, placement)
    import tensorrt

    return _load(tensorrt, "TensorRT", files, precision, batch)


def load_rtx(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """As `load`, with TensorRT-RTX, which compiles its kernels when the engine is opened."""
    _refuse_without_gpu("TensorRT-RTX", precision, placement)
    import tensorrt_rtx

    return _load(tensorrt_rtx, "TensorRT-RTX", files, precision, batch)


def build(trt: Any, path: Path, card: ModelCard, batch: int, capability: str | None = None) -> bytes:
    """The engine of an ONNX file for batches of one size.

    trt: the package, tensorrt or tensorrt_rtx. capability: for which GPUs, such as "SM89"; only TensorRT-RTX
    takes it, and then builds where there is no GPU. NotPossible with TensorRT's own words where it cannot.
    """
    logger = _logger(trt)
    builder = trt.Builder(logger)
    strongly = getattr(
        trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None
    )  # TensorRT 11 knows no other
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = [f"{error.node_operator()} {error.desc()}".strip() for error in errors]
        raise NotPossible(f"TensorRT cannot read {path}: {_short(reasons)}")
    _refuse_other_network(network, card, path)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is fp32, not ten bits of mantissa
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.__members__[capability], 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("input", *[card.shapes(batch)[0]] * 3)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise NotPossible(f"TensorRT cannot build an engine of {path}: {_short(logger.messages)}")
    return bytes(plan)


def engine_path(path: Path, gpu: str, capability: tuple[int, int], version: str, batch: int) -> Path:
    """Where the engine of an ONNX file is kept; each GPU, version, file and batch size has its own."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-")
    key = f"{name}-sm{capability[0]}{capability[1]}-trt{version}-{sha256_of(path)[:16]}-batch{batch}"
    return path.with_name(f"{path.stem}.{key}.engine")


def kept_engine(place: Path, make: Callable[[], bytes], opened: Callable[[bytes], Any]) -> Any:
    """What `opened` makes of the engine kept at `place`; where there is none, or it is damaged so that
    `opened` gives None, of a new one, which is kept from then on.
    """
    if place.is_file() and (engine := opened(read_bytes(place))) is not None:
        return engine
    plan = make()
    engine = opened(plan)
    if engine is None:
        raise NotPossible("TensorRT cannot open the engine that it has built here")
    write_atomic(place, plan)
    return engine


def _refuse_without_gpu(name: str, precision: Precision, placement: Placement) -> None:
    require_precision(name, precision, PRECISIONS)
    if placement.device != "gpu":
        raise NotPossible(f"{name} computes on a GPU only")
    import torch

    if not torch.cuda.is_available():
        raise NotPossible(f"not run here: {name} needs an NVIDIA GPU, and PyTorch sees none")


def _load(trt: Any, name: str, files: ModelFiles, precision: Precision, batch: int) -> Session:
    import torch

    path = onnx_form(files, precision, "tensorrt")
    card = read_card(files.onnx)
    gpu, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    runtime = trt.Runtime(_logger(trt))
    place = engine_path(path, gpu, capability, f"{name}-{trt.__version__}", batch)
    engine = kept_engine(place, lambda: build(trt, path, card, batch), runtime.deserialize_cuda_engine)
    context = engine.create_execution_context()
    context.set_input_shape("input", card.shapes(batch)[0])
    tensors = {
        tensor: torch.empty(
            tuple(context.get_tensor_shape(tensor)), dtype=_dtype(trt, engine, tensor), device="cuda"
        )
        for tensor in ("input", *card.outputs)
    }
    for tensor, memory in tensors.items():
        context.set_tensor_address(tensor, memory.data_ptr())
    stream = torch.cuda.Stream()

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        refuse_other_batch(images, batch)
        with torch.cuda.stream(stream):
            tensors["input"].copy_(torch.from_numpy(images))
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError(f"{name} could not run the engine {place}")
            found = tuple(tensors[output].float().cpu().numpy() for output in card.outputs)
        return found

    return Session(infer, trt.__version__, f"{gpu} (sm{capability[0]}{capability[1]})")


def _dtype(trt: Any, engine: Any, tensor: str) -> Any:
    """PyTorch's type of an engine's input or output."""
    import torch

    kinds = {trt.DataType.FLOAT: torch.float32, trt.DataType.HALF: torch.float16}
    return kinds[engine.get_tensor_dtype(tensor)]


def _refuse_other_network(network: Any, card: ModelCard, path: Path) -> None:
    """UserError where the parsed names or sizes are not those of the card."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    card.refuse_unlike({tensor.name: list(tensor.shape) for tensor in tensors}, path)


def _logger(trt: Any) -> Any:
    """A logger that keeps what TensorRT reports as an error, for the reason that a report prints."""

    class Kept(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.messages.append(text)

    return Kept()


def _short(messages: list[str]) -> str:
    return " ".join("; ".join(messages).split())[:300] or "no reason given"
