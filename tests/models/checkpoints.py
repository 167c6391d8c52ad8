"""What the tests of loading weights share: a small network, its weights, and an official checkpoint."""

from __future__ import annotations

import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtmpose.models import Mismatch, build_pose_net, load_weights

SMALL = {"input_size": (64, 64), "num_keypoints": 3, "hidden": 8}


def net(**options: Any) -> nn.Module:
    return build_pose_net("t", **{**SMALL, **options})


def state(value: float | None = None, **options: Any) -> dict[str, Tensor]:
    """A state dict of fresh weights, or with every floating entry `value`."""
    fresh = net(**options).state_dict()
    if value is None:
        return fresh
    return {
        key: torch.full_like(one, value) if one.is_floating_point() else one for key, one in fresh.items()
    }


def loaded(path: Path, **options: Any) -> tuple[dict[str, Tensor], Mismatch]:
    model = net(**options)
    mismatch = load_weights(model, path)
    return model.state_dict(), mismatch


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


def save_official(
    path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], zipped: bool = True
) -> None:
    """A training checkpoint as MMEngine writes it, with instances of classes that do not exist when it is
    read.
    """
    module = types.ModuleType("mmengine.logging.history_buffer")
    names = {
        "mmengine": types.ModuleType("mmengine"),
        "mmengine.logging": types.ModuleType("mmengine.logging"),
    }
    exec(
        "class HistoryBuffer:\n"
        "    def __init__(self): self._log_history = {'loss': [1.0]}\n"
        "class Hub(dict): pass\n"
        "class Names(list): pass\n",
        module.__dict__,
    )
    with monkeypatch.context() as patch:
        for name, one in {**names, module.__name__: module}.items():
            patch.setitem(sys.modules, name, one)
        buffer = module.HistoryBuffer()
        buffer.history, buffer.statistics = np.arange(4.0), np.float64(3)
        hub = {
            "log_scalars": OrderedDict({"train/loss": buffer}),
            "hub": module.Hub(a=1),
            "names": module.Names("ab"),
        }
        content = {"meta": {"epoch": 420, "seed": 21}, "message_hub": hub, "optimizer": {}, **extra}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "mmengine" not in sys.modules
