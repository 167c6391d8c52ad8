"""The ONNX file of a precision, refused where it computes in another one or belongs to another model."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from rtmpose.deploy.origin import EXPORTED, read_onnx, refuse_other
from rtmpose.deploy.runtimes.base import TENSORRT, ModelFiles, NotPossible, Precision, RuntimeName
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import UserError

STORED: dict[int, Precision] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}
QUANTISED = {"QuantizeLinear", "DequantizeLinear"}


def onnx_form(files: ModelFiles, precision: Precision, runtime: RuntimeName = "onnxruntime") -> Path:
    """Where the model lies as ONNX in `precision` for a runtime.

    NotPossible where there is no such file, where it was made from another exported file, or where its
    weights are stored in another precision: runtimes that take the precision from the file would compute in
    that one without a word. UserError where its names or sizes are not those of the model card.
    """
    path, model = own_form(files, precision, runtime)
    read_card(files.onnx).refuse_unlike(_shapes(model), path)
    found = precision_of(model)
    if found != precision:
        raise NotPossible(f"{path}: its weights are stored for {found}, not for {precision}")
    return path


def own_form(
    files: ModelFiles, precision: Precision, runtime: RuntimeName = "onnxruntime"
) -> tuple[Path, onnx.ModelProto]:
    """The model's file in `precision` for a runtime, and what is in it. NotPossible where it is not there, or
    was made from another exported file; UserError where it is damaged.
    """
    path = files.onnx_for(runtime, precision)
    if precision == "bf16":
        raise NotPossible("no ONNX file is written in bf16")
    if precision == "fp32":
        return path, read_onnx(path)
    made_by = _made_by(precision, runtime)
    if not path.is_file():
        raise NotPossible(f"{path}: no such file; {made_by}")
    model = read_onnx(path)
    noted = {item.key: item.value for item in model.metadata_props}
    refuse_other(noted.get(EXPORTED), path, files.onnx, made_by)
    return path, model


def remove_other_symmetric(files: ModelFiles) -> None:
    """Remove TensorRT's int8 file where it is damaged, or of another model: not every run writes it anew."""
    try:
        own_form(files, "int8", "tensorrt")
    except (NotPossible, UserError):
        files.onnx_for("tensorrt", "int8").unlink(missing_ok=True)


def _made_by(precision: Precision, runtime: RuntimeName) -> str:
    if precision == "fp16":
        return "the export stage, or `rtmpose export --fp16`, writes it"
    if runtime in TENSORRT:
        return "`rtmpose quantize --also tensorrt` writes it"
    return "`rtmpose quantize` writes it"


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


def _shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    """The sizes of the inputs and outputs by name; a free one by its name."""
    return {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
