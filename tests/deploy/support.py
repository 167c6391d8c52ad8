"""A small network with decided maxima, exported once for all tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper

from rtmpose.config import Architecture
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.origin import belonging
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.models import PoseNet, build_pose_net
from tests.support import det_tensor

SIZE = (96, 128)


def formula_net() -> PoseNet:
    """The t network at 96x128 with the reference vectors' weights, which depend on the keys alone."""
    model = build_pose_net("t", input_size=SIZE).eval()
    weights = {
        key: torch.from_numpy(det_tensor(key, tuple(t.shape))) for key, t in model.state_dict().items()
    }
    model.load_state_dict(weights)
    return model


def card() -> ModelCard:
    """Always the same, also when the checkout changes between two calls."""
    made = ModelCard.of(Architecture(size="t"), SIZE, "coco17")
    return made.model_copy(update={"git_commit": "0123abc"})


def save_weights(folder: Path) -> Path:
    torch.save(formula_net().state_dict(), folder / "rtmpose.pt")
    return folder / "rtmpose.pt"


def relabelled(files: ModelFiles, folder: Path, **changes: Any) -> Path:
    """The exported model with other metadata."""
    model = onnx.load(str(files.onnx))
    for item in model.metadata_props:
        if (name := item.key.removeprefix("rtmpose.")) in changes:
            item.value = json.dumps(changes[name])
    onnx.save(model, str(folder / "other.onnx"))
    return folder / "other.onnx"


def save_form(model: onnx.ModelProto, path: Path, exported: Path) -> Path:
    """Write a network as a form that belongs to an exported file."""
    kept = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, kept | belonging(exported))
    onnx.save(model, str(path))
    return path


def other_weights(files: ModelFiles, path: Path) -> Path:
    """The exported model with one weight changed, as another training of the same architecture has them."""
    model = onnx.load(str(files.onnx))
    weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(0.5 * numpy_helper.to_array(weight), weight.name))
    onnx.save(model, str(path))
    return path
