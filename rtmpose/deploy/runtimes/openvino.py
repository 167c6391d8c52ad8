"""OpenVINO on the CPU, in fp32, bf16 and, from a file that NNCF quantised, int8.

In bf16 what follows the last convolution of a SimCC network stays in float32: bf16 has too few digits to tell
neighbouring bins apart.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Lock, local
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openvino as ov
from openvino.preprocess import PrePostProcessor

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.origin import EXPORTED, refuse_other
from rtmpose.deploy.runtimes.base import (
    TOGETHER,
    Infer,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    require_bf16,
    require_cpu,
    require_precision,
)
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import UserError, one_line

HINTS: dict[Precision, Any] = {
    "fp32": ov.Type.f32,
    "bf16": ov.Type.bf16,
    "int8": ov.Type.f32,
}  # what is not quantised
CONVOLUTIONS = ("Convolution", "GroupConvolution")
MADE_BY = "`rtmpose quantize` writes it"
CONVOLVES_IN = {"fp32": {"f32"}, "bf16": {"bf16"}, "int8": {"u8", "i8"}}


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Compile the exported file, or for int8 the quantised one, for one batch size. Threads may call at the
    same time: the calls of as many as there are streams are computed side by side, where there are cores.

    Precision is set on purpose: on a CPU with bf16 instructions OpenVINO would choose bf16 by itself. What
    the compiled model says it uses is checked against what was asked for, threads and precision, and the
    precision also by what its convolutions are computed in.
    """
    core = _core(precision, placement)
    model = _read(core, files, precision, batch)
    return Session(_compiled(core, model, precision, placement, read_card(files.onnx)), ov.__version__, "CPU")


def load_any_number(files: ModelFiles, precision: Precision, placement: Placement, *, crops: bool) -> Infer:
    """As `load`, for any number of images: `TOGETHER` at a time, and what is left one by one. With `crops`
    they are uint8 RGB (N, H, W, 3), normalised in OpenVINO; without, what the file takes.

    The network for `TOGETHER` images is compiled when there are first as many, of the file as it was read.
    """
    core, card = _core(precision, placement), read_card(files.onnx)
    whole = _read(core, files, precision, 1)
    opened: dict[int, Infer] = {}
    lock = Lock()

    def passing(batch: int) -> Infer:
        with lock:
            if batch not in opened:
                model = _of_batch(whole.clone(), batch)
                model = _with_crops(model, card) if crops else model
                opened[batch] = _compiled(core, model, precision, placement, card)
            return opened[batch]

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        found = [passing(len(images[part]))(images[part]) for part in _passes(len(images))]
        return tuple(np.concatenate(output) for output in zip(*found, strict=True))

    passing(1)  # what cannot run here is told when it is opened
    return infer


def _passes(count: int) -> Iterator[slice]:
    """Slices of `TOGETHER` images, then of one, that cover `count`."""
    whole = count - count % TOGETHER
    yield from (slice(start, start + TOGETHER) for start in range(0, whole, TOGETHER))
    yield from (slice(start, start + 1) for start in range(whole, count))


def _core(precision: Precision, placement: Placement) -> ov.Core:
    """OpenVINO, once it is known to have this place and precision; else NotPossible."""
    require_cpu("OpenVINO", placement)
    require_precision("OpenVINO on a CPU", precision, tuple(HINTS))
    core = ov.Core()
    if precision == "bf16":
        require_bf16()
        if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise NotPossible("OpenVINO does not list BF16 among this CPU's capabilities")
    return core


def _compiled(
    core: ov.Core, model: ov.Model, precision: Precision, placement: Placement, card: ModelCard
) -> Infer:
    """The network, compiled and checked; its one input is handed to it as it is."""
    wanted = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": placement.streams,
        "INFERENCE_NUM_THREADS": placement.threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }
    compiled = core.compile_model(model, "CPU", wanted)
    for key in ("INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT"):
        if compiled.get_property(key) != wanted[key]:
            raise NotPossible(f"OpenVINO uses {key}={compiled.get_property(key)} instead of {wanted[key]}")
    _refuse_other_precision(compiled, precision)
    outputs = [compiled.output(name) for name in card.outputs]
    requests = local()  # a thread's own

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        found = requests.own.infer({"input": images}, share_inputs=True)
        return tuple(found[output] for output in outputs)

    return infer


