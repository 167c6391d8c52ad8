"""What a detector's ONNX file says of itself: by our card where it has one, else by its graph.

The published files carry no metadata. Their outputs say how boxes are read (`forms`), but not how pixels
must be prepared: RTMDet and YOLOX, exported with suppression inside, have the same two outputs. The graphs
differ where they begin: YOLOX first slices the image into every second pixel, RTMDet convolves it.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from pydantic import PositiveInt

from rtmpose.config import Strict, parse
from rtmpose.files import UserError
from rtmpose.provenance.sources import DataSource

Family = Literal["rtmdet", "yolox"]
RGB = tuple[float, float, float]
PROPERTY = "rtmpose.detector"
#: RTMDet's mean and standard deviation of the channels as the network takes them, blue first, grey levels.
MEAN_BGR: RGB = (103.53, 116.28, 123.675)
STD_BGR: RGB = (57.375, 57.12, 58.395)
# What only moves numbers: behind it the operation that computed them is looked for.
LAYOUT = {
    "Reshape", "Transpose", "Concat", "Identity", "Cast", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split",
}  # fmt: skip
FEW = {"rtmdet": 2_000_000, "yolox": 6_000_000}  # weights of the sizes that were trained on small images


class DetectorCard(Strict):
    """Metadata of a detector that we exported, one JSON string under `rtmpose.detector`.

    The network's size, its input (w, h) px, the channels' order, mean and std in that order in grey levels,
    its classes by label, and whose data is in it.
    """

    size: str
    input_size: tuple[PositiveInt, PositiveInt]
    channels: Literal["rgb", "bgr"]
    mean: RGB
    std: RGB
    classes: tuple[str, ...]
    data: tuple[DataSource, ...] = ()


@dataclass(frozen=True)
class Pixels:
    """How a network wants its pixels: (pixel - mean) / std per channel, in this order of channels."""

    mean: RGB
    std: RGB
    bgr: bool = True


PIXELS: dict[Family, Pixels] = {
    "rtmdet": Pixels(MEAN_BGR, STD_BGR),
    "yolox": Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def read_model(path: Path) -> onnx.ModelProto:
    """An ONNX file, without weights that it keeps elsewhere; UserError where it is none."""
    try:
        return onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give an ONNX file") from None
    except Exception:  # protobuf's own classes, which differ from version to version
        raise UserError(f"{path}: not a complete ONNX model; fetch or export it again") from None


def card_among(properties: Mapping[str, str], path: Path) -> DetectorCard | None:
    """The card of a detector in the metadata of the file `path`; UserError where that is damaged."""
    text = properties.get(PROPERTY)
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: metadata '{PROPERTY}' is not JSON; export it again") from None
    return parse(DetectorCard, values, Path(f"{path}: metadata"))


class Graph:
    """A detector's ONNX graph. UserError where the file is none, or its input is no image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        model = read_model(path)
        graph, self.properties = model.graph, {one.key: one.value for one in model.metadata_props}
        self.nodes = graph.node
        self.makers = {name: node for node in graph.node for name in node.output}
        self.outputs = [output.name for output in graph.output]
        weights = {one.name: math.prod(one.dims) for one in graph.initializer}
        self.parameters = sum(weights.values())
        inputs = [one for one in graph.input if one.name not in weights]
        shape = [size.dim_value for size in inputs[0].type.tensor_type.shape.dim] if inputs else []
        if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (0, 3):
            found = ", ".join(f"{one.name} {_sizes(one)}" for one in inputs) or "none"
            raise UserError(
                f"{path}: inputs {found}; a detector has one input (N, 3, H, W): give such a file"
            )
        if shape[0] not in (0, 1):
            raise UserError(
                f"{path}: its input is a batch of {shape[0]}; export it for one image or any number"
            )
        self.input = inputs[0].name
        self.half = inputs[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
        self.fixed = (shape[3], shape[2]) if shape[2] and shape[3] else None  # (w, h) px

    @property
    def card(self) -> DetectorCard | None:
        """What our export wrote; UserError where that is damaged."""
        return card_among(self.properties, self.path)

    @property
    def family(self) -> Family:
        """YOLOX where slices take the image apart first, else RTMDet."""
        first = {node.op_type for node in self.nodes if self.input in node.input}
        return "yolox" if "Slice" in first else "rtmdet"

    def pixels(self) -> Pixels:
        """How the file wants its pixels: as its card says, else as its family was published."""
        if card := self.card:
            return Pixels(card.mean, card.std, card.channels == "bgr")
        return PIXELS[self.family]

    def size(self, wanted: tuple[int, int] | None) -> tuple[int, int]:
        """The input's (w, h) px: as the file fixes it; else `wanted`, the card's, or that of the published
        sizes: 320 for RTMDet-nano, 416 for YOLOX nano and tiny, 640 for all larger ones.
        """
        if self.fixed:
            if wanted not in (None, self.fixed):
                raise UserError(
                    f"{self.path}: takes {_times(self.fixed)} px only, not {_times(wanted or ())}; leave "
                    "the size out, or export it with a free one"
                )
            return self.fixed
        if wanted and (min(wanted) < 32 or wanted[0] % 32 or wanted[1] % 32):
            raise UserError(f"detector size {_times(wanted)}: give multiples of 32 px, such as 320x320")
        if wanted:
            return wanted
        if card := self.card:
            return card.input_size
        small = self.parameters < FEW[self.family]
        side = (320 if self.family == "rtmdet" else 416) if small else 640
        return side, side

    def has(self, operation: str) -> bool:
        """Whether this kind of operation is anywhere in the graph."""
        return any(node.op_type == operation for node in self.nodes)

    def ends_in(self, output: str, operation: str) -> bool:
        """Whether (part of) an output comes from this kind of operation, but for what only moves numbers."""
        left, seen = deque([output]), {output}
        while left:
            node = self.makers.get(left.popleft())
            if node is None:
                continue
            if node.op_type == operation:
                return True
            if node.op_type in LAYOUT:
                left.extend(name for name in node.input if name not in seen)
                seen.update(node.input)
        return False


def _sizes(value: onnx.ValueInfoProto) -> str:
    return _times([size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim])


def _times(sides: tuple[int, ...] | list[object]) -> str:
    return "x".join(map(str, sides)) or "()"
