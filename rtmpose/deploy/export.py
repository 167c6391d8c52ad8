"""PyTorch → ONNX, in the form that RTMPose files have everywhere, and the proof that it computes the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from torch import nn

from rtmpose.deploy.card import HEATMAP_OUTPUTS, SIMCC_OUTPUTS, ModelCard
from rtmpose.deploy.form import deploy_form, in_half
from rtmpose.deploy.graphs import save_graph, traced
from rtmpose.deploy.origin import belonging
from rtmpose.deploy.runtimes.onnxruntime import open_file
from rtmpose.models import PoseNet
from rtmpose.targets import Codec

OPSET = 18  # the oldest that PyTorch's exporter writes: the more runtimes read it
PARITY_BATCHES = (1, 3, 8)


def export_onnx(
    model: PoseNet,
    input_size: tuple[int, int],
    path: Path,
    *,
    card: ModelCard | None = None,
    opset: int = OPSET,
    precision: Literal["fp32", "fp16"] = "fp32",
    crops: np.ndarray | None = None,
    exported: Path | None = None,
) -> Path:
    """Write a network as one self-contained ONNX file with a free batch dimension, in the form that every
    runtime can run (`deploy_form`).

    Input `input` float32 (N, 3, H, W) RGB normalised; outputs `simcc_x` (N, K, 2W) and `simcc_y` (N, K, 2H)
    float32 logits, or of a heatmap network `heatmaps` (N, K, H/4, W/4). With `precision="fp16"` weights and
    operations between them are float16. input_size is (w, h) px; `card`, with this precision, becomes the
    file's metadata; crops: normalised float32 (N, 3, H, W) that show how large its values become; exported:
    the fp32 file that a fp16 one belongs to, without which no runtime takes it. The file appears under `path`
    only when it is complete and `onnx.checker` accepts it. UserError where float16 cannot hold the network.
    """
    form = deploy_form(model, None if crops is None else torch.from_numpy(crops))
    network = in_half(form) if precision == "fp16" else form
    said = card.model_copy(update={"precision": precision}) if card else None
    return write_onnx(network, input_size, path, card=said, opset=opset, exported=exported)


def write_onnx(
    network: nn.Module,
    input_size: tuple[int, int],
    path: Path,
    *,
    card: ModelCard | None = None,
    opset: int = OPSET,
    exported: Path | None = None,
) -> Path:
    """Write a network as it is, otherwise like `export_onnx`."""
    width, height = input_size
    # A batch of two: with one, the exporter would take the batch dimension for a constant.
    example = torch.zeros(2, 3, height, width)
    with torch.inference_mode(), _mode(network, training=False):
        names = SIMCC_OUTPUTS if isinstance(network(example), tuple) else HEATMAP_OUTPUTS
        made = traced(network, [example], ["input"], names, opset)
    said = card.properties() if card else {}
    onnx.helper.set_model_props(made, said | (belonging(exported) if exported else {}))
    return save_graph(made, path)


def parity(
    model: nn.Module, path: Path, codec: Codec, crops: np.ndarray | None = None, seed: int = 0
) -> dict[str, float]:
    """Largest differences between `model` in fp32 and the file in ONNX Runtime, over batches of 1, 3 and 8.

    crops: normalised float32 (N, 3, H, W) of real images, compared beside seeded noise. Returns `max_diff` of
    the outputs' values, `keypoints_px_mean` and `keypoints_px_max` of points that `codec` decodes, in input
    px, and `images` compared.
    """
    session = open_file(path)
    width, height = codec.input_size
    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal((batch, 3, height, width), np.float32) for batch in PARITY_BATCHES]
    if crops is not None and len(crops):
        inputs += [np.resize(crops, (batch, *crops.shape[1:])) for batch in PARITY_BATCHES]
    rows = []
    with torch.inference_mode(), _mode(model, training=False):
        for images in inputs:
            output = model(torch.from_numpy(images))
            expected = [part.numpy() for part in (output if isinstance(output, tuple) else (output,))]
            rows.append(differences(session.run(None, {"input": images}), expected, codec))
    return {
        "max_diff": max(row["max_diff"] for row in rows),
        "keypoints_px_mean": float(np.mean([row["keypoints_px_mean"] for row in rows])),
        "keypoints_px_max": max(row["keypoints_px_max"] for row in rows),
        "images": sum(len(images) for images in inputs),
    }


def differences(
    outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray], codec: Codec
) -> dict[str, float]:
    """How far a network's outputs are from a reference: SimCC's ((N, K, 2W), (N, K, 2H)), or heatmaps alone.

    `max_diff` of the raw values; `keypoints_px_mean` and `keypoints_px_max`: distances of decoded points in
    input px.
    """
    ours, theirs = (_decoded(some, codec) for some in (outputs, reference))
    distance = (ours - theirs).norm(dim=-1)  # (N, K)
    return {
        "max_diff": max(float(np.abs(a - b).max()) for a, b in zip(outputs, reference, strict=True)),
        "keypoints_px_mean": float(distance.mean()),
        "keypoints_px_max": float(distance.max()),
    }


def _decoded(outputs: Sequence[np.ndarray], codec: Codec) -> torch.Tensor:
    """The points (N, K, 2) of a network's outputs, input px."""
    tensors = tuple(map(torch.tensor, outputs))
    decode: Any = codec.decode  # each codec takes the outputs of its own kind of head
    points: torch.Tensor = decode(tensors if len(tensors) > 1 else tensors[0])[0]
    return points


@contextlib.contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Batch-norm and drop-out in the given mode for one block; the caller's mode comes back."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)
