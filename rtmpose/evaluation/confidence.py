"""Calibrated confidence: how probable it is, by its raw score, that a predicted point is right.

A point is right when it lies within half a standard deviation of OKS's Gaussian from where a person marked
it: distance ≤ 0.5 · 2σ · √area, σ being the point's OKS falloff; its similarity is then at least
exp(-1/8) = 0.88. The probability is logistic in the score (Platt's scaling; its slope is the inverse of a
temperature), fitted by maximum likelihood on labelled points. What is not labelled says nothing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from rtmpose.evaluation.coco import annotation_keypoints, person_annotations
from rtmpose.evaluation.scoring import Pose
from rtmpose.oks import keypoint_similarity

Floats = NDArray[np.float64]

RIGHT = math.exp(-(0.5**2) / 2)  # the similarity of a point half a standard deviation away
MIN_POINTS = 200  # fewer labelled points say too little of two parameters
MIN_EACH = 10  # and so do fewer right, or fewer wrong ones
BINS = 15


@dataclass(frozen=True)
class Scored:
    """Labelled points: the raw score of each, and whether its prediction is right."""

    scores: Floats  # (P,)
    right: NDArray[np.bool_]  # (P,)

    @classmethod
    def of(cls, truth: Mapping[str, Any], poses: Iterable[Pose], sigmas: Sequence[float]) -> Scored:
        """The labelled points of all persons that a pose was predicted for in their own box; `truth` is the
        content of a COCO annotation file, areas px^2.
        """
        predicted = {(pose.image_id, pose.annotation_id): pose for pose in poses}
        scores: list[NDArray[Any]] = [np.empty(0)]
        right: list[NDArray[Any]] = [np.empty(0, bool)]
        for annotation in person_annotations(truth):
            pose = predicted.get((annotation["image_id"], annotation["id"]))
            if pose is None or annotation["area"] <= 0:
                continue
            marked = annotation_keypoints(annotation)[: len(sigmas)]
            labelled = marked[:, 2] > 0
            similar = keypoint_similarity(pose.keypoints, marked[:, :2], annotation["area"], sigmas)
            scores.append(pose.scores[labelled])
            right.append(similar[labelled] >= RIGHT)
        return cls(np.concatenate(scores), np.concatenate(right))


@dataclass(frozen=True)
class Logistic:
    """Probability = 1 / (1 + exp(-(slope · score + intercept))); the slope is never negative."""

    slope: float
    intercept: float

    def __call__(self, scores: ArrayLike) -> Floats:
        """Probabilities in [0, 1], never falling with the score."""
        return np.asarray(expit(self.slope * np.asarray(scores, np.float64) + self.intercept))


def fit(points: Scored) -> Logistic | None:
    """The most likely curve; None where there are too few points, or too few right or wrong ones.

    Right and wrong are counted as Platt has it, (r + 1) / (r + 2) and 1 / (w + 2), so that scores which
    separate them perfectly do not give an infinite slope.
    """
    right = int(points.right.sum())
    wrong = len(points.right) - right
    if len(points.right) < MIN_POINTS or min(right, wrong) < MIN_EACH or not np.isfinite(points.scores).all():
        return None
    # In units of the scores' own spread, so that the search is the same for networks of any scale.
    middle, spread = points.scores.mean(), max(float(points.scores.std()), np.finfo(np.float64).tiny)
    scaled = (points.scores - middle) / spread
    wanted = np.where(points.right, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        """Mean cross entropy, and its gradient by slope and intercept."""
        logits = parameters[0] * scaled + parameters[1]
        error = expit(logits) - wanted
        entropy = np.logaddexp(0, logits) - wanted * logits
        return float(entropy.mean()), np.array([(error * scaled).mean(), error.mean()])

    start = np.array([1.0, math.log((right + 1) / (wrong + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    slope = float(found.x[0]) / spread
    return Logistic(slope, float(found.x[1]) - slope * middle)


@dataclass(frozen=True)
class Bin:
    """Points whose probability is in one interval."""

    low: float
    high: float
    count: int
    probability: float  # mean of what was claimed
    right: float  # share that is right


def reliability(probabilities: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[Bin]:
    """What was claimed beside what came true, in equal intervals of [0, 1]; empty ones are left out."""
    claimed, came_true = np.asarray(probabilities, np.float64), np.asarray(right, np.float64)
    row = np.minimum((claimed * bins).astype(int), bins - 1)
    return [
        Bin(
            number / bins,
            (number + 1) / bins,
            int(inside.sum()),
            float(claimed[inside].mean()),
            float(came_true[inside].mean()),
        )
        for number in range(bins)
        if (inside := row == number).any()
    ]


def calibration_error(probabilities: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """The expected calibration error (arXiv 1706.04599, equation 3): the mean distance between claimed and
    true shares, weighted by the number of points; NaN without points.
    """
    rows = reliability(probabilities, right, bins)
    total = sum(row.count for row in rows)
    gaps = sum(row.count * abs(row.probability - row.right) for row in rows)
    return gaps / total if total else math.nan


def diagram(curves: Mapping[str, Sequence[Bin]]) -> bytes:
    """A reliability diagram, a PNG: of each curve, by name, the share of points that is right over what was
    claimed, and below how many points there are. What is calibrated lies on the diagonal.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, rows in curves.items():
        upper.plot([row.probability for row in rows], [row.right for row in rows], "o-", label=name)
        lower.step([row.probability for row in rows], [row.count for row in rows], where="mid")
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    lower.set(xlabel="claimed", ylabel="points", yscale="log")
    upper.legend(loc="upper left", fontsize=8)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


@dataclass(frozen=True)
class Calibration:
    """A curve, and what it is worth on points that it was not fitted to."""

    curve: Logistic
    fitted_on: int  # labelled points
    tested_on: int  # labelled points
    error_before: float  # expected calibration error of the raw scores, cut to [0, 1]
    error: float  # that of the curve
    rows: list[Bin]  # the curve's reliability

    def figures(self) -> dict[str, float]:
        """The numbers, by name."""
        return {
            "fitted_on": self.fitted_on,
            "tested_on": self.tested_on,
            "calibration_error_before": self.error_before,
            "calibration_error": self.error,
        }


def calibrate(fitted: Scored, tested: Scored) -> Calibration | None:
    """Fit on some points and test on others; None where either are too few."""
    curve = fit(fitted)
    if curve is None or len(tested.right) < MIN_POINTS:
        return None
    claimed = curve(tested.scores)
    return Calibration(
        curve=curve,
        fitted_on=len(fitted.right),
        tested_on=len(tested.right),
        error_before=calibration_error(np.clip(tested.scores, 0, 1), tested.right),
        error=calibration_error(claimed, tested.right),
        rows=reliability(claimed, tested.right),
    )
