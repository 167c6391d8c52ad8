"""What a data set is judged by besides AP: the names of the metrics, and what each of them is told by a
descriptor.

Points are named as in the descriptor, and `*` in a list of them stands for anything.
`datasets/TEMPLATE.yaml` explains the keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from rtmpose.config.base import Strict

Metric = Literal["ap", "pck", "tpck", "pckh", "auc", "epe", "nme", "crowd", "parts", "mre"]
PointMetric = Literal["pck", "tpck", "pckh", "auc", "epe", "nme"]  # made of distances of points
Thresholds = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
# What a distance is divided by: the longer side of the box, the annotation's `head_size` px, the distance
# between two labelled points, or so many px. A point of the pair may be the mean of several: "a + b".
Norm = Literal["box", "head"] | tuple[str, str] | PositiveFloat

MEAN = " + "


class Pck(Strict):
    """PCK: the share of labelled points less than `at` times the norm away.

    `average` "keypoints" is the mean of the keypoints' own shares, "points" the share of all labelled points
    alike. Keypoints of `without` count in neither. `groups` are reported besides, each as the mean of the
    shares of its keypoints.
    """

    norm: Norm = "box"
    at: Thresholds = (0.2,)
    average: Literal["keypoints", "points"] = "keypoints"
    without: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class Pckh(Pck):
    """PCK by the size of the head, as MPII is judged."""

    norm: Norm = "head"
    at: Thresholds = (0.5, 0.1)
    average: Literal["keypoints", "points"] = "points"


class Tpck(Pck):
    """PCK by the size of the torso: the distance between two points, which only a descriptor can name."""

    norm: tuple[str, str]


class Auc(Strict):
    """The area under the curve of PCK: its mean over the thresholds i / `steps` for i from 0 to `steps` - 1,
    times `norm`.
    """

    norm: Norm = 30.0
    steps: PositiveInt = 20


class Nme(Strict):
    """NME: the mean distance divided by the norm."""

    norm: Norm


class Crowd(Strict):
    """AP of images that are easy, medium and hard: whose crowd index is below the first bound, below the
    second, and not below it.
    """

    bounds: tuple[float, float] = (0.2, 0.8)

    @model_validator(mode="after")
    def _rise(self) -> Crowd:
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds {list(self.bounds)} must rise")
        return self


class MetricOptions(Strict):
    """What the metrics are told. Those without a default must be told by the descriptor that names them."""

    pck: Pck = Pck()
    tpck: Tpck | None = None
    pckh: Pckh = Pckh()
    auc: Auc = Auc()
    nme: Nme | None = None
    crowd: Crowd = Crowd()
    parts: Mapping[str, tuple[str, ...]] | None = None


class Pooled(Strict):
    """What the evaluation sets of a recipe are judged by together, as one set, and each by itself besides its
    descriptor's metrics. Points are named as the network's are.
    """

    name: str
    metrics: list[PointMetric] = Field(..., min_length=1)
    metric_options: MetricOptions = Field(default_factory=MetricOptions)


def chosen(points: Sequence[str], patterns: Sequence[str]) -> tuple[int, ...]:
    """The positions of the points that one of the patterns stands for."""
    return tuple(k for k, point in enumerate(points) if any(fnmatchcase(point, each) for each in patterns))


def check_metrics(metrics: Sequence[Metric], options: MetricOptions, points: Sequence[str]) -> None:
    """ValueError, by key, for a metric that lacks what it must be told, is named twice, or names a point that
    is not one of `points`.
    """
    for name in metrics:
        if metrics.count(name) > 1:
            raise ValueError(f"metrics: {name} is named twice")
        if name in MetricOptions.model_fields and getattr(options, name) is None:
            wanted = "the parts and their points" if name == "parts" else "norm, the two points"
            raise ValueError(f"metric_options.{name}: not given; metrics names it: say {wanted}")
    for key, patterns in _named(options):
        for pattern in patterns:
            if not chosen(points, [pattern]):
                raise ValueError(f"metric_options.{key}: {pattern} is not one of the points")


def _named(options: MetricOptions) -> Iterator[tuple[str, Sequence[str]]]:
    """Every list of points that the options name, by its key."""
    for name in ("pck", "tpck", "pckh", "auc", "nme"):
        told = getattr(options, name)
        if told is not None and isinstance(told.norm, tuple):
            yield f"{name}.norm", [point for end in told.norm for point in end.split(MEAN)]
        if isinstance(told, Pck):
            yield f"{name}.without", told.without
            yield from ((f"{name}.groups.{group}", points) for group, points in told.groups.items())
    yield from ((f"parts.{part}", points) for part, points in (options.parts or {}).items())
