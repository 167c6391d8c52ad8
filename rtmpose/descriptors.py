"""Data-set descriptors: what `datasets/*.yaml` says of a set's points and raw files, checked once and frozen.

A descriptor names the points, limbs, mirrored pairs, OKS sigmas and body halves of a skeleton, and where the raw files of the
data set lie. Everything downstream knows `Dataset` and `Skeleton`, and no data set by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from rtmpose.config import Strict, UserError, data_file
from rtmpose.skeleton import Skeleton


class Split(Strict):
    """Where one split's files lie, relative to the raw folder."""

    annotations: str
    images: str
    detections: str | None = None


class Part(Strict):
    """One field of a COCO-style annotation that holds a run of the skeleton's points; `valid` flags the whole run."""

    field: str
    points: int
    valid: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A `datasets/*.yaml` descriptor: a skeleton and, where the set has images of its own, its raw layout and terms."""

    name: str
    skeleton: Skeleton
    reader: Literal["coco", "aic"] | None
    splits: Mapping[str, Split]
    parts: tuple[Part, ...]
    licence: str
    source: str
    download: str


class _SkeletonText(Strict):
    points: list[str]
    limbs: list[tuple[str, str]]
    flip_pairs: list[tuple[str, str]]
    upper: list[str]
    lower: list[str]
    sigmas: list[float]
    maps: dict[str, dict[str, str]] = Field(default_factory=dict)

    def build(self, name: str) -> Skeleton:
        """Names to indices; ValueError when a name is unknown or a list has the wrong length."""
        index = {point: i for i, point in enumerate(self.points)}
        if len(index) != len(self.points):
            raise ValueError("points: a name appears twice")
        if len(self.sigmas) != len(self.points):
            raise ValueError(f"sigmas: {len(self.sigmas)} values for {len(self.points)} points")
        own = [point for mapping in self.maps.values() for point in mapping]
        pairs = [point for pair in (*self.limbs, *self.flip_pairs) for point in pair]
        unknown = [point for point in (*pairs, *self.upper, *self.lower, *own) if point not in index]
        if unknown:
            raise ValueError(f"{unknown[0]} is not one of the points")
        flip = list(range(len(self.points)))
        for a, b in self.flip_pairs:
            flip[index[a]], flip[index[b]] = index[b], index[a]
        if [flip[k] for k in flip] != list(range(len(flip))):
            raise ValueError("flip_pairs: a point is in two pairs")
        return Skeleton(
            name=name,
            names=tuple(self.points),
            limbs=tuple((index[a], index[b]) for a, b in self.limbs),
            flip=tuple(flip),
            sigmas=tuple(self.sigmas),
            upper=tuple(index[point] for point in self.upper),
            lower=tuple(index[point] for point in self.lower),
            maps=self.maps,
        )


class _DatasetText(Strict):
    name: str
    skeleton: _SkeletonText
    reader: Literal["coco", "aic"] | None = None
    splits: dict[str, Split] = Field(default_factory=dict)
    parts: list[Part] | None = None
    licence: str = ""
    source: str = ""
    download: str = ""

    def build(self) -> Dataset:
        skeleton = self.skeleton.build(self.name)
        parts = self.parts or [Part(field="keypoints", points=skeleton.num_keypoints)]
        if sum(part.points for part in parts) != skeleton.num_keypoints:
            raise ValueError(f"parts: {sum(part.points for part in parts)} points, skeleton {skeleton.num_keypoints}")
        return Dataset(
            name=self.name,
            skeleton=skeleton,
            reader=self.reader,
            splits=self.splits,
            parts=tuple(parts),
            licence=self.licence,
            source=self.source,
            download=self.download,
        )


def load_dataset(name: str) -> Dataset:
    """The descriptor `datasets/<name>.yaml`, or the YAML file at path `name`.

    Raises UserError naming the file and the key for unknown names, unknown keys, wrong lengths and unknown points.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else data_file(f"datasets/{name}.yaml")
    if not path.is_file():
        raise UserError(f"{path}: no such data-set descriptor")
    try:
        return _DatasetText.model_validate(yaml.safe_load(path.read_text())).build()
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def load_skeleton(name: str) -> Skeleton:
    """The skeleton of data set `name`, as `load_dataset`."""
    return load_dataset(name).skeleton
