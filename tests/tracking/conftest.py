"""Room for two MLflow stores for every test, the first of which MLflow points to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/one/mlflow.db")
    return tmp_path


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph with the names and the free batch of our exports."""
    shapes: dict[str, list[Any]] = {
        "input": ["batch", 3, 8, 6],
        "simcc_x": ["batch", 3, 6],
        "simcc_y": ["batch", 3, 8],
    }
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], [name], keepdims=0, axes=[axis])
        for name, axis in (("simcc_x", 2), ("simcc_y", 3))
    ]
    graph = helper.make_graph(nodes, "means", [values["input"]], [values["simcc_x"], values["simcc_y"]])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path_factory.mktemp("graph") / "rtmpose.onnx"
    onnx.save(made, str(path))
    return path
