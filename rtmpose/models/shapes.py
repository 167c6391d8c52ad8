"""What the shapes of a checkpoint's weights say about the network they belong to: nearly all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from pydantic import ValidationError
from torch import Tensor

from rtmpose.config import Architecture, Size
from rtmpose.models.cspnext import HARDSWISH, SIZES
from rtmpose.models.heads.simcc import SPLIT_RATIO
from rtmpose.models.hrnet import WIDTHS

Sides = Mapping[str, tuple[int, ...]]  # of every weight
DEFAULT_SIZE: Size = "m"  # where the shapes say none: ResNet-50 and HRNet have no sizes


@dataclass(frozen=True)
class Shapes:
    """A network as its weights show it; None is what they do not show.

    Heatmap networks take inputs of any size, and a backbone alone has no points. What of `architecture` the
    shapes do not show has the value that parameters have by default.
    """

    architecture: Architecture
    num_keypoints: int | None
    input_size: tuple[int, int] | None  # (w, h) px


def shapes_of(weights: Mapping[str, Tensor]) -> Shapes:
    """The network that a state dict (names as in official checkpoints) belongs to."""
    sides = {key: tuple(value.shape) for key, value in weights.items()}
    head, maps = _head(sides), "head.final_layer.weight"
    neck = "rtmw" if "head.final_layer2.conv.weight" in sides else None
    hidden = kernel = None
    if neck is not None:
        maps = "head.final_layer.conv.weight"
    if head == "simcc":
        hidden, kernel = _side(sides, "head.cls_x.weight", 1, 2), _side(sides, maps, 3, 4)
    elif head == "simcc_plain":
        kernel = _side(sides, maps, 3, 4)
    elif head == "simcc_deconv":
        maps = "head.deconv_head.final_layer.weight"
        hidden = _side(sides, "head.deconv_head.deconv_layers.0.weight", 1, 4)
    elif head == "heatmap":
        hidden = _side(sides, "head.deconv_layers.0.weight", 1, 4)
    facts = {
        "size": _size(sides),
        "neck": neck,
        "backbone": _backbone(sides),
        "activation": "hardswish" if HARDSWISH in sides else None,
        "head": head,
        "kernel": kernel,
        "hidden": hidden,
        "gau": "head.gau.uv.weight" in sides if head == "simcc" else None,
    }
    shown = {name: value for name, value in facts.items() if value is not None}
    try:
        architecture = Architecture.model_validate(shown)
    except ValidationError:  # no network has such sides: loading the weights will name the first that differs
        architecture = Architecture(size=_size(sides))
    return Shapes(architecture, _side(sides, maps, 0, 4), _input_size(sides))


def _backbone(sides: Sides) -> str | None:
    """The kind of backbone, where it is none of ours: HRNet by the width of its finest maps."""
    finest = _side(sides, "backbone.transition1.0.0.weight", 0, 4)
    if finest is not None:
        return next((name for name, width in WIDTHS.items() if width == finest), None)
    return "resnet50" if "backbone.conv1.weight" in sides else None


def _side(sides: Sides, key: str, axis: int, rank: int) -> int | None:
    """One side of a weight that has as many as `rank`."""
    found = sides.get(key, ())
    return found[axis] if len(found) == rank else None


def _size(sides: Sides) -> Size:
    """CSPNeXt's size, which the width of its stem shows."""
    stem = _side(sides, "backbone.stem.2.conv.weight", 0, 4)
    return next((size for size in get_args(Size) if SIZES[size].channels(64) == stem), DEFAULT_SIZE)


def _head(sides: Sides) -> str | None:
    """The kind of head, by a weight that no other kind has."""
    if "head.cls_x.weight" in sides:
        return "simcc"
    if "head.mlp_head_x.weight" in sides:
        return "simcc_deconv" if "head.deconv_head.final_layer.weight" in sides else "simcc_plain"
    # HRNet's heatmap head is its last convolution alone.
    bare = "backbone.transition1.0.0.weight" in sides and "head.final_layer.weight" in sides
    return "heatmap" if bare or "head.deconv_layers.0.weight" in sides else None


def _input_size(sides: Sides) -> tuple[int, int] | None:
    """SimCC's classifiers have a row for each bin, `SPLIT_RATIO` bins a pixel."""
    for layer in ("cls", "mlp_head"):
        x, y = (_side(sides, f"head.{layer}_{axis}.weight", 0, 2) for axis in "xy")
        if x and y:
            return x // SPLIT_RATIO, y // SPLIT_RATIO
    return None
