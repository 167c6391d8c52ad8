"""The mix: which shard sets training and evaluation read, and how often an epoch shows each of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rtmpose.files import UserError, read_json


@dataclass(frozen=True)
class MixEntry:
    """One set of training shards and how often an epoch shows each of its samples."""

    dir: Path
    repeat: int


@dataclass(frozen=True)
class Mix:
    """What training and evaluation read: training shards with their repeats, the tuning split, evaluation
    sets by name.
    """

    train: tuple[MixEntry, ...]
    tune: Path
    val: dict[str, Path]


def read_mix(path: Path) -> Mix:
    """The receipt that the stage `mix` writes; its folders, relative to the current one, become absolute."""
    content = read_json(path, "run the stage mix")
    try:
        train = tuple(MixEntry(Path(entry["dir"]).resolve(), entry["repeat"]) for entry in content["train"])
        tune = [Path(entry["dir"]).resolve() for entry in content["tune"]]
        val = {entry["dataset"]: Path(entry["dir"]).resolve() for entry in content["val"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a mix receipt ({error}); run the stage mix again") from error
    if not train or not tune:
        missing = (
            "a dataset with train: true" if not train else "a dataset with train: true and evaluate: true"
        )
        raise UserError(f"params.yaml: datasets: there is no {missing}; training needs one")
    return Mix(train, tune[0], val)
