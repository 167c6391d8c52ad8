"""Intervals for AP and mean keypoint error: the images of a set are drawn again with replacement, as if it
were another set.

An image that is drawn twice counts as two images with persons and predictions of their own. COCO's matching
of predictions to persons is done once, since it never looks across images; only precision and recall are
accumulated again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from rtmpose.evaluation.coco import matched
from rtmpose.evaluation.error import PointErrors

Floats = NDArray[np.float64]
RECALLS = np.linspace(0.0, 1.0, 101)


def resamples(images: int, times: int = 1000, seed: int = 0) -> NDArray[np.int64]:
    """How often each image is drawn, (times, images): each time as many draws with replacement as there are
    images.
    """
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=times)


def percentile_interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled figures (times,); those that a resample had no person for are left
    out.
    """
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_error(errors: PointErrors, draws: NDArray[np.int64]) -> Floats:
    """Mean keypoint error of each resample (times,), NaN where it holds no labelled point; `draws` (times,
    I).
    """
    count = draws @ errors.count
    return np.where(count > 0, draws @ errors.total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: Floats) -> Interval:
        return cls(value, *percentile_interval(resampled))


@dataclass(frozen=True)
class Compared:
    """A candidate's AP, and its AP minus that of a reference on the same images; fractions of 1."""

    ap: Interval
    difference: Interval


@dataclass(frozen=True)
class Ranking:
    """A set's predictions from the best score down, and what COCO's matching made of each at the ten OKS
    thresholds.
    """

    image: NDArray[np.int64]  # (D,) which image of the ground truth, counted from 0
    hit: NDArray[np.bool_]  # (10, D) found a person
    miss: NDArray[np.bool_]  # (10, D) found none
    persons: NDArray[np.int64]  # (I,) persons to find in each image

    @classmethod
    def of(
        cls, truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], sigmas: Sequence[float]
    ) -> Ranking:
        """The ranking of COCO results for persons of all sizes; arguments and errors as in
        `evaluate_keypoints`.
        """
        return cls.of_matched(matched(truth, results, sigmas), [image["id"] for image in truth["images"]])

    @classmethod
    def of_matched(cls, evaluation: COCOeval, images: Sequence[int | str]) -> Ranking:
        """The ranking of what pycocotools has matched, points or boxes, in `images` (their ids)."""
        area, most = evaluation.params.areaRng[0], evaluation.params.maxDets[-1]
        row = {image: index for index, image in enumerate(images)}
        found = [item for item in evaluation.evalImgs if item is not None and item["aRng"] == area]
        persons = np.zeros(len(row), np.int64)
        for item in found:
            persons[row[item["image_id"]]] = np.count_nonzero(np.asarray(item["gtIgnore"]) == 0)
        thresholds = len(evaluation.params.iouThrs)
        places = [np.full(len(item["dtScores"][:most]), row[item["image_id"]]) for item in found]
        scores = np.concatenate([np.empty(0), *(item["dtScores"][:most] for item in found)])
        order = np.argsort(-scores, kind="mergesort")  # as pycocotools does
        hit, ignored = (
            np.concatenate([np.empty((thresholds, 0)), *(item[key][:, :most] for item in found)], axis=1)[
                :, order
            ]
            > 0
            for key in ("dtMatches", "dtIgnore")
        )
        image = np.concatenate([np.empty(0, np.int64), *places])[order]
        return cls(image, hit & ~ignored, ~hit & ~ignored, persons)

    def ap(self) -> float:
        """AP of the set itself, NaN where it holds no person."""
        return self._ap(np.ones(len(self.persons), np.int64))

    def resampled_ap(self, draws: NDArray[np.int64]) -> Floats:
        """AP of each resample (times,), NaN where it holds no person; `draws` (times, I).

        Copies of an image stand next to each other in the order of scores. A run of hits reaches its recalls
        with the precision at its end, since precision is interpolated from the right, and a run of misses
        reaches none: so it is enough to count each prediction with its number of copies.
        """
        return np.array([self._ap(row) for row in draws])

    def _ap(self, draws: NDArray[np.int64]) -> float:
        persons = int(draws @ self.persons)
        if persons == 0:
            return float("nan")
        copies = draws[self.image]  # (D,)
        hits, misses = (np.cumsum(part * copies, axis=1).astype(float) for part in (self.hit, self.miss))
        precision = hits / (hits + misses + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))  # recalls that are never reached
        rows = zip(precision, hits / persons, strict=True)
        return float(np.mean([row[np.searchsorted(recall, RECALLS)] for row, recall in rows]))


class PairedReference:
    """A reference that candidates are compared with on the same images, draw by draw.

    Every resample, a row of `draws` (times, I), is the same for both. What makes an image easy or hard then
    cancels, and the interval of the difference is far narrower than that of either AP.
    """

    def __init__(self, ranking: Ranking, draws: NDArray[np.int64]) -> None:
        self.ranking, self.draws = ranking, draws
        self.resampled = ranking.resampled_ap(draws)

    def compare(self, candidate: Ranking) -> Compared:
        """A candidate's AP and what it has more than the reference; ValueError where it was ranked on other
        images.
        """
        if not np.array_equal(self.ranking.persons, candidate.persons):
            raise ValueError("paired rankings must be of the same images and persons")
        resampled = candidate.resampled_ap(self.draws)
        return Compared(
            Interval.of(candidate.ap(), resampled),
            Interval.of(candidate.ap() - self.ranking.ap(), resampled - self.resampled),
        )
