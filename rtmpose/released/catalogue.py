"""What is known of released weights: `catalogue.yaml`, read strictly, and how its files are called.

A file is called by the name of its weights and its form: `rtmpose-m-body17.onnx`, `rtmpose-m-body17.pth`.
Where weights come in one form only, their name alone is enough.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, StringConstraints, model_validator

from rtmpose.config.base import Strict, parse
from rtmpose.files import UserError, read_yaml, sha256_of
from rtmpose.provenance.sources import UNKNOWN

UNDESCRIBED = f"{UNKNOWN}: no descriptor here, see its authors' page"
CATALOGUE = Path(__file__).with_name("catalogue.yaml")
#: The digits of a SHA-256 that OpenMMLab's tool writes into names: `…-e48f03d0_20230504.pth`. A name that
#: ends in a date alone, as RTMW's do, has none.
DIGITS = re.compile(r"-(?!20\d{6}\.)(?P<digits>[0-9a-f]{7,8})(_\d{8})?\.(pth|zip)")

Form = Literal["pth", "onnx"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FORMS: tuple[Form, ...] = ("pth", "onnx")


class Published(Strict):
    """A file of the publisher: its `path` below a mirror, and in which file of the publisher that was read.

    `sha256` and `bytes` are its own, `inner_*` those of the ONNX file in a zip, whose path ends in `member`
    where it holds several. `seen`: how many public manifests say so.
    """

    path: Annotated[str, StringConstraints(pattern=r"^[\w.+-]+(/[\w.+-]+)*\.(pth|zip)$")]
    source: str
    member: str | None = None
    sha256: Sha256 | None = None
    bytes: PositiveInt | None = None
    inner_sha256: Sha256 | None = None
    inner_bytes: PositiveInt | None = None
    seen: PositiveInt | None = None

    @model_validator(mode="after")
    def _fits_itself(self) -> Published:
        if ".." in self.path.split("/"):
            raise ValueError(f"path {self.path} climbs")
        if (self.seen is None) != (self.sha256 is None and self.inner_sha256 is None):
            raise ValueError("seen belongs to a sha256")
        return self

    @property
    def file(self) -> str:
        """The name that the publisher gave it."""
        return PurePosixPath(self.path).name

    @property
    def digits(self) -> str | None:
        """What its name says of a hash: the beginning of the SHA-256 of the checkpoint. A zip bears the
        digits of the checkpoint that it was made from, which say nothing of its own bytes.
        """
        found = DIGITS.search(self.file)
        return found["digits"] if found else None


class Weights(Strict):
    """One set of weights: what it is, its input (w, h) px, the descriptor in `datasets/` that has its points
    (None: it has none, or none is known), what it was trained on, and its files.
    """

    kind: Literal["pose", "detector", "backbone"]
    network: Literal["rtmpose", "rtmw", "rtmdet", "yolox", "cspnext"]
    size: Literal["nano", "tiny", "t", "s", "m", "l", "x"]
    input: tuple[PositiveInt, PositiveInt]
    skeleton: str | None = None
    data: tuple[str, ...] = Field(..., min_length=1)
    pth: Published | None = None
    onnx: Published | None = None

    @model_validator(mode="after")
    def _fits_itself(self) -> Weights:
        if self.pth is None and self.onnx is None:
            raise ValueError("needs pth or onnx")
        if (self.kind == "pose") != (self.skeleton is not None):
            raise ValueError("a pose network, and nothing else, has a skeleton")
        for form, ending in zip(FORMS, (".pth", ".zip"), strict=True):
            published = getattr(self, form)
            if published is not None and not published.path.endswith(ending):
                raise ValueError(f"{form}: {published.path} does not end in {ending}")
        return self


class Catalogue(Strict):
    """The whole file: the licence of all weights, the publisher's address, and what was read where."""

    licence: str
    licence_note: str
    mirrors: tuple[str, ...]
    sources: dict[str, str]
    weights: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)+$")], Weights]

    @model_validator(mode="after")
    def _knows_its_sources(self) -> Catalogue:
        for name, weights in self.weights.items():
            for form in FORMS:
                published = getattr(weights, form)
                if published is not None and published.source not in self.sources:
                    raise ValueError(f"weights.{name}.{form}.source: {published.source!r} is not in sources")
        return self


