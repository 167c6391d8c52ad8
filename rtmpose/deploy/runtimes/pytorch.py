"""PyTorch, as the library itself runs a model: eager or compiled, channels-last, reduced precision by
autocast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from rtmpose.deploy.runtimes.base import (
    Infer,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    refuse_other_batch,
    require_bf16,
)
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import one_line
from rtmpose.models import PoseNet, PoseOutput, autocast, load_exactly
from rtmpose.targets import at_least_float32


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Load the weights into the network that the exported file describes."""
    device = _device(precision, placement)
    model = _placed(files, device, placement)
    return Session(_through(model, device, precision), torch.__version__, device)


def load_compiled(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """As `load`, compiled by torch.compile for one batch size, all of it: what cannot be compiled raises."""
    device = _device(precision, placement)
    compiled = torch.compile(_placed(files, device, placement), fullgraph=True, dynamic=False)
    run = _through(compiled, device, precision)
    width, height = read_card(files.onnx).input_size

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        refuse_other_batch(images, batch)
        return run(images)

    try:
        run(np.zeros((batch, 3, height, width), np.float32))
    except Exception as error:  # no compiler, or one that fails: each part of it has errors of its own
        raise NotPossible(
            f"torch.compile cannot compile this network here: {one_line(error)[:300]}"
        ) from None
    return Session(infer, torch.__version__, f"{device}, inductor")


def weights_in_network(files: ModelFiles) -> PoseNet:
    """The network that the exported file describes, with the weights that it was exported from."""
    if files.weights is None:
        raise NotPossible("PyTorch needs the weights that the model was exported from")
    model = read_card(files.onnx).network()
    load_exactly(model, files.weights, f"{files.onnx} was exported from other weights")
    return model


def _placed(files: ModelFiles, device: str, placement: Placement) -> PoseNet:
    model = weights_in_network(files)
    torch.set_num_threads(placement.threads)
    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32, not ten bits of mantissa
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's stubs lack it


def _through(model: Callable[[torch.Tensor], PoseOutput], device: str, precision: Precision) -> Infer:
    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        tensor = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(device, precision):
            output = model(tensor)
        outputs = output if isinstance(output, tuple) else (output,)
        return tuple(at_least_float32(part).cpu().numpy() for part in outputs)

    return infer


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
