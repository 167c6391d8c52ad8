"""Static int8 for ONNX Runtime: QDQ nodes, a scale per channel of each weight, the head in float32.

The head stays in float because its maxima decide the points: quantised, it moved 5 to 20 times more of them.
On x86 CPUs without VNNI two products of 8-bit numbers saturate in 16 bits, so weights take 7 bits there
(`reduce_range`). TensorRT takes no zero points and no biases in int32: for it a file of its own is written,
in which activations are symmetric and biases stay in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.graphs import save_graph
from rtmpose.deploy.origin import belonging
from rtmpose.deploy.quantize.graph import HEAD, parts
from rtmpose.deploy.quiet import quiet
from rtmpose.files import UserError, writing

Method = Literal["minmax", "percentile", "entropy"]
SYMMETRIC = {"ActivationSymmetric": True, "QuantizeBias": False}
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


@dataclass(frozen=True)
class Recipe:
    """How a network is quantised: what calibration takes for a range, 7 or 8 bits for weights, the parts of
    the network (`graph.parts`) that stay in float32, and whether all zero points are 0, for TensorRT.
    """

    reduce_range: bool
    method: Method = "minmax"
    kept_float: tuple[str, ...] = (HEAD,)
    symmetric: bool = False

    def __str__(self) -> str:
        bits = "7-bit weights (reduce_range, for CPUs without VNNI)" if self.reduce_range else "8-bit weights"
        kind = "QDQ per channel, symmetric" if self.symmetric else "QDQ per channel"
        return f"{kind}, {bits}, {self.method} ranges, float32: {', '.join(self.kept_float)}"

    @property
    def weight_bits(self) -> int:
        """As the card has it."""
        return 7 if self.reduce_range else 8


class Quantizer:
    """Quantises one exported file in several ways; the ranges of all activations are measured once for each
    method.

    inputs: normalised float32 (N, 3, H, W) to calibrate on. Use it as a context: it holds a folder for the
    ranges.
    """

    def __init__(self, source: Path, inputs: NDArray[np.float32]) -> None:
        self.source, self.inputs = source, inputs
        self.model = onnx.load(str(source))
        self.parts = parts(self.model)

    def __enter__(self) -> Quantizer:
        self._folder = tempfile.TemporaryDirectory(prefix="rtmpose-ranges-")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def quantized(self, recipe: Recipe) -> onnx.ModelProto:
        """The network with QDQ nodes; UserError for a part that it has not."""
        unknown = [part for part in recipe.kept_float if part not in self.parts]
        if unknown:
            raise UserError(
                f"{self.source}: has no part {unknown[0]!r} to keep in float32, only {', '.join(self.parts)}"
            )
        folder = Path(self._folder.name)
        with writing(folder), quiet():  # hints on the root logger, progress on stdout
            quantize_static(
                str(self.source),
                str(folder / "int8.onnx"),
                _Reader(self.inputs),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=recipe.reduce_range,
                activation_type=QuantType.QInt8 if recipe.symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[node for part in recipe.kept_float for node in self.parts[part]],
                calibrate_method=METHODS[recipe.method],
                calibration_cache_path=str(folder / f"{recipe.method}.json"),
                extra_options=SYMMETRIC if recipe.symmetric else {},
            )
        return onnx.load(str(folder / "int8.onnx"))


def save_quantized(model: onnx.ModelProto, path: Path, card: ModelCard, exported: Path) -> Path:
    """Write a quantised network with its card, and which `exported` file it belongs to; the file appears
    under `path` when it is complete and `onnx.checker` accepts it.
    """
    onnx.helper.set_model_props(model, card.properties() | belonging(exported))
    return save_graph(model, path)


def outputs_of(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What ONNX Runtime computes with a network that lies in memory."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"input": inputs}))


def precision_map(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Which convolutions and matrix products compute in int8, and which in float32, by their nodes' names."""
    made = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, list[str]] = {"int8": [], "float32": []}
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            sources = [made[name].op_type if name in made else "" for name in node.input[:2]]
            quantised = sources == ["DequantizeLinear"] * 2
            found["int8" if quantised else "float32"].append(node.name)
    return found


class _Reader(CalibrationDataReader):
    """Hands out inputs one crop at a time, so that the memory for ranges does not grow with their number."""

    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._left: Iterator[NDArray[np.float32]] = iter(np.split(inputs, len(inputs)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        part = next(self._left, None)
        return None if part is None else {"input": part}
