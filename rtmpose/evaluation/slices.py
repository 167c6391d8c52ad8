"""Recall on the persons and points that a mean over all of them hides: small, crowded and occluded persons,
and each part of the body.

Recall is COCO's for one prediction a person: the share of persons whose similarity (OKS) to their prediction
lies above 0.50, 0.55 … 0.95, mean over these. For a part of the body it is computed on that part's labelled
points alone. It is kept as sums by image, so that two models are compared on the same images drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.evaluation.bootstrap import Floats, Interval
from rtmpose.evaluation.breakdown import OKS_THRESHOLDS, Match, matches
from rtmpose.evaluation.coco import annotation_keypoints, person_annotations

SMALL = 96.0**2  # px²: COCO's bound between medium and large persons
CROWDED = 0.1  # other persons' points in one's box for each own: where CrowdPose's "medium" begins
VISIBLE = 0.5  # occluded persons show less than this share of the skeleton


@dataclass(frozen=True)
class SliceSums:
    """A slice's recall by image, in the order of the ground truth's images."""

    total: Floats  # (I,) sum over its persons
    persons: NDArray[np.int64]  # (I,)

    def recall(self) -> float:
        """Of the set itself, NaN where the slice is empty."""
        return float(self.resampled(np.ones((1, len(self.total)), np.int64))[0])

    def resampled(self, draws: NDArray[np.int64]) -> Floats:
        """Recall of each resample (times,), NaN where it holds nobody of the slice; `draws` (times, I)."""
        count = draws @ self.persons
        return np.where(count > 0, draws @ self.total / np.maximum(count, 1), np.nan)

    def interval(self, draws: NDArray[np.int64]) -> Interval:
        """Recall with its interval; ValueError for an empty slice."""
        return Interval.of(self.recall(), self._drawn(draws))

    def difference(self, other: SliceSums, draws: NDArray[np.int64]) -> Interval:
        """What it has more than another model on the same persons; ValueError where these are others."""
        if not np.array_equal(self.persons, other.persons):
            raise ValueError("slices are compared on the same images and persons")
        return Interval.of(self.recall() - other.recall(), self._drawn(draws) - other._drawn(draws))

    def _drawn(self, draws: NDArray[np.int64]) -> Floats:
        if not self.persons.any():
            raise ValueError("a slice of nobody has no recall")
        return self.resampled(draws)


def slices_of(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float],
    groups: Mapping[str, Sequence[int]],
) -> dict[str, SliceSums]:
    """The slices `all`, `small`, `crowded`, `occluded` and one for each of `groups` (positions of points by
    name), from COCO results on the ground truth of an evaluation; empty ones too.
    """
    row = {image["id"]: index for index, image in enumerate(truth["images"])}
    crowded = _crowded(truth, len(sigmas))
    names = ("all", "small", "crowded", "occluded", *groups)
    total = {name: np.zeros(len(row)) for name in names}
    persons = {name: np.zeros(len(row), np.int64) for name in names}
    for match in matches(truth, results, sigmas):
        place = row[match.annotation["image_id"]]
        for name, recall in _memberships(match, crowded, groups):
            total[name][place] += recall
            persons[name][place] += 1
    return {name: SliceSums(total[name], persons[name]) for name in names}


def _memberships(
    match: Match, crowded: set[Any], groups: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, float]]:
    """The slices that a person belongs to, and its recall there."""
    whole = _recall(match.oks)
    yield "all", whole
    if match.annotation["area"] < SMALL:
        yield "small", whole
    if match.annotation["id"] in crowded:
        yield "crowded", whole
    if match.visible.mean() < VISIBLE:
        yield "occluded", whole
    for name, points in groups.items():
        chosen = [index for index in points if match.labelled[index]]
        if chosen:
            yield name, _recall(float(match.similarity[chosen].mean()))


def _recall(oks: float) -> float:
    return float((oks > OKS_THRESHOLDS).mean())


def _crowded(truth: Mapping[str, Any], points: int) -> set[Any]:
    """The ids of annotations whose box holds many points of others, beside their own."""
    by_image: dict[Any, list[tuple[Any, Sequence[float], NDArray[np.float64]]]] = {}
    for annotation in person_annotations(truth):
        pose = annotation_keypoints(annotation)[:points]
        by_image.setdefault(annotation["image_id"], []).append(
            (annotation["id"], annotation["bbox"], pose[pose[:, 2] > 0, :2])
        )
    found = set()
    for persons in by_image.values():
        for identity, (x, y, w, h), own in persons:
            others = sum(
                int(((pose >= (x, y)) & (pose <= (x + w, y + h))).all(1).sum())
                for other, _, pose in persons
                if other != identity
            )
            if others > CROWDED * max(len(own), 1):
                found.add(identity)
    return found
