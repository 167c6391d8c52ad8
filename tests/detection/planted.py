"""ONNX files that find the same people in every image, in each form that detectors' outputs have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = (96, 64)  # w, h px of the input: 12 x 8, 6 x 4 and 3 x 2 cells
STRIDES = (8, 16, 32)
# Two persons and a dog, input px; the first person a second time, a little aside and less sure.
BOXES = np.array([[8, 16, 40, 60], [9, 17, 41, 61], [50, 4, 90, 40], [0, 0, 96, 64]], np.float32)
SCORES = np.array([[0.9, 0.1], [0.6, 0.0], [0.5, 0.2], [0.1, 0.8]], np.float32)  # person, dog
PEOPLE = np.array([[8, 16, 40, 60, 0.9], [50, 4, 90, 40, 0.5]])
CELLS = ((0, 13), (0, 14), (1, 8), (2, 4))  # level and cell that each box is planted in


def outputs(form: str) -> dict[str, NDArray[Any]]:
    """The planted outputs of one image, by name."""
    logits = np.log(np.clip(SCORES, 1e-6, 1 - 1e-6) / (1 - np.clip(SCORES, 1e-6, 1 - 1e-6)))
    match form:
        case "suppressed":
            best = SCORES.max(1, keepdims=True)
            labels = SCORES.argmax(1)
            return {
                "dets": np.pad(np.concatenate([BOXES, best], 1), ((0, 1), (0, 0)))[None],
                "labels": np.append(labels, 0)[None].astype(np.int64),
            }
        case "boxes":
            return {"boxes": BOXES[None], "scores": SCORES[None]}
        case "boxes_logits":
            return {"logits": logits[None].astype(np.float32), "boxes": BOXES[None]}
        case "levels":
            return _levels(logits)
        case "grid" | "grid_decoded":
            return {"output": _grid(decoded=form == "grid_decoded")}
    raise ValueError(form)


def _cells(stride: int) -> tuple[int, int]:
    return SIZE[1] // stride, SIZE[0] // stride


def _levels(logits: NDArray[Any]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name, channels, blank in (("cls", 2, -20.0), ("reg", 4, 1.0)):
        for level, stride in enumerate(STRIDES):
            found[f"{name}_{level}"] = np.full((1, channels, *_cells(stride)), blank, np.float32)
    for box, row, (level, cell) in zip(BOXES, logits, CELLS, strict=True):
        y, x = divmod(cell, _cells(STRIDES[level])[1])
        corner = np.array([x, y]) * STRIDES[level]
        found[f"cls_{level}"][0, :, y, x] = row
        found[f"reg_{level}"][0, :, y, x] = np.concatenate([corner - box[:2], box[2:] - corner])
    return found


def _grid(decoded: bool) -> NDArray[np.float32]:
    rows, first = [], [0]
    for stride in STRIDES:
        h, w = _cells(stride)
        first.append(first[-1] + h * w)
        rows.append(np.zeros((h * w, 7), np.float32))
    found = np.concatenate(rows)
    for box, score, (level, cell) in zip(BOXES, SCORES, CELLS, strict=True):
        stride, width = STRIDES[level], _cells(STRIDES[level])[1]
        center, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        if not decoded:
            center = center / stride - np.array([cell % width, cell // width])
            sides = np.log(sides / stride)
        found[first[level] + cell] = [*center, *sides, 1.0, *score]
    return found[None]


def write(
    path: Path,
    values: Mapping[str, NDArray[Any]],
    *,
    first: str = "Conv",
    ends: tuple[str, ...] = (),
    fixed: bool = False,
    channels: int = 3,
    properties: Mapping[str, str] | None = None,
) -> Path:
    """An ONNX file with these outputs; `first`: what the image meets first ("Slice" as in YOLOX), `ends`:
    operations that the outputs come from, of "Sigmoid" and "Exp".
    """
    nodes, weights = [], []

    def weight(name: str, value: NDArray[Any]) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    if first == "Slice":
        ranges = [weight(f"slice_{n}", np.array([v])) for n, v in enumerate((0, 2))]
        axis = weight("axis", np.array([2]))
        nodes.append(helper.make_node("Slice", ["input", *ranges, axis], ["seen"]))
    else:
        kernel = weight("kernel", np.zeros((1, channels, 1, 1), np.float32))
        nodes.append(helper.make_node("Conv", ["input", kernel], ["seen"]))
    nodes.append(helper.make_node("ReduceSum", ["seen"], ["sum"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["sum", weight("zero", np.zeros((), np.float32))], ["nothing"]))
    for name, value in values.items():
        if value.dtype != np.float32:
            nodes.append(helper.make_node("Identity", [weight(f"{name}_raw", value)], [name]))
            continue
        nodes.append(helper.make_node("Add", [weight(f"{name}_raw", value), "nothing"], [f"{name}_sum"]))
        if "Sigmoid" in ends and name in ("scores", "output"):
            last = _through_sigmoid(nodes, weight, name, value)
        else:
            last = f"{name}_sum"
        nodes.append(helper.make_node("Identity", [last], [name]))
    if "Exp" in ends:
        nodes.append(helper.make_node("Exp", ["nothing"], ["one"]))
    sides = [SIZE[1], SIZE[0]] if fixed else ["height", "width"]
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", channels, *sides])],
        [helper.make_tensor_value_info(name, kinds[v.dtype], [None] * v.ndim) for name, v in values.items()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(properties or {}))
    onnx.save(model, str(path))
    return path


def _through_sigmoid(nodes: list[Any], weight: Any, name: str, value: NDArray[Any]) -> str:
    """A sigmoid of everything beside the true values, joined and cut off again: so outputs come from one."""
    nodes.append(helper.make_node("Sigmoid", [f"{name}_sum"], [f"{name}_probability"]))
    nodes.append(helper.make_node("Concat", [f"{name}_sum", f"{name}_probability"], [f"{name}_both"], axis=0))
    bounds = [weight(f"{name}_from", np.array([0])), weight(f"{name}_to", np.array([1]))]
    axis = weight(f"{name}_axis", np.array([0]))
    nodes.append(helper.make_node("Slice", [f"{name}_both", *bounds, axis], [f"{name}_first"]))
    return f"{name}_first"
