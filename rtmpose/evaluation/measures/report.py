"""The metrics that a data set's descriptor names, of one evaluation: values, intervals, lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtmpose.config.metrics import Auc, MetricOptions, Nme, Norm, Pck, chosen
from rtmpose.evaluation.bootstrap import Interval, resamples
from rtmpose.evaluation.measures.aps import crowd_aps, part_aps
from rtmpose.evaluation.measures.persons import Persons, Unknown
from rtmpose.evaluation.measures.points import Floats, Sums, area_under_curve, normalised, pck
from rtmpose.evaluation.scoring import Pose

DRAWS = 1000  # of the images, for an interval
LABELS = {"pck": "PCK", "tpck": "tPCK", "pckh": "PCKh"}
OF_POINTS = (*LABELS, "auc", "nme", "epe")
OWN_BOXES = "it is measured on ground-truth boxes; add ground_truth to evaluate.boxes (with --raw: --boxes)"

Results = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Measured:
    """One metric: a fraction of 1 ("share"), px, or norms ("norm"); of PCK also by group and by keypoint,
    None where nothing is labelled.
    """

    interval: Interval
    unit: Literal["share", "px", "norm"] = "share"
    groups: Mapping[str, float | None] = field(default_factory=dict)
    keypoints: Mapping[str, float | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values; None for what is not a finite number."""
        ends = {key: _plain(getattr(self.interval, key)) for key in ("value", "low", "high")}
        parts = {"groups": dict(self.groups), "keypoints": dict(self.keypoints)}
        return ends | {"unit": self.unit} | {key: part for key, part in parts.items() if part}


def measure(
    truth: Mapping[str, Any],
    poses: Iterable[Pose] | None,
    results: Results,
    *,
    metrics: Sequence[str],
    options: MetricOptions,
    names: Sequence[str],
    sigmas: Sequence[float],
    draws: int = DRAWS,
) -> tuple[dict[str, Measured], dict[str, str]]:
    """The metrics by their published names, and for those that cannot be computed the reason, by name.

    Args:
        truth: content of a COCO annotation file, its annotations in the K points `names`; areas px^2.
        poses: what was predicted in ground-truth boxes, by annotation id; None where the boxes are a
            detector's: then only what compares COCO results is computed, and the others say so.
        results: COCO results for `crowd` and `parts`, which are kinds of AP.
        metrics: names of `rtmpose.config.Metric`; others are computed elsewhere and passed over.
        draws: how often the images are drawn again for the 95 % intervals.
    """
    found: dict[str, Measured] = {}
    unknown: dict[str, str] = {}
    times = resamples(len(truth["images"]), draws) if truth["images"] else np.zeros((1, 0), np.int64)
    persons = None if poses is None else Persons.of(truth, poses, names)
    for name in metrics:
        try:
            if name == "crowd":
                aps = crowd_aps(truth, results, sigmas, options.crowd.bounds, times)
                found |= {key: Measured(interval) for key, interval in aps.items()}
            elif name == "parts":
                parts = {part: chosen(names, points) for part, points in (options.parts or {}).items()}
                aps = part_aps(truth, results, sigmas, parts, times)
                found |= {key: Measured(interval) for key, interval in aps.items()}
            elif name in OF_POINTS and persons is None:
                raise Unknown(OWN_BOXES)
        except Unknown as reason:
            unknown[name] = str(reason)
    if persons is not None:
        points, missing = measure_persons(persons, metrics, options, times)
        found, unknown = found | points, unknown | missing
    return found, unknown


def measure_persons(
    persons: Persons, metrics: Sequence[str], options: MetricOptions, draws: NDArray[np.int64]
) -> tuple[dict[str, Measured], dict[str, str]]:
    """The metrics that are made of distances of points, as `measure` has them; others are passed over.
    `draws` (times, I) are resamples of the images.
    """
    found: dict[str, Measured] = {}
    unknown: dict[str, str] = {}
    for name in metrics:
        try:
            if name in OF_POINTS:
                found |= dict(_of_points(name, persons, options, draws))
        except Unknown as reason:
            unknown[name] = str(reason)
    return found, unknown


def _of_points(
    name: str, persons: Persons, options: MetricOptions, draws: NDArray[np.int64]
) -> Iterator[tuple[str, Measured]]:
    told = getattr(options, name, None)
    if isinstance(told, Pck):
        for threshold in told.at:
            yield f"{LABELS[name]}@{threshold:g}", _pck(persons, told, threshold, draws)
    elif isinstance(told, Auc):
        sums = _sums(persons, area_under_curve(_errors(persons, told.norm), told.steps))
        yield "AUC", Measured(_interval(sums.over_keypoints(), sums.over_keypoints(draws)))
    elif isinstance(told, Nme):
        yield "NME", _mean(persons, _errors(persons, told.norm), "norm", draws)
    elif name == "epe":
        yield "EPE", _mean(persons, _errors(persons, 1.0), "px", draws)


def _pck(persons: Persons, told: Pck, threshold: float, draws: NDArray[np.int64]) -> Measured:
    sums = _sums(persons, pck(_errors(persons, told.norm), threshold))
    kept = np.setdiff1d(np.arange(len(persons.names)), chosen(persons.names, told.without)).astype(np.int64)
    judged = sums.only(kept)
    average = Sums.over_points if told.average == "points" else Sums.over_keypoints
    groups = {
        group: _plain(float(sums.only(np.array(members)).over_keypoints()[0]))
        for group, points in told.groups.items()
        if (members := chosen(persons.names, points))
    }
    shares = zip(persons.names, sums.by_keypoint()[0], strict=True)
    return Measured(
        _interval(average(judged), average(judged, draws)),
        groups=groups,
        keypoints={point: _plain(float(share)) for point, share in shares},
    )


def _mean(
    persons: Persons, errors: Floats, unit: Literal["px", "norm"], draws: NDArray[np.int64]
) -> Measured:
    sums = _sums(persons, errors)
    return Measured(_interval(sums.over_points(), sums.over_points(draws)), unit)


def _errors(persons: Persons, norm: Norm) -> Floats:
    return normalised(persons.predicted, persons.true, persons.labelled, persons.norm(norm))


def _sums(persons: Persons, values: Floats) -> Sums:
    return Sums.of(values, persons.image, persons.images)


def _interval(value: Floats, resampled: Floats) -> Interval:
    """The figure (1,) and its interval; NaN where nobody is judged."""
    if not np.isfinite(value[0]):
        return Interval(float(value[0]), float("nan"), float("nan"))
    return Interval.of(float(value[0]), np.where(np.isfinite(resampled), resampled, np.nan))


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def shown(measures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each metric, from their plain values, as it is published: shares and NME in %, EPE in px,
    with the 95 % interval and the groups.
    """
    return [_line(name, each) for name, each in measures.items()]


def _line(name: str, each: Mapping[str, Any]) -> str:
    factor, unit = (1.0, " px") if each["unit"] == "px" else (100.0, " %")
    if each["value"] is None:
        return f"{name} is not known: nobody is judged by it"
    value, low, high = (factor * each[end] for end in ("value", "low", "high"))
    groups = "".join(
        f"  {group} {'–' if share is None else f'{factor * share:.1f}'}"
        for group, share in each.get("groups", {}).items()
    )
    return f"{name} {value:.2f}{unit} [{low:.2f}, {high:.2f}]{groups}"
