"""Trembling, lag, error and swapped sides against a known truth."""

from __future__ import annotations

import numpy as np
import pytest

from rtmpose.motion import measures
from rtmpose.motion.sides import chains_of
from tests.motion.walkers import COCO17, Walker, truth

TIMES = np.arange(60) / 30
STEPS = truth(Walker((300, 500), yaw=40), TIMES)
CHAINS = chains_of(COCO17)


def test_jitter_is_the_acceleration_per_size() -> None:
    falling = np.zeros((60, 1, 2))
    falling[:, 0, 1] = 0.5 * 300 * TIMES**2  # px/s²
    assert measures.jitter(falling, TIMES, size=100) == pytest.approx(3)
    assert measures.jitter(falling, TIMES, size=100, truth=falling) == 0
    assert measures.jitter(falling * 0 + 7, TIMES, size=100) == 0
    assert np.isnan(measures.jitter(falling[:2], TIMES[:2], size=100))


def test_jitter_goes_by_time_stamps() -> None:
    rng = np.random.default_rng(1)
    times = rng.uniform(0.01, 0.1, 50).cumsum()
    falling = (0.5 * 300 * times**2)[:, None, None] * (0, 1)
    assert measures.jitter(falling, times, size=100) == pytest.approx(3)


@pytest.mark.parametrize("late", [0, 1, 3])
def test_lag_is_the_frames_of_delay(late: int) -> None:
    delayed = np.concatenate([STEPS[:1]] * late + [STEPS])[:60]
    assert measures.lag(delayed, STEPS) == pytest.approx(late, abs=0.05)


def test_lag_has_fractions_and_needs_frames() -> None:
    halfway = (STEPS[1:] + STEPS[:-1]) / 2
    assert measures.lag(halfway, STEPS[1:]) == pytest.approx(0.5, abs=0.1)
    assert np.isnan(measures.lag(STEPS[:8], STEPS[:8]))


def test_error_and_oks() -> None:
    assert measures.error(STEPS + np.array([30, 40]), STEPS, size=100) == pytest.approx(0.5)
    assert measures.mean_oks(STEPS, STEPS, 1e4, COCO17.sigmas) == 1
    assert measures.mean_oks(STEPS + 1e4, STEPS, 1e4, COCO17.sigmas) < 1e-9


def test_swapped_frames_are_counted() -> None:
    swapped = STEPS.copy()
    swapped[:15] = STEPS[:15][:, list(COCO17.flip)]
    assert measures.swapped_share(swapped, STEPS, CHAINS, size=150) == pytest.approx(0.25)
    assert measures.swapped_share(STEPS + 1, STEPS, CHAINS, size=150) == 0


def test_points_that_are_no_numbers_are_left_out() -> None:
    times = np.arange(60) / 30
    points = truth(Walker((200, 500), yaw=60), times)
    late = np.concatenate([points[:3], points[:-3]])
    flip = np.array(COCO17.flip)
    mirrored = np.where((np.arange(60) % 2 == 0)[:, None, None], points[:, flip], points)
    holes = points.copy()
    holes[40:44] = holes[::5, 3] = np.nan
    assert measures.lag(late, holes) == pytest.approx(measures.lag(late, points), abs=0.2)
    whole = measures.swapped_share(mirrored, points, CHAINS, 100)
    assert whole > 0.2
    kept = [index for index in range(60) if not 40 <= index < 44]
    swapped = measures.swapped_chains(mirrored[kept], points[kept], CHAINS, 100).any(1).mean()
    assert measures.swapped_share(mirrored, holes, CHAINS, 100) == pytest.approx(swapped, abs=0.05)
