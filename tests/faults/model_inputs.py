"""Weights and exported models, damaged, odd or hostile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from torch import nn

from rtmpose.config import Architecture
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.export import export_onnx
from rtmpose.inference.photo import predict_image
from rtmpose.models import load_weights
from tests.faults.kind import Kind, Rng, finite, of_bytes
from tests.faults.mutations import MARK, changed, damaged
from tests.models.gadgets import ATTACKS, OPCODES
from tests.models.hostile import HOSTILE

# Weights


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def loaded(path: Path, exactly: bool) -> bool:
    """Whether what was loaded is finite; with `exactly` also what was saved."""
    net, saved = small_net(), small_net().state_dict()
    load_weights(net, path)
    found = net.state_dict()
    finite = all(bool(value.isfinite().all()) for value in found.values())
    shapes = all(found[key].shape == value.shape for key, value in saved.items())
    same = all(torch.equal(found[key], value) for key, value in saved.items())
    return finite and shapes and (same or not exactly)


def weights_kinds(folder: Path) -> Iterator[Kind]:
    state = small_net().state_dict()
    for name, zipped in (("zip", True), ("legacy", False)):
        path = folder / f"{name}.pth"
        content = {"state_dict": state, "meta": {"epoch": 3}, "optimizer": {"state": {0: {"step": 1}}}}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        yield Kind(f"weights {name}", of_bytes(path, path.read_bytes()), partial(loaded, path, zipped), 2.0)
    odd, mark = folder / "odd.pth", folder / MARK
    yield Kind("weights odd", lambda rng: odd_weights(odd, rng), lambda: loaded(odd, exactly=False), 2.0)
    evil = folder / "evil.pth"
    yield Kind("weights evil", lambda rng: evil_weights(evil, mark, rng), lambda: loaded(evil, exactly=False))


TENSOR_CHANGES: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda t: t.float() * float("nan"),
    lambda t: t.float() + float("inf"),
    lambda t: t.half(),
    lambda t: t.bfloat16(),
    lambda t: t.double() * 1e200,
    lambda t: t.to(torch.int32),
    lambda t: t > 0,
    lambda t: t.to(torch.complex64),
    lambda t: t.to("meta"),
    lambda t: t.reshape(-1)[:1].expand(10**9),
    lambda t: t.reshape(-1),
    lambda t: t[None],
    lambda t: t.to_sparse(),
    lambda t: -t.abs(),
    lambda t: t.tolist(),
    lambda t: nn.Parameter(t.float()),
    lambda t: None,
    lambda t: torch.empty(0),
)


def odd_weights(path: Path, rng: Rng) -> Path:
    """Weights of other types, values, layouts, names and wrappers."""
    state: dict[Any, Any] = dict(small_net().state_dict())
    for _ in range(int(rng.integers(1, 4))):
        key = list(state)[rng.integers(len(state))]
        value = state[key]
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_meta:
            continue
        state[key] = TENSOR_CHANGES[rng.integers(len(TENSOR_CHANGES))](value)
        if rng.random() < 0.3:
            names = [f"module.{key}", f"_orig_mod.{key}", 7, None, ("a", key), f"{key}\n", "\ud800", key * 50]
            state[names[rng.integers(len(names))]] = state.pop(key) if rng.random() < 0.5 else state[key]
    wrap = ["state_dict", "ema", "ema_state_dict", "model", "optimizer", "x" * 300, "module"]
    content: Any = state
    for _ in range(int(rng.integers(0, 4))):
        content = {wrap[rng.integers(len(wrap))]: content}
    torch.save(content, path, _use_new_zipfile_serialization=bool(rng.random() < 0.7))
    return path


def evil_weights(path: Path, mark: Path, rng: Rng) -> Path:
    """Files that would run something, or bring their reader down."""
    which = int(rng.integers(len(HOSTILE) + len(ATTACKS) + len(OPCODES)))
    if which < len(HOSTILE):
        list(HOSTILE.values())[which](path)
    elif which < len(HOSTILE) + len(ATTACKS):
        gadget = list(ATTACKS.values())[which - len(HOSTILE)](mark)
        content = {"message_hub": gadget, "state_dict": small_net().state_dict()}
        torch.save(content, path, _use_new_zipfile_serialization=bool(rng.random() < 0.5))
    else:
        path.write_bytes(list(OPCODES.values())[which - len(HOSTILE) - len(ATTACKS)](Path(MARK)))
    if rng.random() < 0.5:
        path.write_bytes(damaged(path.read_bytes(), rng))
    return path


# Exported models


@cache
def exported() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        card = ModelCard.of(Architecture(size="t", hidden=32), (64, 64), "coco17")
        return export_onnx(card.network(), (64, 64), Path(folder) / "m.onnx", card=card).read_bytes()


def model_kinds(folder: Path) -> Iterator[Kind]:
    path, photo = folder / "model.onnx", folder / "person.jpg"
    photo.write_bytes(cv2.imencode(".jpg", np.full((90, 80, 3), 128, np.uint8))[1].tobytes())
    content = exported()

    def predicted() -> bool:
        [person] = predict_image(photo, path, [])
        return len(person["keypoints"]) == 17 and finite(list(person["keypoints"].values()))

    yield Kind("onnx", of_bytes(path, content), predicted, 0.5)
    whole = onnx.load_from_string(content)
    card = {prop.key: prop.value for prop in whole.metadata_props}
    values = {key: json.loads(value) for key, value in card.items()}

    def of_another(rng: Rng) -> Path:
        """The metadata or the graph's inputs and outputs of another model."""
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        if rng.random() < 0.7:
            told = changed(values, rng)
            told = told if isinstance(told, dict) else {"rtmpose.size": told}
            texts = {str(key).encode("utf-8", "replace").decode(): json.dumps(told[key]) for key in told}
            if rng.random() < 0.2:
                texts[str(rng.choice(list(card)))] = str(rng.choice(["", "{", "NaN", "[" * 50_000, "\0"]))
            del model.metadata_props[:]
            onnx.helper.set_model_props(model, texts)
        else:
            ends = [*model.graph.input, *model.graph.output]
            end = ends[rng.integers(len(ends))]
            if rng.random() < 0.5:
                end.name = str(rng.choice(["input", "simcc_x", "x", ""]))
            else:
                shape = end.type.tensor_type.shape
                shape.dim[int(rng.integers(len(shape.dim)))].dim_value = int(rng.choice([0, 1, 3, 7, 10**6]))
        path.write_bytes(model.SerializeToString())
        return path

    yield Kind("onnx of another", of_another, predicted)
