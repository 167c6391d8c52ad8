"""ONNX graphs: traced from PyTorch without the exporter's notes, and written whole or not at all."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.quiet import quiet
from rtmpose.files import destination, temporary_beside, writing


def traced(
    module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> onnx.ModelProto:
    """The graph of a module whose tensors all begin with a free batch dimension; `inputs` and `outputs` are
    their names. Examples hold a batch of two or more: of one, the exporter would take it for a constant.
    """
    batch = torch.export.Dim("batch")
    # The exporter warns about its own internals.
    with quiet("torch.onnx"), warnings.catch_warnings(action="ignore"), torch.inference_mode():
        program = torch.onnx.export(
            module.eval(),
            tuple(examples),
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in examples),
            opset_version=opset,
            dynamo=True,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    return model


def save_graph(model: onnx.ModelProto, path: Path) -> Path:
    """Write a graph; it appears under `path` only when it is complete and `onnx.checker` accepts it."""
    target = destination(path)
    temporary = temporary_beside(target)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            onnx.save(model, str(temporary))
            onnx.checker.check_model(str(temporary), full_check=True)
            temporary.replace(target)
        finally:
            with contextlib.suppress(OSError):  # the first error is the one to be told
                temporary.unlink(missing_ok=True)
    return path


def save_card(path: Path, card: ModelCard, to: Path | None = None) -> Path:
    """Give an exported file another card: what was found out after it was written. With `to` a copy gets it,
    and the file stays as it is. Other metadata is kept.
    """
    model = onnx.load(str(path))
    kept = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, kept | card.properties())
    return save_graph(model, to or path)


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces with the paths of this machine, on every node and value."""
    graph = model.graph
    for item in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
    ):
        del item.metadata_props[:]
        item.doc_string = ""
