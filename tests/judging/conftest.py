"""Small files with the very inputs and outputs of models that others trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes an ONNX file whose input is `shape` of `kind` and whose outputs are the constants given by name.

    Each constant is added to a part of the input times 0, so that the input is used.
    """

    def write(name: str, shape: Sequence[int], kind: int, outputs: dict[str, np.ndarray]) -> Path:
        nodes = [helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT)]
        nodes.append(helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0))
        nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
        constants: list[Any] = [numpy_helper.from_array(np.zeros((), np.float32), "zero")]
        told = []
        for key, value in outputs.items():
            constants.append(numpy_helper.from_array(value.astype(np.float32), f"{key}_value"))
            nodes.append(helper.make_node("Add", [f"{key}_value", "nothing"], [key]))
            told.append(helper.make_tensor_value_info(key, TensorProto.FLOAT, value.shape))
        given = helper.make_tensor_value_info("input", kind, list(shape))
        graph = helper.make_graph(nodes, name, [given], told, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, str(path))
        return path

    return write
