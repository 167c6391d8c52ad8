"""Post-training int8 for OpenVINO by NNCF: symmetric weights, asymmetric activations (its preset MIXED), the
head in float.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from rtmpose.deploy.card import PREFIX, ModelCard
from rtmpose.deploy.origin import belonging
from rtmpose.deploy.quiet import quiet
from rtmpose.deploy.runtimes.base import NotPossible
from rtmpose.deploy.runtimes.openvino import CONVOLUTIONS, head
from rtmpose.files import UserError, destination, one_line, temporary_beside, writing

PRESET = "mixed"


def quantized(source: Path, inputs: NDArray[np.float32], kept_float: Sequence[str] = ()) -> ov.Model:
    """The network of an exported ONNX file in int8, its head in float.

    inputs: normalised float32 (N, 3, H, W) to calibrate on. `kept_float`: names of ONNX nodes that stay in
    float besides. NotPossible where NNCF is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        raise NotPossible(f"NNCF is not installed ({error}); pip install 'rtmpose[quantize]'") from None
    with quiet("nncf"):
        model = ov.Core().read_model(str(source))
        return nncf.quantize(
            model,
            nncf.Dataset(np.split(inputs, len(inputs))),
            preset=nncf.QuantizationPreset(PRESET),
            ignored_scope=nncf.IgnoredScope(names=[*head(model), *_named(model, kept_float)]),
            subset_size=len(inputs),
        )


def _named(model: ov.Model, nodes: Sequence[str]) -> list[str]:
    """OpenVINO's names of ONNX nodes; a convolution with a bias has become two operations."""
    known = {one.get_friendly_name() for one in model.get_ordered_ops()}
    return [name for node in nodes for name in (node, f"{node}/WithoutBiases") if name in known]


def precision_map(model: ov.Model) -> dict[str, list[str]]:
    """Which convolutions and matrix products have quantised inputs, and which compute in float, by
    OpenVINO's names.
    """
    found: dict[str, list[str]] = {"int8": [], "float32": []}
    for one in model.get_ordered_ops():
        if one.get_type_name() in (*CONVOLUTIONS, "MatMul"):
            found["int8" if _quantised(one.input_value(1).get_node()) else "float32"].append(
                one.get_friendly_name()
            )
    return found


def _quantised(weight: ov.Node) -> bool:
    """Whether a weight comes from 8-bit numbers, through a conversion and a scale."""
    while weight.get_type_name() in ("Multiply", "Subtract", "Convert", "Reshape", "FakeQuantize"):
        if weight.get_type_name() == "FakeQuantize":
            return True
        weight = weight.input_value(0).get_node()
    return weight.output(0).get_element_type() in (ov.Type.i8, ov.Type.u8)


def card_of(path: Path) -> ModelCard:
    """The card that `save_quantized` wrote into the file `path` (.xml); UserError where there is none."""
    try:
        model = ov.Core().read_model(str(path))
    except RuntimeError as error:
        reason = one_line(error)
        raise UserError(f"{path}: not a complete model ({reason}); run the quantize stage again") from None
    known = [field for field in ModelCard.model_fields if model.has_rt_info(["rtmpose", field])]
    properties = {PREFIX + field: str(model.get_rt_info(["rtmpose", field]).value) for field in known}
    return ModelCard.from_properties(properties, path)


def save_quantized(model: ov.Model, path: Path, card: ModelCard, exported: Path) -> Path:
    """Write a quantised network as `path` (.xml) and the .bin beside it, with the card, and which `exported`
    file it belongs to, in its runtime information. Both appear when they are complete, the weights first.
    """
    for key, value in (card.properties() | belonging(exported)).items():
        model.set_rt_info(value, ["rtmpose", key.removeprefix(PREFIX)])
    model.set_rt_info(json.dumps({"preset": PRESET}), ["rtmpose", "nncf"])
    weights = path.with_suffix(".bin")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        targets = {final: destination(final) for final in (weights, path)}
        new = {final: temporary_beside(target) for final, target in targets.items()}
        try:
            with tempfile.TemporaryDirectory(prefix="rtmpose-int8-") as folder:
                _save(model, Path(folder, path.name))
                for final, temporary in new.items():
                    temporary.write_bytes(Path(folder, final.name).read_bytes())
            for final, temporary in new.items():
                os.replace(temporary, targets[final])
        finally:
            for temporary in new.values():
                with suppress(OSError):  # the first error is the one to be told
                    temporary.unlink(missing_ok=True)
    return path


def _save(model: ov.Model, path: Path) -> None:
    """Write and read back: OpenVINO does not say where a disk took but a part."""
    try:
        ov.save_model(model, str(path), compress_to_fp16=False)
        ov.Core().read_model(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be written: {one_line(error)[:200]}; free space there") from None
