"""The One-Euro filter: what must hold for all inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtmpose.motion.one_euro import filtered, share

Floats = NDArray[np.float64]
few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)
OPTIONS = {"cutoff": 1.0, "beta": 2.0, "speed_cutoff": 1.0}


def run(points: Floats, times: Floats, size: float = 100.0, **options: float) -> Floats:
    """Filtered (T, K, 2) points of one person."""
    smooth, speed, out = points[None, 0], np.zeros_like(points[None, 0]), [points[0]]
    for before, time, each in zip(times, times[1:], points[1:], strict=False):
        elapsed = np.full((1, points.shape[1]), time - before)
        smooth, speed = filtered(
            smooth, speed, each[None], elapsed, np.array([size]), **{**OPTIONS, **options}
        )
        out.append(smooth[0])
    return np.stack(out)


def walk(seed: int) -> tuple[Floats, Floats]:
    """Points (20, 3, 2) and time stamps (20,) with gaps of different lengths."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 5, (20, 3, 2)).cumsum(0), rng.uniform(0.01, 0.2, 20).cumsum()


@few
@given(seeds)
def test_a_constant_passes_unchanged(seed: int) -> None:
    points, times = walk(seed)
    still = np.repeat(points[:1], len(points), 0)
    assert np.array_equal(run(still, times), still)


@few
@given(seeds)
def test_it_converges_to_a_new_place(seed: int) -> None:
    points, _ = walk(seed)
    jumped = np.concatenate([points[:1], np.repeat(points[1:2] + 50, 59, 0)])
    found = np.linalg.norm(run(jumped, np.arange(60) / 6) - jumped, axis=-1)
    assert (found[-1] < 1e-3 * found[1]).all() and (np.diff(found[1:], axis=0) < 1e-9).all()


@few
@given(seeds)
def test_a_frame_given_twice_changes_nothing(seed: int) -> None:
    points, times = walk(seed)
    twice = run(np.repeat(points, 2, 0), np.repeat(times, 2))
    assert np.allclose(twice[::2], run(points, times)) and np.array_equal(twice[::2], twice[1::2])


@few
@given(seeds, st.floats(-1e4, 1e4), st.floats(0.1, 50))
def test_it_knows_neither_place_nor_distance(seed: int, by: float, larger: float) -> None:
    points, times = walk(seed)
    expected = run(points, times)
    assert np.allclose(run(points + by, times), expected + by, atol=1e-6)
    assert np.allclose(run(points * larger, times, size=100.0 * larger), expected * larger)


@few
@given(seeds, st.floats(-np.pi, np.pi))
def test_it_knows_no_direction(seed: int, angle: float) -> None:
    points, times = walk(seed)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert np.allclose(run(points @ turn, times), run(points, times) @ turn)


@few
@given(seeds, st.floats(0.1, 10))
def test_slower_time_with_slower_cutoffs_is_the_same(seed: int, slower: float) -> None:
    points, times = walk(seed)
    # A speed is counted per second: `beta`, in Hz per size per second, has no unit of time left.
    found = run(points, times * slower, cutoff=1.0 / slower, speed_cutoff=1.0 / slower)
    assert np.allclose(found, run(points, times))


def test_a_fast_point_lags_less_and_a_still_one_trembles_less() -> None:
    times = np.arange(60) / 30
    ramp = (times * 300)[:, None, None].repeat(2, 2)
    late = [np.abs(run(ramp, times, beta=beta) - ramp)[-1].max() for beta in (0.0, 2.0)]
    assert late[1] < late[0] / 3
    noise = np.random.default_rng(0).normal(0, 1, (60, 1, 2))
    assert np.abs(np.diff(run(noise, times), axis=0)).mean() < 0.4 * np.abs(np.diff(noise, axis=0)).mean()


@pytest.mark.parametrize(("elapsed", "expected"), [(0.0, 0.0), (1 / (2 * np.pi), 0.5), (1e9, 1.0)])
def test_share_of_one_hertz(elapsed: float, expected: float) -> None:
    assert share(1.0, elapsed) == pytest.approx(expected)
