"""The mix: which shard sets training and evaluation read, and how often an epoch shows each of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, PositiveInt

from rtmpose.config import Record, read_record
from rtmpose.data.shards.manifest import digest_without_licence
from rtmpose.files import UserError


class _Folder(Record):
    dir: str = Field(min_length=1, pattern=r"^[^\x00]*$")


class _Shown(_Folder):
    repeat: PositiveInt


class _Named(_Folder):
    dataset: str


class _Receipt(Record):
    train: list[_Shown]
    tune: list[_Folder]
    val: list[_Named]


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


def mix_digest(path: Path) -> str:
    """Hex SHA-256 of a mix as it is without licences, which change nothing of what is trained."""
    return digest_without_licence(path, {"indent": 1})


def read_mix(path: Path) -> Mix:
    """The receipt that the stage `mix` writes; its folders, relative to the current one, become absolute."""
    content = read_record(_Receipt, path, "run the stage mix again")
    train = tuple(MixEntry(Path(entry["dir"]).resolve(), entry["repeat"]) for entry in content["train"])
    tune = [Path(entry["dir"]).resolve() for entry in content["tune"]]
    val = {entry["dataset"]: Path(entry["dir"]).resolve() for entry in content["val"]}
    if not train or not tune:
        missing = (
            "a dataset with train: true" if not train else "a dataset with train: true and evaluate: true"
        )
        fix = "training needs one: mark it in params.yaml and run the stage mix again"
        raise UserError(f"{path}: datasets: there is no {missing}; {fix}")
    return Mix(train, tune[0], val)
