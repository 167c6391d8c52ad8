"""Checkpoints as files of ours: plain weights, and a note of what they are.

The file is `{"meta": {"rtmpose": <the card as JSON>}, "state_dict": {…}}`, which `torch.load` with
`weights_only=True` reads, and MMEngine too. The shapes of weights say nearly all about a network, but not
whose points they are: AP-10K's animals have as many as COCO's people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rtmpose.config import parse
from rtmpose.deploy.card import ModelCard
from rtmpose.detection.graph import DetectorCard
from rtmpose.files import parse_json, sha256_of
from rtmpose.models.archive import read_checkpoint
from rtmpose.models.weight_sets import chosen_weights
from rtmpose.models.weights import save_tensors
from rtmpose.provenance.sources import UNKNOWN, DataSource, Use, from_note, used_before
from rtmpose.released.catalogue import Released, catalogue, published_at, terms
from rtmpose.released.graphs import card_in, is_graph

META, OURS = "meta", "rtmpose"


@dataclass(frozen=True)
class Note:
    """What a file, or its name, says beyond the shapes of its weights; None is what it does not say."""

    skeleton: str | None = None
    input_size: tuple[int, int] | None = None  # (w, h) px


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write weights with their card; the file appears under `path` only when it is whole."""
    save_tensors(path, {META: {OURS: card.model_dump_json()}, "state_dict": dict(weights)})


def read_with_note(path: Path) -> tuple[dict[str, Tensor], Note]:
    """The weights that count in a checkpoint, and what it says of them: its own card, or for a released file
    the catalogue. UserError for what is no checkpoint, or has a card that is none.
    """
    content = read_checkpoint(path)
    weights = chosen_weights(content, path)
    card = _card(content, path)
    if card is not None:
        return weights, Note(card.skeleton, card.input_size)
    released = published_at(path)
    if released is None:
        return weights, Note()
    return weights, Note(released.weights.skeleton, released.weights.input)


def sources_in(path: Path) -> tuple[DataSource, ...] | None:
    """Whose data is in weights: by their own note or card, also of an ONNX or OpenVINO file, pose or
    detector; else by the catalogue for a released file; None where nobody says.
    """
    card: ModelCard | DetectorCard | None
    if is_graph(path):
        card = card_in(path)
    else:
        content = read_checkpoint(path)
        noted = from_note(content, path)
        if noted is not None:
            return noted
        card = _card(content, path)
    if card is not None and card.data:
        return card.data
    released = published_at(path)
    return None if released is None else released_sources(released, path)


def released_sources(released: Released, path: Path) -> tuple[DataSource, ...]:
    """The sources of released weights in the file `path`: they themselves, and what they were trained on."""
    own = DataSource(name=released.weights_name, sha256=sha256_of(path), licence=catalogue().licence,
                     use="initial weights")  # fmt: skip
    theirs = terms(released.weights).items()
    return (own, *(DataSource(name=name, sha256=UNKNOWN, licence=said) for name, said in theirs))


def sources_or_itself(path: Path) -> tuple[DataSource, ...]:
    """Whose data is in weights; where nobody says, the file itself is a source whose terms are not known."""
    found = sources_in(path)
    if found is not None:
        return found
    return (DataSource(name=path.name, sha256=sha256_of(path), licence=UNKNOWN, use="initial weights"),)


def sources_before(path: Path, use: Use) -> tuple[DataSource, ...]:
    """The sources of further training that starts from weights, as `sources_or_itself` has them."""
    return used_before(sources_or_itself(path), use)


def _card(content: object, path: Path) -> ModelCard | None:
    meta = content.get(META) if isinstance(content, dict) else None
    text = meta.get(OURS) if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return None
    name = f"{path}: its card"
    return parse(ModelCard, parse_json(text.encode(), name, "convert the weights again"), Path(name))
