"""SimCC networks in others' ONNX files: what goes in and comes out is tried, then the file gets our card.

MMDeploy writes RTMPose as a graph from `input` (N, 3, H, W), RGB normalised, to `simcc_x` and `simcc_y`. That
is our own form but for the card, so nothing in the graph is changed; only sizes that the file leaves open are
written into the descriptions of its input and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from rtmpose.config import Architecture
from rtmpose.deploy.card import PREFIX, SIMCC_OUTPUTS, ModelCard
from rtmpose.deploy.runtimes.onnx_form import precision_of
from rtmpose.deploy.runtimes.onnxruntime import open_file
from rtmpose.files import UserError, write_atomic
from rtmpose.models.cspnext import SIZES
from rtmpose.provenance.sources import DataSource

FIX = "give a SimCC network as MMDeploy or `rtmpose export` write it"


def adopt(
    source: Path,
    out: Path,
    skeleton: str,
    *,
    size: str | None = None,
    input_size: tuple[int, int] | None = None,
    data: Sequence[DataSource] = (),
) -> ModelCard:
    """Write the ONNX file `source` with our card to `out`, which may be the same; the card.

    skeleton: the data set in datasets/ (or the descriptor file) whose points it has. `size` (t, s, m, l, x)
    and `input_size` (w, h) px are found in the file where it says them. Mean and standard deviation are those
    that RTMPose is trained with.

    Raises UserError for a file with other inputs and outputs, another number of points, a batch that cannot
    grow, or a card of its own.
    """
    session = open_file(source, threads=1)
    if any(key.startswith(PREFIX) for key in session.get_modelmeta().custom_metadata_map):
        raise UserError(f"{source}: has a card already: it can be used as it is")
    width, height = _input_size(session, source, input_size)
    points, ratio = _tried(session, source, (width, height))
    model = onnx.load(str(source), load_external_data=False)
    if any(onnx.external_data_helper.uses_external_data(one) for one in model.graph.initializer):
        raise UserError(f"{source}: keeps its weights in another file; give one file that holds all")
    card = ModelCard.of(
        Architecture.model_validate({"size": _size(model, source, size)}), (width, height), skeleton
    )
    if len(card.keypoint_names) != points:
        names = len(card.keypoint_names)
        raise UserError(f"{source}: has {points} points, --skeleton {skeleton} has {names}; give another")
    card = card.with_more(split_ratio=ratio, precision=precision_of(model), data=tuple(data))
    _write_sizes(model, card)
    onnx.helper.set_model_props(model, card.properties())
    write_atomic(out, model.SerializeToString())
    return card


def _input_size(
    session: ort.InferenceSession, source: Path, given: tuple[int, int] | None
) -> tuple[int, int]:
    """The width and height of the input, px."""
    inputs, outputs = session.get_inputs(), [value.name for value in session.get_outputs()]
    if [value.name for value in inputs] != ["input"] or sorted(outputs) != sorted(SIMCC_OUTPUTS):
        taken = ", ".join(value.name for value in inputs)
        raise UserError(
            f"{source}: takes {taken} and gives {', '.join(outputs)}, not input and simcc_x, simcc_y; {FIX}"
        )
    shape, kind = inputs[0].shape, inputs[0].type
    if len(shape) != 4 or shape[1] != 3 or kind not in ("tensor(float)", "tensor(float16)"):
        raise UserError(f"{source}: input is {kind} of {shape}, not images (N, 3, H, W) of floats; {FIX}")
    found = (shape[3], shape[2])
    if all(isinstance(side, int) for side in found):
        if given not in (None, found):
            raise UserError(f"{source}: input is {found[0]}x{found[1]}; leave --input away")
        return found
    if given is None:
        raise UserError(f"{source}: leaves the size of its input open; give --input WIDTHxHEIGHT")
    return given


def _tried(session: ort.InferenceSession, source: Path, size: tuple[int, int]) -> tuple[int, float]:
    """The number of points and of bins per pixel, from one black image and from two."""
    kind = np.float16 if session.get_inputs()[0].type == "tensor(float16)" else np.float32
    outputs: list[NDArray[np.floating]] = []
    for batch in (1, 2):
        images = np.zeros((batch, 3, size[1], size[0]), kind)
        try:
            outputs = session.run(list(SIMCC_OUTPUTS), {"input": images})
        except Exception as error:  # the binding raises classes of its own for each way to fail
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{source}: does not run with {batch} image(s): {reason}; {FIX}") from None
        if not all(output.ndim == 3 and len(output) == batch for output in outputs):
            shapes = [output.shape for output in outputs]
            raise UserError(f"{source}: gives {shapes} for {batch} image(s), not (N, K, bins) twice; {FIX}")
    x, y = outputs
    ratio = x.shape[2] / size[0]
    if x.shape[1] != y.shape[1] or ratio != y.shape[2] / size[1]:
        raise UserError(
            f"{source}: gives {x.shape} and {y.shape} for an input of {size[0]}x{size[1]}: the bins do not "
            "fit it; give the right --input"
        )
    return x.shape[1], ratio


def _size(model: onnx.ModelProto, source: Path, given: str | None) -> str:
    """CSPNeXt's size, which the width of its first convolution shows."""
    if given is not None:
        return given
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    first = next((node for node in model.graph.node if "input" in node.input), None)
    wide = weights.get(first.input[1], [0])[0] if first is not None and len(first.input) > 1 else 0
    for size, scale in SIZES.items():
        if scale.channels(64) // 2 == wide:
            return size
    raise UserError(f"{source}: does not show the network's size; give --size t, s, m, l or x")


def _write_sizes(model: onnx.ModelProto, card: ModelCard) -> None:
    """The sizes that the card says, behind the batch, where the file leaves them open."""
    image, outputs = card.shapes(batch=1)
    sizes = {"input": image} | dict(zip(card.outputs, outputs, strict=True))
    for value in (*model.graph.input, *model.graph.output):
        if value.name in sizes:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            shape.dim.add().dim_param = "batch"
            for side in sizes[value.name][1:]:
                shape.dim.add().dim_value = side