def _with_crops(model: ov.Model, card: ModelCard) -> ov.Model:
    """The network with the crops' own bytes, uint8 RGB (N, H, W, 3), as its input."""
    steps = PrePostProcessor(model)
    given = steps.input("input")
    given.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    given.model().set_layout(ov.Layout("NCHW"))
    given.preprocess().convert_element_type(ov.Type.f32).mean([*card.mean]).scale([*card.std])
    return steps.build()


def _read(core: ov.Core, files: ModelFiles, precision: Precision, batch: int) -> ov.Model:
    """The file's network with its batch fixed; UserError where its sizes are another model's, NotPossible
    where a quantised one was made from another exported file.
    """
    path = files.form(precision, ".xml") if precision == "int8" else files.onnx
    if precision == "int8":
        _require_quantised(path)
    try:
        model = core.read_model(str(path))
    except RuntimeError as error:
        raise UserError(
            f"{path}: OpenVINO cannot read it; write it again ({one_line(error)[:200]})"
        ) from None
    if precision == "int8":
        info = EXPORTED.split(".")
        noted = str(model.get_rt_info(info).value) if model.has_rt_info(info) else None
        refuse_other(noted, path, files.onnx, MADE_BY)
    values = (*model.inputs, *model.outputs)
    shapes = {
        name: [size.get_length() if size.is_static else "free" for size in value.get_partial_shape()]
        for value in values
        for name in value.get_names()
    }
    card = read_card(files.onnx)
    card.refuse_unlike(shapes, path)
    if precision == "bf16" and card.split_ratio is not None:
        model = _with_float_head(core, model)
    return _of_batch(model, batch)


def _of_batch(model: ov.Model, batch: int) -> ov.Model:
    """The network with its batch fixed, in place."""
    shape = model.input("input").get_partial_shape()
    shape[0] = batch
    model.reshape({"input": shape})
    return model


def head(model: ov.Model) -> list[str]:
    """OpenVINO's names of the last convolution and of all operations after it."""
    operations = model.get_ordered_ops()
    last = [one for one in operations if one.get_type_name() in CONVOLUTIONS][-1]
    found = {last.get_friendly_name()}
    for one in operations:  # each comes after its inputs
        sources = {value.get_node().get_friendly_name() for value in one.input_values()}
        if sources & found and one.get_type_name() not in ("Result", "Constant"):
            found.add(one.get_friendly_name())
    return sorted(found)


def _with_float_head(core: ov.Core, model: ov.Model) -> ov.Model:
    """The network with what follows its last convolution marked to be computed in float32 whatever precision
    is asked for. The mark belongs to OpenVINO's file format: Python can set it in no other way.
    """
    kept = set(head(model))
    with tempfile.TemporaryDirectory(prefix="rtmpose-bf16-") as folder:
        path = Path(folder, "marked.xml")
        ov.serialize(model, str(path))
        tree = ElementTree.parse(path)
        for layer in tree.iter("layer"):
            if layer.get("name") not in kept or layer.get("type") in CONVOLUTIONS:
                continue
            information = layer.find("rt_info")
            if information is None:
                information = ElementTree.Element("rt_info")
                layer.insert(0 if layer.find("data") is None else 1, information)
            ElementTree.SubElement(information, "attribute", name="precise", version="0")
        tree.write(path)
        return core.read_model(str(path))


def _require_quantised(path: Path) -> None:
    for part in (path, path.with_suffix(".bin")):
        if not part.is_file():
            raise NotPossible(f"{part}: no such file; {MADE_BY}")


def _refuse_other_precision(compiled: ov.CompiledModel, precision: Precision) -> None:
    """NotPossible where the compiled network computes no convolution in the precision that was asked for, or
    in fp32 and bf16 one in another.
    """
    types = Counter(
        str(operation.get_rt_info()["runtimePrecision"].value)
        for operation in compiled.get_runtime_model().get_ordered_ops()
        if "Convolution" in str(operation.get_rt_info()["layerType"].value)
    )
    expected = CONVOLVES_IN[precision]
    others = set(types) - expected
    if not expected & set(types) or (others and precision != "int8"):
        found = ", ".join(f"{count} in {kind}" for kind, count in types.items()) or "none found"
        raise NotPossible(f"OpenVINO computes the convolutions otherwise than in {precision}: {found}")