@dataclass(frozen=True)
class Released:
    """One file that can be fetched: the weights it holds, and in which form."""

    weights_name: str
    form: Form
    weights: Weights
    published: Published

    @property
    def name(self) -> str:
        """Such as `rtmpose-m-body17.onnx`; also what it is called in the cache."""
        return f"{self.weights_name}.{self.form}"

    @property
    def sha256(self) -> str | None:
        """Of the file itself, an ONNX file's as it lies in its zip; None where it is not known."""
        return self.published.sha256 if self.form == "pth" else self.published.inner_sha256


def read_catalogue(path: Path = CATALOGUE) -> Catalogue:
    """The catalogue in a YAML file; UserError naming the key that it does not understand."""
    return parse(Catalogue, read_yaml(path), path)


@cache
def catalogue() -> Catalogue:
    """The catalogue of this package."""
    return read_catalogue()


@cache
def known() -> Mapping[str, Released]:
    """Every file by its name, and by the name of its weights alone where that is enough."""
    found: dict[str, Released] = {}
    for name, weights in catalogue().weights.items():
        files = [
            Released(name, form, weights, published)
            for form in FORMS
            if (published := getattr(weights, form)) is not None
        ]
        found |= {file.name: file for file in files}
        if len(files) == 1:
            found[name] = files[0]
    return found


def find(name: str) -> Released:
    """The file of that name; UserError with the names that come near."""
    if name in known():
        return known()[name]
    if name in catalogue().weights:
        raise UserError(f"{name}: say in which form: {name}.onnx to run it, {name}.pth to train or export it")
    near = difflib.get_close_matches(name, known(), 3, 0.5)
    which = f"did you mean {' or '.join(near)}?" if near else "`rtmpose weights list` shows the names"
    raise UserError(f"{name[:80]!r}: no released weights of that name; {which}")


def published_as(file: str) -> Released | None:
    """The weights that a file of this name holds, whether the publisher gave it, it comes from a zip of his
    that is called like it, or it has its name in the cache; None for any other name.
    """
    names = {file, f"{file.removesuffix('.onnx')}.zip"}
    return next((one for one in known().values() if one.name in names or one.published.file in names), None)


def published_at(path: Path) -> Released | None:
    """The weights that a file holds: by its name, by that of the file it is a link to, or under any other
    name by its SHA-256, where the catalogue has it; None for any other file.
    """
    named = published_as(path.name) or published_as(path.resolve().name)
    if named is not None or not path.is_file():
        return named
    digest = sha256_of(path)
    return next((one for one in known().values() if digest == one.sha256), None)


def terms(weights: Weights) -> dict[str, str]:
    """The terms of each data set that weights were trained on, as its descriptor has them; those of any other
    are not known.
    """
    from rtmpose.descriptors import load_dataset, shipped_datasets

    shipped = set(shipped_datasets())
    return {name: load_dataset(name).licence if name in shipped else UNDESCRIBED for name in weights.data}


def as_row(name: str, weights: Weights) -> dict[str, Any]:
    """What the list shows of weights."""
    files = {form: file for form in FORMS if (file := getattr(weights, form)) is not None}
    sizes = {form: file.bytes or file.inner_bytes for form, file in files.items()}
    return {
        "name": name,
        "kind": weights.kind,
        "network": f"{weights.network}-{weights.size}",
        "points": weights.skeleton or "",
        "input": "x".join(map(str, weights.input)),
        "forms": " ".join(files),
        "MB": " ".join(f"{form} {size / 1e6:.0f}" for form, size in sizes.items() if size),
        "hash": " ".join(f"{form} {known_hash(file)}" for form, file in files.items()),
    }


def known_hash(published: Published) -> str:
    """By what a download can be told right: its whole hash, the digits in its name, or neither."""
    if published.sha256 or published.inner_sha256:
        return "whole"
    return "digits" if published.digits and published.path.endswith(".pth") else "none"
