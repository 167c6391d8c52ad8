"""Data-set descriptors: what `datasets/*.yaml` says of a set's points and raw files, checked once and frozen.

A descriptor names the points, limbs, mirrored pairs, OKS sigmas and body halves of a skeleton, and where the
raw files of the data set lie. Everything downstream knows `Dataset` and `Skeleton`, and no data set by name.
`datasets/TEMPLATE.yaml` explains every key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator

from rtmpose.config import Metric, MetricOptions, Strict, check_metrics
from rtmpose.files import UserError, data_file, is_there, read_yaml
from rtmpose.skeleton import MEAN_OF, Skeleton

PUBLISHED_SIGMAS = (
    "coco_wholebody"  # the set whose 133 sigmas stand in for those that a descriptor does not give
)
UNKNOWN_SIGMA = 0.05
SIGMA_RULE = (
    "a point takes the sigma of COCO-WholeBody's point of its name, or of the name that one of its maps "
    "gives it; any "
    f"other point the median of those found, {UNKNOWN_SIGMA} where none was found"
)
TEMPLATE = "TEMPLATE"

Reader = Literal["coco", "aic", "mpii", "cl_detection"]
Frame = Literal[
    "stored", "display"
]  # which way up a photograph is looked at, see `rtmpose.data.raw.photograph`


class Split(Strict):
    """Where one split's files lie, relative to the raw folder, and which category of `detections` is the
    person. `head_boxes` is MPII's file of head boxes, which PCKh needs. `share` is the part of the images,
    from 0 to 1, that belongs to it, where a file holds several splits.
    """

    annotations: str
    images: str
    detections: str | None = None
    detections_category: int | None = None
    head_boxes: str | None = None
    share: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _is_share(self) -> Split:
        if self.share is not None and not 0 <= self.share[0] < self.share[1] <= 1:
            raise ValueError(
                f"share {list(self.share)} must go from one number to a larger one, within 0 to 1"
            )
        return self


class Part(Strict):
    """One field of a COCO-style annotation that holds a run of the skeleton's points: `points` of them after
    `skip` others, of `total` where the field holds more than are wanted. `valid` names the flag without which
    the run counts as not labelled.
    """

    field: str
    points: PositiveInt
    skip: NonNegativeInt = 0
    total: PositiveInt | None = None
    valid: str | None = None

    @property
    def held(self) -> int:
        """The number of points that the field holds."""
        return self.total or self.points

    @model_validator(mode="after")
    def _fits(self) -> Part:
        if self.held < self.skip + self.points:
            after = f" after skip {self.skip}" if self.skip else ""
            raise ValueError(f"total {self.held} is less than points {self.points}{after}")
        return self


class Instance(Strict):
    """One pose within a COCO-style annotation: the field of its box (xywh px), or None where the box is the
    extent of its labelled points, and the fields of its points.
    """

    box: str | None = "bbox"
    parts: list[Part] = Field(..., min_length=1)


@dataclass(frozen=True)
class Dataset:
    """A `datasets/*.yaml` descriptor: a skeleton and, where the set has images of its own, its raw layout and
    terms.

    `instances` are the poses that each annotation holds, `categories` the names of those to read ("all":
    every category; None: persons, or the only one with points); both are for the reader "coco". `exif` is the
    frame that the annotations refer to. `metrics` are what evaluation reports besides AP, as
    `metric_options` say.
    """

    name: str
    skeleton: Skeleton
    reader: Reader | None
    splits: Mapping[str, Split]
    instances: tuple[Instance, ...]
    categories: tuple[str, ...] | Literal["all"] | None
    licence: str
    source: str
    download: str
    exif: Frame = "stored"
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ("ap",)
    metric_options: MetricOptions = field(default_factory=MetricOptions)

    @property
    def keypoint_groups(self) -> dict[str, tuple[int, ...]]:
        """Parts of the body that are judged by themselves, as positions among the points: those that the
        descriptor names, else the halves of the half-body augmentation.
        """
        halves = {"upper": self.skeleton.upper, "lower": self.skeleton.lower}
        return dict(self.groups) or {name: points for name, points in halves.items() if points}

    @property
    def sigmas_estimated(self) -> bool:
        """Whether the sigmas follow `SIGMA_RULE` because the descriptor has none."""
        return self.skeleton.sigmas_estimated

    def with_files(self, split: str, annotations: str | None, images: str | None) -> Dataset:
        """The same set with other files for one split; None keeps what the descriptor says. UserError where
        it says nothing.
        """
        known = self.splits.get(split)
        chosen = annotations or (known and known.annotations), images or (known and known.images)
        if not chosen[0] or not chosen[1]:
            raise UserError(
                f"{self.name}: its descriptor has no split {split!r}: give both --annotations and --images"
            )
        given = {"annotations": chosen[0], "images": chosen[1]}
        if known is None:
            layout = Split(**given)
        else:  # of a file that is given, all is meant
            layout = known.model_copy(update=given | ({"share": None} if annotations else {}))
        return replace(self, splits={**self.splits, split: layout})


class _SkeletonText(Strict):
    points: list[str] = Field(..., min_length=1)
    limbs: list[tuple[str, str]] = Field(default_factory=list)
    flip_pairs: list[tuple[str, str]] = Field(default_factory=list)
    mirror: bool | None = None
    upper: list[str] = Field(default_factory=list)
    lower: list[str] = Field(default_factory=list)
    sigmas: list[PositiveFloat] | None = None
    maps: dict[str, dict[str, str]] = Field(default_factory=dict)
    groups: dict[str, list[str]] = Field(default_factory=dict)

    def grouped(self) -> dict[str, tuple[int, ...]]:
        """The groups as positions; ValueError where one holds none of the points."""
        found = {}
        for group, patterns in self.groups.items():
            for pattern in patterns:
                if not any(fnmatchcase(point, pattern) for point in self.points):
                    raise ValueError(f"groups.{group}: {pattern} is not one of the points")
            found[group] = tuple(
                index
                for index, point in enumerate(self.points)
                if any(fnmatchcase(point, pattern) for pattern in patterns)
            )
        if empty := [group for group, points in found.items() if not points]:
            raise ValueError(f"groups.{empty[0]}: holds no point; name some, or remove it")
        return found

    def build(self, name: str) -> Skeleton:
        """Names to indices; ValueError when a name is unknown or a list has the wrong length."""
        index = {point: i for i, point in enumerate(self.points)}
        if len(index) != len(self.points):
            raise ValueError("points: a name appears twice")
        if self.sigmas is not None and len(self.sigmas) != len(self.points):
            raise ValueError(f"sigmas: {len(self.sigmas)} values for {len(self.points)} points")
        self._check_names(index)
        flip = list(range(len(self.points)))
        for a, b in self.flip_pairs:
            flip[index[a]], flip[index[b]] = index[b], index[a]
        return Skeleton(
            name=name,
            names=tuple(self.points),
            limbs=tuple((index[a], index[b]) for a, b in self.limbs),
            flip=tuple(flip),
            sigmas=tuple(self.sigmas or estimate_sigmas(self.points, self.maps)),
            upper=tuple(index[point] for point in self.upper),
            lower=tuple(index[point] for point in self.lower),
            maps=self.maps,
            sigmas_estimated=self.sigmas is None,
            mirror=self.mirror,
        )

    def _check_names(self, index: Mapping[str, int]) -> None:
        named = {
            "limbs": [point for pair in self.limbs for point in pair],
            "flip_pairs": [point for pair in self.flip_pairs for point in pair],
            "upper": self.upper,
            "lower": self.lower,
            **{
                f"maps.{other}": [p for own in mapping for p in own.split(MEAN_OF)]
                for other, mapping in self.maps.items()
            },
        }
        for key, points in named.items():
            unknown = [point for point in points if point not in index]
            if unknown:
                raise ValueError(f"{key}: {unknown[0]} is not one of the points")
        paired = named["flip_pairs"]
        if len(set(paired)) != len(paired):
            twice = next(point for point in paired if paired.count(point) > 1)
            raise ValueError(f"flip_pairs: {twice} is in two pairs, or on both sides of one")
        for other, mapping in self.maps.items():
            if any(own.count(MEAN_OF) > 1 for own in mapping):
                raise ValueError(f"maps.{other}: a mean of more than two points")
            if len(set(mapping.values())) != len(mapping):
                raise ValueError(f"maps.{other}: two points are mapped to the same one")
        _check_targets(self.maps)


class _DatasetText(Strict):
    name: str
    skeleton: _SkeletonText | str
    reader: Reader | None = None
    splits: dict[str, Split] = Field(default_factory=dict)
    parts: list[Part] | None = None
    instances: list[Instance] | None = None
    categories: list[str] | Literal["all"] | None = None
    exif: Frame = "stored"
    metrics: list[Metric] = Field(["ap"], min_length=1)
    metric_options: MetricOptions = Field(default_factory=MetricOptions)
    licence: str = ""
    source: str = ""
    download: str = ""

    def build(self) -> Dataset:
        if isinstance(self.skeleton, str):
            lender = _borrowed(self.skeleton)
            skeleton, groups = lender.skeleton, lender.groups
        else:
            skeleton, groups = self.skeleton.build(self.name), self.skeleton.grouped()
        check_metrics(self.metrics, self.metric_options, skeleton.names)
        return Dataset(
            name=self.name,
            skeleton=skeleton,
            reader=self.reader,
            splits=self.splits,
            instances=self._instances(skeleton.num_keypoints),
            categories=tuple(self.categories) if isinstance(self.categories, list) else self.categories,
            licence=self.licence,
            source=self.source,
            download=self.download,
            exif=self.exif,
            groups=groups,
            metrics=tuple(self.metrics),
            metric_options=self.metric_options,
        )

    def _instances(self, points: int) -> tuple[Instance, ...]:
        if self.parts is not None and self.instances is not None:
            raise ValueError("parts: already said in instances; remove one of the two")
        if self.reader != "mpii" and any(split.head_boxes for split in self.splits.values()):
            raise ValueError("splits: head_boxes is an option of reader: mpii")
        if self.reader != "coco" and (self.parts or self.instances or self.categories):
            raise ValueError("parts, instances and categories are options of reader: coco")
        whole = [Instance(parts=self.parts or [Part(field="keypoints", points=points)])]
        for instance in self.instances or whole:
            held = sum(part.points for part in instance.parts)
            if held != points:
                raise ValueError(f"parts: {held} points, skeleton {points}")
        return tuple(self.instances or whole)


def _check_targets(maps: Mapping[str, Mapping[str, str]]) -> None:
    """ValueError when a map names a point that a shipped skeleton does not have; others are not
    known here.
    """
    for other, mapping in maps.items():
        unknown = set(mapping.values()) - _points_of(other) if other in shipped_datasets() else set()
        if unknown:
            raise ValueError(f"maps.{other}: {min(unknown)} is not a point of {other}")


@cache
def _points_of(name: str) -> frozenset[str]:
    """The point names of a shipped descriptor, without the skeletons that it maps to in turn."""
    skeleton = _read(descriptor_path(name)).skeleton
    return _points_of(skeleton) if isinstance(skeleton, str) else frozenset(skeleton.points)


def _borrowed(name: str) -> Dataset:
    """Another descriptor, which writes its own skeleton; the chain ends there, so that it cannot be a
    ring.
    """
    try:
        path = descriptor_path(name)
    except UserError as error:
        raise ValueError(f"skeleton: {error}") from None
    if isinstance(_read(path).skeleton, str):
        raise ValueError(f"skeleton: {path} has no points of its own; name the descriptor that it names")
    return load_dataset(name)


def estimate_sigmas(points: Sequence[str], maps: Mapping[str, Mapping[str, str]]) -> list[float]:
    """Sigmas for points that nobody published any for, by `SIGMA_RULE`. They are guesses: AP is comparable
    only between models measured with the same ones.
    """
    published = _published_sigmas()
    found: dict[str, float] = {}
    for point in points:
        names = [point, *(mapping[point] for mapping in maps.values() if point in mapping)]
        known = [published[name] for name in names if name in published]
        if known:
            found[point] = known[0]
    rest = round(median(found.values()), 4) if found else UNKNOWN_SIGMA
    return [found.get(point, rest) for point in points]


@cache
def _published_sigmas() -> dict[str, float]:
    skeleton = load_skeleton(PUBLISHED_SIGMAS)
    return dict(zip(skeleton.names, skeleton.sigmas, strict=True))


def descriptor_path(name: str) -> Path:
    """The file of descriptor `name`, or `name` itself where it is the path of a YAML file; UserError where
    there is none.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else data_file("datasets", name)
    if not is_there(path):
        raise UserError(f"{str(path)[:200]}: no such data-set descriptor")
    return path


def shipped_datasets() -> list[str]:
    """The names of the descriptors that come with the package, sorted; the template is none."""
    folder = data_file("datasets", TEMPLATE).parent
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != TEMPLATE)


def load_dataset(name: str) -> Dataset:
    """The descriptor `datasets/<name>.yaml`, or the YAML file at path `name`.

    Raises UserError naming the file and the key for unknown names, unknown keys, wrong lengths and unknown
    points.
    """
    path = descriptor_path(name)
    try:
        return _read(path).build()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _read(path: Path) -> _DatasetText:
    try:
        return _DatasetText.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("_SkeletonText", "str")) or "(top)"
        reason = (
            "unknown key; remove it or correct its spelling"
            if first["type"] == "extra_forbidden"
            else first["msg"]
        )
        raise UserError(f"{path}: {key}: {reason}") from None


def load_skeleton(name: str) -> Skeleton:
    """The skeleton of data set `name`, as `load_dataset`."""
    return load_dataset(name).skeleton
