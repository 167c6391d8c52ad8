"""Paired intervals: two rankings of the same images, compared draw by draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.evaluation.bootstrap import PairedReference, Ranking, resamples
from tests.evaluation.test_error import SIGMAS, noisy_set

Found = list[dict[str, Any]]


def moved(results: Found, pixels: float, seed: int = 0) -> Found:
    """The same predictions, less exact."""
    rng = np.random.default_rng(seed)
    found = []
    for item in results:
        points = np.asarray(item["keypoints"]).reshape(-1, 3).copy()
        points[:, :2] += rng.normal(0, pixels, points[:, :2].shape)
        found.append(item | {"keypoints": points.ravel().tolist()})
    return found


@pytest.fixture(scope="module")
def rankings() -> tuple[Ranking, Ranking]:
    truth, results = noisy_set(60)
    return Ranking.of(truth, results, SIGMAS), Ranking.of(truth, moved(results, 4.0), SIGMAS)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 20), times=st.integers(1, 40))
def test_the_same_predictions_differ_by_exactly_nothing(
    rankings: tuple[Ranking, Ranking], seed: int, times: int
) -> None:
    one, _ = rankings
    found = PairedReference(one, resamples(60, times, seed)).compare(one).difference
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 20))
def test_the_other_way_round_the_sign_turns(rankings: tuple[Ranking, Ranking], seed: int) -> None:
    one, other = rankings
    draws = resamples(60, 40, seed)
    there = PairedReference(one, draws).compare(other).difference
    back = PairedReference(other, draws).compare(one).difference
    assert there.value == -back.value < 0
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert there.low <= there.high


def test_pairs_are_narrower_than_what_they_compare(rankings: tuple[Ranking, Ranking]) -> None:
    one, other = rankings
    draws = resamples(60, 300, 1)
    found = PairedReference(one, draws).compare(other)
    assert found.ap.low < found.ap.value < found.ap.high
    apart = np.quantile(other.resampled_ap(draws) - one.resampled_ap(draws[::-1]), [0.025, 0.975])
    assert found.difference.high - found.difference.low < 0.5 * float(np.diff(apart)[0])


def test_other_images_are_refused(rankings: tuple[Ranking, Ranking]) -> None:
    truth, results = noisy_set(30, seed=1)
    with pytest.raises(ValueError, match="the same images"):
        PairedReference(rankings[0], resamples(60, 2)).compare(Ranking.of(truth, results, SIGMAS))
