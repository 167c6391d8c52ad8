"""The end-to-end form of an exported file, `*.e2e.onnx`: uint8 crops in, keypoints out.

Normalisation, the network and the decoding are one graph: a program in any language cuts crops, runs the file
and has points. The network is taken out of the exported file as it lies there, in its precision, and the
decoding is the codec's own, traced: nothing is written down a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, compose, numpy_helper, parser
from torch import Tensor, nn

from rtmpose.deploy.card import PREFIX, Confidence, ModelCard
from rtmpose.deploy.graphs import save_graph, traced
from rtmpose.deploy.runtimes.onnxruntime import open_file
from rtmpose.files import UserError, sha256_of
from rtmpose.geometry import Floats, crop_to_image
from rtmpose.targets import Codec
from rtmpose.topdown import crop_boxes

CROPS = "crops"
POINTS, CONFIDENCE = ("keypoints", "scores"), "confidence"
CHANNELS = PREFIX + "channels"  # metadata: the order of the crops' channels
SOURCE = PREFIX + "source"  # metadata: the SHA-256 of the exported file
RGB = "RGB"
FIX = "export the model again"


def export_e2e(source: Path, path: Path | None = None) -> Path:
    """Write the end-to-end form of the exported file `source`, by default beside it as `<its stem>.e2e.onnx`.

    Input `crops` uint8 (N, H, W, 3), RGB as the metadata `rtmpose.channels` says. Outputs `keypoints` (N, K,
    2) float32 in input px and `scores` (N, K) float32, exactly as the codec decodes them; and, where the card
    knows how scores become probabilities, `confidence` (N, K) float32 in [0, 1]. The metadata is that of
    `source`. The file appears only when it is whole.
    """
    network = onnx.load(str(source))
    card = ModelCard.from_properties({item.key: item.value for item in network.metadata_props}, source)
    decoder = _decoder(network, card)
    whole = _joined(_joined(_preparation(network, card), network, ["input"]), decoder, card.outputs)
    onnx.helper.set_model_props(whole, card.properties() | {CHANNELS: RGB, SOURCE: sha256_of(source)})
    return save_graph(whole, path or e2e_path(source))


def e2e_path(onnx_file: Path) -> Path:
    """Where the end-to-end form of an exported file lies."""
    return onnx_file.with_suffix(".e2e.onnx")


def _preparation(network: onnx.ModelProto, card: ModelCard) -> onnx.ModelProto:
    """uint8 NHWC to the normalised input. Bytes are transposed, not floats. The mean is subtracted here,
    because the network's zero padding stands for it; the division goes into the weights where it can.
    """
    (width, height), kind = card.input_size, _input_type(network)
    steps = [
        f"planes = Transpose <perm = [0, 3, 1, 2]> ({CROPS})",
        "levels = Cast <to = 1> (planes)",
        "centred = Sub (levels, mean)",
    ]
    if not _divide_weights(network, card.std):
        steps.append("divided = Div (centred, std)")
    last = steps[-1].partition(" ")[0]
    steps.append(f"input = Cast <to = {kind}> ({last})")  # runtimes drop a cast of float32 to itself
    mean, std = (", ".join(map(repr, channels)) for channels in (card.mean, card.std))
    name = TensorProto.DataType.Name(kind).lower()
    model = parser.parse_model(f"""
        <ir_version: {network.ir_version}, opset_import: ["" : {_opset(network)}]>
        prepare (uint8[batch, {height}, {width}, 3] {CROPS}) => ({name}[batch, 3, {height}, {width}] input)
        <float[1, 3, 1, 1] mean = {{{mean}}}, float[1, 3, 1, 1] std = {{{std}}}>
        {{ {" ".join(steps)} }}""")
    return _prefixed(model, "prepare/")


def _divide_weights(network: onnx.ModelProto, std: Sequence[float]) -> bool:
    """Divide the weights of the first convolutions by the channels' deviations, instead of their input.

    Zero padding stays zero, so this is exact. Nothing is done, and False returned, where something else reads
    the input or the weights (a quantised model), or where smaller weights would lose digits (fp16).
    """
    readers = [node for node in network.graph.node if "input" in node.input]
    weights = {tensor.name: tensor for tensor in network.graph.initializer}
    names = [node.input[1] for node in readers if node.op_type == "Conv" and node.input[0] == "input"]
    uses = [name for node in network.graph.node for name in node.input]
    for name in names:
        tensor = weights.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or tensor.dims[1] != len(std):
            return False
    if len(names) < len(readers) or any(uses.count(name) > 1 for name in names):
        return False
    scale = 1 / np.asarray(std).reshape(1, -1, 1, 1)
    for name in names:
        divided = (numpy_helper.to_array(weights[name]) * scale).astype(np.float32)
        weights[name].CopyFrom(numpy_helper.from_array(divided, name))
    return True


class _Decode(nn.Module):
    """The codec's decoding, and confidence where it is known, as a module that can be traced."""

    def __init__(self, codec: Codec, confidence: Confidence | None) -> None:
        super().__init__()
        self.codec: Any = codec
        self.confidence = confidence

    def forward(self, first: Tensor, second: Tensor | None = None) -> tuple[Tensor, ...]:
        points, scores = self.codec.decode(first if second is None else (first, second))
        if self.confidence is None:
            return points, scores
        sure = torch.sigmoid(self.confidence.slope * scores + self.confidence.intercept)
        return points, scores, sure


