"""The cards in files with a network within: ONNX files and OpenVINO's, of poses and of detectors."""

from __future__ import annotations

from pathlib import Path

from rtmpose.deploy.card import PREFIX, ModelCard
from rtmpose.detection.graph import DetectorCard, card_among, read_model
from rtmpose.files import UserError

ENDINGS = (".onnx", ".xml")


def is_graph(path: Path) -> bool:
    """Whether a file has its network within, by its name."""
    return path.suffix.lower() in ENDINGS


def card_in(path: Path) -> ModelCard | DetectorCard | None:
    """The card of a file with a network within; None for an ONNX file of others. UserError where the file
    cannot be read, its card is damaged, or an OpenVINO file has none.
    """
    if path.suffix.lower() == ".xml":
        from rtmpose.deploy.quantize.openvino import card_of

        if not path.is_file():
            raise UserError(f"{path}: no such file; give the path of a model")
        return card_of(path)
    found = {one.key: one.value for one in read_model(path).metadata_props}
    detector = card_among(found, path)
    if detector is not None:
        return detector
    return ModelCard.from_properties(found, path) if any(key.startswith(PREFIX) for key in found) else None


def described(card: ModelCard | DetectorCard | None) -> str:
    """What a file is, by its card, in a few words."""
    if card is None:
        return "a network without a card of ours"
    size = f"{card.input_size[0]}x{card.input_size[1]}"
    if isinstance(card, DetectorCard):
        return f"RTMDet-{card.size}, {size}, {len(card.classes)} class(es)"
    points = f"{len(card.keypoint_names)} points of {card.skeleton}"
    return f"size {card.size}, {size}, {points}, {card.precision}"
