"""PyTorch on the CPU, as the library itself runs a model: eager, channels-last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rtmpose.config import Precision
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.base import Infer, ModelFiles, NotPossible
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.models import build_pose_net, load_exactly


def build(card: ModelCard, weights: Path) -> torch.nn.Module:
    """The network that `card` describes with its weights, in eval mode; UserError when they do not fit each
    other.
    """
    model = build_pose_net(
        card.size,
        num_keypoints=len(card.keypoint_names),
        input_size=card.input_size,
        kernel=card.kernel,
        hidden=card.hidden,
        gau=card.gau,
    )
    load_exactly(model, weights)
    return model.eval()


def load(files: ModelFiles, precision: Precision, threads: int) -> Infer:
    """Load the weights into the network that the exported file describes."""
    if files.weights is None:
        raise NotPossible("PyTorch needs the weights that the model was exported from")
    torch.set_num_threads(threads)
    model = build(read_card(files.onnx), files.weights)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's stubs lack this keyword alone
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]

    def infer(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tensor = torch.from_numpy(images).to(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=precision != "fp32"):
            x, y = model(tensor)
        return x.float().numpy(), y.float().numpy()

    return infer
