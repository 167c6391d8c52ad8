"""PyTorch, as the library itself runs a model: eager, channels-last, reduced precision by autocast."""

from __future__ import annotations

import numpy as np
import torch

from rtmpose.deploy.runtimes.base import (
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    require_bf16,
)
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.models import autocast, load_exactly
from rtmpose.targets import at_least_float32


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Load the weights into the network that the exported file describes."""
    if files.weights is None:
        raise NotPossible("PyTorch needs the weights that the model was exported from")
    device = _device(precision, placement)
    torch.set_num_threads(placement.threads)
    model = read_card(files.onnx).network()
    load_exactly(model, files.weights, f"{files.onnx} was exported from other weights")
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's stubs lack it

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        tensor = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(device, precision):
            output = model(tensor)
        outputs = output if isinstance(output, tuple) else (output,)
        return tuple(at_least_float32(part).cpu().numpy() for part in outputs)

    return Session(infer, torch.__version__, device)


def _device(precision: Precision, placement: Placement) -> str:
    """PyTorch's name for the place; NotPossible where it cannot compute in this precision there."""
    if precision == "int8":
        raise NotPossible("PyTorch runs the weights as they are; they are not quantised to int8")
    if placement.device == "gpu":
        if not torch.cuda.is_available():
            raise NotPossible("PyTorch sees no GPU")
        return "cuda"
    if precision == "fp16":
        raise NotPossible("PyTorch computes fp16 on a GPU only")
    if precision == "bf16":
        require_bf16()
    return "cpu"
