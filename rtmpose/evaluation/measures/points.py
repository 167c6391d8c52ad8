"""Distances between predicted and labelled points, and what is made of them: PCK, AUC, EPE and NME.

All of them are sums by image over counts by image, so that they can be computed again on images drawn with
replacement. P persons have K points each, on I images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def normalised(predicted: ArrayLike, true: ArrayLike, labelled: ArrayLike, norm: ArrayLike = 1.0) -> Floats:
    """Distances (P, K) of predicted to true points (P, K, 2) px, divided by each person's norm (P,) px.

    NaN where the point is not `labelled` (P, K), where the true point is not finite, and for persons whose
    norm is not a positive number: they are not judged. Infinite where a point is judged whose prediction is
    not finite.
    """
    found, wanted = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    size = np.broadcast_to(np.asarray(norm, np.float64), found.shape[:1])[:, None]
    judged = np.asarray(labelled, bool) & np.isfinite(wanted).all(-1) & np.isfinite(size) & (size > 0)
    predicted_at_all = np.isfinite(found).all(-1)
    difference = np.where((judged & predicted_at_all)[..., None], found - wanted, 0.0)
    distance = np.hypot(difference[..., 0], difference[..., 1]) / np.where(size > 0, size, 1.0)
    return np.where(judged, np.where(predicted_at_all, distance, np.inf), np.nan)


@dataclass(frozen=True)
class Sums:
    """Values of judged points by image and keypoint: their sum and how many there are."""

    total: Floats  # (I, K)
    count: Floats  # (I, K)

    @classmethod
    def of(cls, values: Floats, image: NDArray[np.int64], images: int) -> Sums:
        """Of values (P, K), NaN where there is none, of persons on `image` (P,), counted from 0."""
        judged = ~np.isnan(values)
        total, count = np.zeros((images, values.shape[1])), np.zeros((images, values.shape[1]))
        np.add.at(total, image, np.where(judged, values, 0.0))
        np.add.at(count, image, judged)
        return cls(total, count)

    def only(self, keypoints: NDArray[np.int64]) -> Sums:
        """Of some of the keypoints, by position."""
        return Sums(self.total[:, keypoints], self.count[:, keypoints])

    def by_keypoint(self, draws: NDArray[np.int64] | None = None) -> Floats:
        """Each keypoint's mean (times, K) in resamples `draws` (times, I), one of all images without; NaN
        where there is no value.
        """
        total, count = self._drawn(draws)
        return _ratio(total, count)

    def over_keypoints(self, draws: NDArray[np.int64] | None = None) -> Floats:
        """The mean of the keypoints' means (times,): each keypoint weighs the same."""
        means = self.by_keypoint(draws)
        known = ~np.isnan(means)
        return _ratio(np.where(known, means, 0.0).sum(1), known.sum(1))

    def over_points(self, draws: NDArray[np.int64] | None = None) -> Floats:
        """The mean of all values (times,): each labelled point weighs the same."""
        total, count = self._drawn(draws)
        return _ratio(total.sum(1), count.sum(1))

    def _drawn(self, draws: NDArray[np.int64] | None) -> tuple[Floats, Floats]:
        rows = np.ones((1, len(self.total)), np.int64) if draws is None else draws
        if np.isfinite(self.total).all():
            return rows @ self.total, rows @ self.count
        # An image that is not drawn adds nothing, not even an infinite error.
        endless = rows @ np.isinf(self.total)
        return np.where(endless > 0, np.inf, rows @ np.nan_to_num(self.total, posinf=0.0)), rows @ self.count


def pck(errors: Floats, threshold: float) -> Floats:
    """Whether each judged point lies less than `threshold` norms away, (P, K) of 1 and 0, NaN where `errors`
    are.

    PCK is the mean over them (Yang and Ramanan, "Articulated Human Detection with Flexible Mixtures of
    Parts", TPAMI 35(12), 2013); with the head's size as norm it is PCKh (Andriluka et al., "2D Human Pose
    Estimation: New Benchmark and State of the Art Analysis", CVPR 2014). The bound itself counts as missed.
    """
    return np.where(np.isnan(errors), np.nan, errors < threshold)


def area_under_curve(errors: Floats, steps: int = 20) -> Floats:
    """The mean of `pck` over the thresholds i / steps for i = 0 ... steps - 1, (P, K).

    At the threshold 0 nothing is hit, so that perfect predictions reach 1 - 1 / steps: 0.95 of 20 steps, as
    in published figures of hands.
    """
    thresholds = np.arange(steps) / steps
    missed = np.searchsorted(thresholds, errors.ravel(), side="right").reshape(errors.shape)
    return np.where(np.isnan(errors), np.nan, (steps - missed) / steps)


def mean_error(errors: Floats) -> float:
    """The mean of all judged errors: EPE in px where these are not divided, NME where they are. Infinite
    where a prediction is not finite, NaN where nothing is judged.
    """
    judged = errors[~np.isnan(errors)]
    return float(judged.mean()) if judged.size else float("nan")


def _ratio(total: Any, count: Any) -> Floats:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
