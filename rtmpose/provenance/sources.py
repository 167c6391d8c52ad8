"""Data sets by name, hash and licence, and the note of them in a file of weights.

A `.pt` file of ours is `{"meta": {"rtmpose.data": <JSON>}, "state_dict": {…}}`: `torch.load` with
`weights_only=True` reads it, and so does everything that looks for a `state_dict`. Files in other formats
have a card (`rtmpose.deploy.card`), which holds the same list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rtmpose.config import DatasetParams, Record, Strict, parse, read_record
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError, parse_json

Use = Literal["training", "pretraining", "initial weights", "distillation"]
NOTE = "rtmpose.data"
UNKNOWN = "not known"
RENDERED = "rendered here"  # by this product: nobody else has a right in it


class DataSource(Strict):
    """A data set that is in weights: its name, the hash of its manifest, its licence, and its use.

    Weights that somebody else trained, on data that nobody names, are a source themselves, with their own
    hash; what is not known of a source says so (`UNKNOWN`).
    """

    name: str
    sha256: str
    licence: str
    use: Use = "training"

    @property
    def is_known(self) -> bool:
        """Whether its terms are."""
        return bool(self.licence) and not self.licence.startswith(UNKNOWN)


class Data(Record):
    """What is read of a receipt; those of older runs say nothing."""

    data: list[dict[str, Any]] | None = None


class _Entry(Record):
    dataset: str
    manifest_sha256: str
    licence: str | None = None


class _Mix(Record):
    train: list[_Entry] = Field(default_factory=list)


def licence_of(dataset: DatasetParams) -> str:
    """The terms of a set of the parameters: its descriptor's, unless it is rendered."""
    if dataset.render is not None:
        return RENDERED
    return load_dataset(dataset.descriptor).licence or UNKNOWN


def of_mix(path: Path, datasets: Mapping[str, DatasetParams]) -> tuple[DataSource, ...]:
    """The sets that a mix trains on. One that was cut before manifests had licences has its descriptor's."""
    content = read_record(_Mix, path, "run the stage mix again")
    found = []
    for entry in (_Entry.model_validate(one) for one in content.get("train", ())):
        licence = entry.licence
        if licence is None:
            known = datasets.get(entry.dataset)
            licence = UNKNOWN if known is None else licence_of(known)
        found.append(DataSource(name=entry.dataset, sha256=entry.manifest_sha256, licence=licence))
    return tuple(found)


def of_receipt(path: Path) -> tuple[DataSource, ...] | None:
    """The sources that a training receipt names; None where it was written before receipts did."""
    content = read_record(Data, path, "run the stage again that trains")
    if content.get("data") is None:
        return None
    return tuple(parse(DataSource, one, Path(f"{path}: data")) for one in content["data"])


def joined(*groups: Iterable[DataSource]) -> tuple[DataSource, ...]:
    """All sources, each set once: for what it was used last, which is the group that comes first."""
    found: dict[tuple[str, str], DataSource] = {}
    for source in (one for group in groups for one in group):
        found.setdefault((source.name, source.sha256), source)
    return tuple(found.values())


def used_before(sources: Iterable[DataSource], use: Use) -> tuple[DataSource, ...]:
    """Sources of weights that further training starts from: what trained them becomes `use`."""
    earlier = {"training"} if use == "pretraining" else {"training", "pretraining"}
    return tuple(
        source.model_copy(update={"use": use}) if source.use in earlier else source for source in sources
    )


def note(sources: Iterable[DataSource]) -> dict[str, str]:
    """What stands under `meta` in a `.pt` file."""
    return {NOTE: json.dumps([source.model_dump() for source in sources])}


def from_note(content: object, path: Path) -> tuple[DataSource, ...] | None:
    """The sources that the content of a `.pt` file notes; None where it notes none, UserError for a note that
    is none of ours.
    """
    meta = content.get("meta") if isinstance(content, dict) else None
    text = meta.get(NOTE) if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return None
    name, fix = f"{path}: its note of data", "train or convert the weights again"
    found = parse_json(text.encode(), name, fix)
    if not isinstance(found, list):
        raise UserError(f"{name}: is no list; {fix}")
    return tuple(parse(DataSource, one, Path(name)) for one in found)


def lines(sources: Sequence[DataSource] | None) -> list[str]:
    """For people: one line for each source, or that nothing is known."""
    if sources is None:
        return ["data: not known: the file notes none, and is no released one"]
    if not sources:
        return ["data: none: fresh weights"]
    return [f"data: {one.name} ({one.use}): {one.licence or UNKNOWN}" for one in sources]


def tags(sources: Iterable[DataSource]) -> dict[str, str]:
    """For a registered version: one tag for each source, which the listing of its tags shows."""
    found: dict[str, str] = {}
    for source in sources:
        name = "".join(c if c.isalnum() or c in "_-. /" else "_" for c in source.name)
        key = f"licence.{name}" if source.use == "training" else f"licence.{source.use}.{name}"
        found[key] = source.licence or UNKNOWN
    return found
