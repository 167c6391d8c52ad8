"""Confidence: a probability that never falls with the score, and comes true as often as it says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.evaluation.confidence import (
    MIN_POINTS,
    RIGHT,
    Logistic,
    Scored,
    calibrate,
    calibration_error,
    fit,
    reliability,
)
from rtmpose.evaluation.scoring import Pose
from rtmpose.oks import keypoint_similarity

SIGMAS = (0.05, 0.1)


def drawn(slope: float, intercept: float, count: int = 4000, seed: int = 0) -> Scored:
    """Points that are right with the probability that a curve gives their scores."""
    rng = np.random.default_rng(seed)
    scores = rng.gamma(2.0, 1.0, count)
    return Scored(scores, rng.random(count) < Logistic(slope, intercept)(scores))


@st.composite
def scored(draw: st.DrawFn) -> Scored:
    """Any points: of any scale, tied or not, right at random, in order of their scores, or against it."""
    count = draw(st.integers(MIN_POINTS, 400))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    scale, shift = draw(st.sampled_from([1e-3, 1.0, 1e3])), draw(st.sampled_from([-1.0, 0.0, 100.0]))
    scores = np.round(rng.standard_normal(count), draw(st.sampled_from([0, 8]))) * scale + shift
    noise = draw(st.sampled_from([0.0, 1.0, 1e6]))
    sign = draw(st.sampled_from([-1, 1]))
    order = sign * scores / scale + noise * rng.standard_normal(count)
    return Scored(scores, order > np.quantile(order, draw(st.floats(0.05, 0.95))))


@given(scored(), st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_probability_never_falls_with_the_score(points: Scored, scores: list[float]) -> None:
    curve = fit(points)
    if curve is None:  # too few right or wrong ones
        assert min(points.right.sum(), (~points.right).sum()) < 10
        return
    assert curve.slope >= 0 and math.isfinite(curve.slope) and math.isfinite(curve.intercept)
    claimed = curve(np.sort(scores))
    assert ((claimed >= 0) & (claimed <= 1)).all() and (np.diff(claimed) >= 0).all()


@given(scored())
@settings(max_examples=40, deadline=None)
def test_the_mean_probability_is_the_share_that_is_right(points: Scored) -> None:
    """It holds where the likelihood is largest, for any slope: the intercept's gradient vanishes there."""
    curve = fit(points)
    if curve is not None:
        assert curve(points.scores).mean() == pytest.approx(points.right.mean(), abs=0.01)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, -2.0), (0.3, 0.5), (4.0, -4.0)])
def test_the_curve_that_drew_the_points_is_found(slope: float, intercept: float) -> None:
    found = fit(drawn(slope, intercept, count=40_000))
    assert found is not None
    assert found.slope == pytest.approx(slope, rel=0.1)
    assert found.intercept == pytest.approx(intercept, abs=0.15)


def test_scores_that_say_the_opposite_give_a_flat_curve() -> None:
    points = drawn(1.0, -2.0)
    found = fit(Scored(-points.scores, points.right))
    assert found is not None and found.slope == 0
    assert found(3.0) == pytest.approx(points.right.mean(), abs=0.01)


def test_too_few_points_give_none() -> None:
    points = drawn(1.0, -2.0)
    assert fit(Scored(points.scores[: MIN_POINTS - 1], points.right[: MIN_POINTS - 1])) is None
    assert fit(Scored(points.scores, np.ones_like(points.right))) is None
    assert fit(Scored(np.full_like(points.scores, np.nan), points.right)) is None
    assert fit(Scored(np.empty(0), np.empty(0, bool))) is None
    assert calibrate(points, Scored(points.scores[:9], points.right[:9])) is None


def test_calibration_lowers_the_error_on_other_points() -> None:
    found = calibrate(drawn(1.5, -3.0, seed=1), drawn(1.5, -3.0, seed=2))
    assert found is not None
    assert found.error_before > 0.2 and found.error < 0.03
    assert found.figures()["tested_on"] == 4000 == sum(row.count for row in found.rows)
    assert all(abs(row.probability - row.right) < 0.15 for row in found.rows if row.count > 100)


def test_the_error_is_the_weighted_gap() -> None:
    probabilities = [0.05, 0.05, 0.05, 0.95]
    right = [False, True, True, True]
    assert calibration_error(probabilities, right, bins=10) == pytest.approx(
        0.75 * (2 / 3 - 0.05) + 0.25 * 0.05
    )
    rows = reliability(probabilities, right, bins=10)
    assert [(row.low, row.count) for row in rows] == [(0.0, 3), (0.9, 1)]
    assert reliability([1.0, 0.0], [True, False], bins=3)[-1].high == 1
    assert math.isnan(calibration_error([], []))


def annotation(number: int, **changes: Any) -> dict[str, Any]:
    made = {
        "id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 10_000.0,
        "bbox": [0, 0, 100, 100], "num_keypoints": 2, "keypoints": [10, 10, 2, 50, 50, 1],
    }  # fmt: skip
    return made | changes


def pose(number: int | None, points: list[list[float]]) -> Pose:
    return Pose(1, np.array(points), np.array([0.4, 0.9]), 1.0, 1e4, (), number)


def test_a_point_is_right_within_half_a_standard_deviation() -> None:
    """The Gaussian's standard deviation is 2 · 0.05 · 100 px = 10 px for the first point, 20 px for the
    other.
    """
    assert float(keypoint_similarity([[5.0, 0.0]], [[0.0, 0.0]], 1e4, SIGMAS[:1])[0]) == pytest.approx(RIGHT)
    truth = {
        "images": [{"id": 1}],
        "annotations": [
            annotation(1), annotation(2),
            annotation(3, keypoints=[10, 10, 0, 50, 50, 2], num_keypoints=1),
            annotation(4, area=0.0), annotation(5),  # without a pose
        ],
    }  # fmt: skip
    poses = [
        pose(1, [[14.9, 10], [50, 59.9]]),
        pose(2, [[15.1, 10], [50, 60.1]]),
        pose(3, [[99, 99], [50, 50]]),
        pose(4, [[10, 10], [50, 50]]),
    ]
    found = Scored.of(truth, poses, SIGMAS)
    assert found.right.tolist() == [True, True, False, False, True]
    assert found.scores.tolist() == [0.4, 0.9, 0.4, 0.9, 0.9]
    assert len(Scored.of({"images": [], "annotations": []}, [], SIGMAS).scores) == 0
