"""The ONNX file of a precision, refused where it computes in another one or belongs to another model."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, Precision
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import UserError

MADE_BY = {"fp16": "the export stage writes it", "int8": "`rtmpose quantize` writes it"}
STORED: dict[int, Precision] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}
QUANTISED = {"QuantizeLinear", "DequantizeLinear"}


def onnx_form(files: ModelFiles, precision: Precision) -> Path:
    """Where the model lies as ONNX in `precision`.

    NotPossible where there is no such file, or where its weights are stored in another precision: runtimes
    that take the precision from the file would compute in that one without a word. UserError where its names
    or sizes are not those of the model card.
    """
    path = files.form(precision)
    if precision == "bf16":
        raise NotPossible("no ONNX file is written in bf16")
    if precision != "fp32" and not path.is_file():
        raise NotPossible(f"{path}: no such file; {MADE_BY[precision]}")
    card = read_card(files.onnx)
    model = _read(path)
    card.refuse_unlike(_shapes(model), path)
    found = precision_of(model)
    if found != precision:
        raise NotPossible(f"{path}: its weights are stored for {found}, not for {precision}")
    return path


def precision_of(model: onnx.ModelProto) -> Precision:
    """What an ONNX network computes in: int8 where it quantises, else what most of its weights are stored
    in.
    """
    if any(node.op_type in QUANTISED for node in model.graph.node):
        return "int8"
    bytes_of: dict[Precision, int] = dict.fromkeys(STORED.values(), 0)
    for weight in model.graph.initializer:
        if weight.data_type in STORED:
            bytes_of[STORED[weight.data_type]] += weight.ByteSize()
    return max(bytes_of, key=bytes_of.__getitem__)


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf and onnx each have errors of their own
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise UserError(f"{path}: not a complete ONNX model; write it again ({reason})") from None


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    """The sizes of the inputs and outputs by name; a free one by its name."""
    return {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