def _decoder(network: onnx.ModelProto, card: ModelCard) -> onnx.ModelProto:
    """The network's outputs to `keypoints`, `scores` and perhaps `confidence`."""
    values = {value.name: value.type.tensor_type for value in network.graph.output}
    examples = [
        torch.zeros(
            (2, *(side.dim_value for side in values[name].shape.dim[1:])),
            dtype=torch.float16 if values[name].elem_type == TensorProto.FLOAT16 else torch.float32,
        )
        for name in card.outputs
    ]
    module = _Decode(card.codec(), card.confidence)
    model = traced(module, examples, card.outputs, _output_names(card), _opset(network))
    model.ir_version = network.ir_version
    return _prefixed(model, "decode/")


def _output_names(card: ModelCard) -> tuple[str, ...]:
    return (*POINTS, CONFIDENCE) if card.confidence is not None else POINTS


def _prefixed(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """The same graph with other inner names, so that it can be joined; inputs and outputs keep theirs."""
    return compose.add_prefix(model, prefix, rename_inputs=False, rename_outputs=False)


def _joined(first: onnx.ModelProto, second: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Both graphs as one: the outputs `names` of the first are the second's inputs of the same names."""
    model = compose.merge_models(first, second, io_map=[(name, name) for name in names])
    versions = {item.domain: item.version for item in model.opset_import}  # both graphs' are in the list
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*item) for item in versions.items())
    return model


def _input_type(network: onnx.ModelProto) -> int:
    return next(i.type.tensor_type.elem_type for i in network.graph.input if i.name == "input")


def _opset(network: onnx.ModelProto) -> int:
    return next(item.version for item in network.opset_import if item.domain in ("", "ai.onnx"))


class Found(NamedTuple):
    """What the file finds in crops."""

    keypoints: Floats  # (N, K, 2) px: of the input where crops went in, of the image where boxes did
    scores: Floats  # (N, K) raw
    confidence: Floats | None  # (N, K) in [0, 1]; None where it was not calibrated


@dataclass(frozen=True)
class EndToEnd:
    """An end-to-end file, open in ONNX Runtime on the CPU."""

    session: ort.InferenceSession
    card: ModelCard

    @classmethod
    def open(cls, path: Path, threads: int = 1) -> EndToEnd:
        """UserError where it is no end-to-end file of ours, or names, types and sizes are not those that its
        metadata describes.
        """
        session = open_file(path, threads)
        try:
            properties = session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError:
            raise UserError(f"{path}: metadata is damaged: no text; {FIX}") from None
        card = ModelCard.from_properties(properties, path)
        if (order := properties.get(CHANNELS)) != RGB:
            raise UserError(
                f"{path}: metadata '{CHANNELS}' is {order}, not {RGB}; give an end-to-end file (*.e2e.onnx)"
            )
        _refuse_unlike(session, card, path)
        return cls(session, card)

    def made_from(self, source: Path) -> bool:
        """Whether it was written from the exported file `source` as that is now. Files from before this was
        noted say nothing: no.
        """
        noted = self.session.get_modelmeta().custom_metadata_map.get(SOURCE)
        return noted is not None and noted == sha256_of(source)

    def __call__(self, pixels: NDArray[np.uint8]) -> Found:
        """Keypoints in px of the crops (N, H, W, 3), RGB."""
        points, scores, *rest = self.session.run(None, {CROPS: pixels})
        return Found(points, scores, rest[0] if rest else None)

    def points(self, image: NDArray[np.uint8], boxes: ArrayLike) -> Found:
        """Keypoints in px of an RGB image, of the persons in boxes (N, 4) xywh px."""
        size = self.card.input_size
        crops = crop_boxes(image, boxes, size, udp=self.card.codec().udp)
        found = self(crops.pixels)
        return found._replace(keypoints=crop_to_image(found.keypoints, crops.center, crops.scale, size))


def _refuse_unlike(session: ort.InferenceSession, card: ModelCard, path: Path) -> None:
    """UserError where inputs and outputs are not those that the card describes."""
    (width, height), points = card.input_size, len(card.keypoint_names)
    expected = {CROPS: ("tensor(uint8)", [height, width, 3])}
    for name in _output_names(card):
        expected[name] = ("tensor(float)", [points, 2] if name == "keypoints" else [points])
    found = {
        value.name: (value.type, value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())
    }
    if found != expected:
        name = min(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise UserError(
            f"{path}: '{name}' is {_told(found.get(name))}, by its metadata {_told(expected.get(name))}: it "
            f"is another model's; {FIX}"
        )


def _told(value: tuple[str, list[Any]] | None) -> str:
    return "not there" if value is None else f"{value[0]} of {'x'.join(map(str, value[1]))}"
