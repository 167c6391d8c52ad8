"""How good points are over time, against a known truth: trembling, lag, error, and swapped sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtmpose.motion.sides import Chains

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def jitter(points: ArrayLike, times: ArrayLike, size: float, truth: ArrayLike | None = None) -> float:
    """Mean acceleration of points (T, K, 2) px at `times` (T,) s, in sizes (px) of the person per s².

    With `truth` (T, K, 2) it is the acceleration of the difference: what the movement itself does not
    explain. NaN for fewer than three frames; points that are no numbers (NaN) are left out.
    """
    values = np.asarray(points, np.float64)
    if truth is not None:
        values = values - np.asarray(truth, np.float64)
    if len(values) < 3:
        return float("nan")
    step = np.diff(np.asarray(times, np.float64))[:, None, None]
    speed = np.diff(values, axis=0) / step
    change = np.diff(speed, axis=0) / ((step[1:] + step[:-1]) / 2)
    return float(np.nanmean(np.linalg.norm(change, axis=-1)) / size)


def lag(points: ArrayLike, truth: ArrayLike, most: int = 10) -> float:
    """How many frames `points` (T, K, 2) come after `truth` (T, K, 2), from 0 to `most`.

    The shift of least squared distance, to a fraction of a frame by the parabola through its neighbours. A
    point at rest has no lag: what does not move counts for nothing. Points that are no numbers (NaN) are left
    out at all shifts alike. NaN where there are too few frames.
    """
    values, true = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    count = len(true) - most - 1
    if count < 2:
        return float("nan")
    shifts = range(-1, most + 1)
    squares = np.stack([(values[most : most + count] - _at(true, most - s, count)) ** 2 for s in shifts])
    usable = np.isfinite(squares).all(0)
    if not usable.any():
        return float("nan")
    costs = squares[:, usable].mean(1)
    best = int(np.argmin(costs[1:-1])) + 1
    before, here, after = costs[best - 1 : best + 2]
    bend = before - 2 * here + after
    part = (before - after) / (2 * bend) if bend > 0 else 0.0
    return float(np.clip(best - 1 + np.clip(part, -1, 1), 0, most))


def _at(values: Floats, first: int, count: int) -> Floats:
    return values[first : first + count]


def error(points: ArrayLike, truth: ArrayLike, size: float) -> float:
    """Mean distance of points (T, K, 2) to `truth` (T, K, 2), in sizes (px) of the person."""
    difference = np.asarray(points, np.float64) - np.asarray(truth, np.float64)
    return float(np.nanmean(np.linalg.norm(difference, axis=-1)) / size)


def mean_oks(points: ArrayLike, truth: ArrayLike, area: float, sigmas: ArrayLike) -> float:
    """Mean OKS of poses (T, K, 2) with `truth` (T, K, 2) of a person of `area` px²."""
    squared = ((np.asarray(points, np.float64) - np.asarray(truth, np.float64)) ** 2).sum(-1)
    variance = (2 * np.asarray(sigmas, np.float64)) ** 2
    return float(np.nanmean(np.exp(-squared / (2 * variance * area))))


def swapped_chains(points: ArrayLike, truth: ArrayLike, chains: Chains, size: float) -> Bools:
    """In which frames which chains of limbs are swapped, (T, C): the mirrored points (T, K, 2) are nearer to
    `truth` (T, K, 2). Chains whose two sides lie within a tenth of a `size` (px) tell nothing, nor do pairs
    of which a point is no number (NaN).
    """
    values, true = np.asarray(points, np.float64), np.asarray(truth, np.float64)
    left, right = chains.left, chains.right
    as_is = _squares(values[:, left], true[:, left]) + _squares(values[:, right], true[:, right])
    mirrored = _squares(values[:, left], true[:, right]) + _squares(values[:, right], true[:, left])
    usable = np.isfinite(as_is + mirrored)
    as_is, mirrored, apart = (
        np.where(usable, each, 0.0) @ chains.member
        for each in (as_is, mirrored, _squares(true[:, left], true[:, right]))
    )
    pairs = np.maximum(usable @ chains.member, 1)
    return (mirrored < as_is) & (apart / pairs > (0.1 * size) ** 2)


def swapped_share(points: ArrayLike, truth: ArrayLike, chains: Chains, size: float) -> float:
    """The share of the frames that have any point in which some chain of limbs is swapped."""
    shown = np.isfinite(np.asarray(points, np.float64) + np.asarray(truth, np.float64)).any((1, 2))
    return float(swapped_chains(points, truth, chains, size)[shown].any(1).mean())


def _squares(first: Floats, second: Floats) -> Floats:
    return ((first - second) ** 2).sum(-1)
