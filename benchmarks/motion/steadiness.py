"""How much a tracker steadies points, how late they come, and how often left and right are swapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from motion.simulated import COCO17, Truth, overlaps
from rtmpose.motion.person import Person

Floats = NDArray[np.float64]
LIMBS = (tuple(range(5, 11)), tuple(range(11, 17)))  # arms and legs: one may be swapped without the other
STILL, WALKING = 0.002, 0.25  # of a person's size per second
LEAST_APART = 0.08  # of a person's size: sides that lie closer cannot be told apart
LAGS = np.arange(0, 0.2001, 0.005)  # s


@dataclass(frozen=True)
class Steadiness:
    """Before and after the tracker."""

    jitter: tuple[float, float]  # per mille of size: root mean square of the steps of a still person's points
    error: tuple[float, float]  # per mille of size: median distance of seen points to the truth
    lag: tuple[float, float]  # ms: the delay of the truth that fits a walking person's points best
    swapped: tuple[float, float]  # share of arms and legs with left for right

    @classmethod
    def mean(cls, parts: Sequence[Steadiness]) -> Steadiness:
        """The mean of several films."""
        values = {
            each.name: tuple(np.nanmean([getattr(part, each.name) for part in parts], axis=0).tolist())
            for each in fields(cls)
        }
        return cls(**values)

    def line(self) -> str:
        jitter, error, lag = (f"{a:.1f} → {b:.1f}" for a, b in (self.jitter, self.error, self.lag))
        swapped = " → ".join(f"{100 * share:.2f}" for share in self.swapped)
        return f"jitter {jitter} ‰ of size, error {error} ‰, lag {lag} ms, swapped {swapped} %"


def _paths(truth: Sequence[Truth], people: Sequence[Sequence[Person]], count: int) -> Floats:
    """The points (T, P, 17, 2) px of those who were found, by the truth that their box fits best."""
    paths = np.full((len(truth), count, 17, 2), np.nan)
    for time, (frame, found) in enumerate(zip(truth, people, strict=True)):
        if not found or not len(frame.identity):
            continue
        similar = overlaps(np.array([person.box for person in found]), frame.boxes)
        for column in range(len(frame.identity)):
            row = int(np.argmax(similar[:, column]))
            if similar[row, column] >= 0.5 and np.argmax(similar[row]) == column:
                paths[time, frame.identity[column] - 1] = found[row].keypoints
    return paths


def steadiness(
    truth: Sequence[Truth],
    before: Sequence[Sequence[Person]],
    after: Sequence[Sequence[Person]],
    fps: float,
) -> Steadiness:
    """Measure people who were seen well: at least 0.9 of them."""
    count = max(int(frame.identity.max(initial=0)) for frame in truth)
    true = np.full((len(truth), count, 17, 2), np.nan)
    size = np.full((len(truth), count), np.nan)
    for time, frame in enumerate(truth):
        clear = frame.seen >= 0.9
        shown = np.where(frame.visible[..., None] == 2, frame.points, np.nan)
        true[time, frame.identity[clear] - 1] = shown[clear]
        sides = frame.boxes[:, 2:] - frame.boxes[:, :2]
        size[time, frame.identity - 1] = np.sqrt(sides.prod(-1))
    paths = [_paths(truth, people, count) for people in (before, after)]
    both = np.isfinite(paths[0]) & np.isfinite(paths[1]) & np.isfinite(true)
    paths = [np.where(both, path, np.nan) for path in paths]
    true = np.where(both, true, np.nan)
    measures = (_jitter, _error, _lag, _swapped)
    values = [tuple(measure(true, path, size, fps) for path in paths) for measure in measures]
    return Steadiness(*[(float(a), float(b)) for a, b in values])


def _speed(true: Floats, size: Floats, fps: float) -> Floats:
    """Speed (T-1, P, 17) in sizes per second."""
    return np.linalg.norm(np.diff(true, axis=0), axis=-1) * fps / size[1:, :, None]


def _jitter(true: Floats, path: Floats, size: Floats, fps: float) -> float:
    steps = np.linalg.norm(np.diff(path, axis=0), axis=-1) / size[1:, :, None]
    still = _speed(true, size, fps) < STILL
    return 1e3 * float(np.sqrt(np.nanmean(np.where(still, steps, np.nan) ** 2)))


def _error(true: Floats, path: Floats, size: Floats, fps: float) -> float:
    return 1e3 * float(np.nanmedian(np.linalg.norm(path - true, axis=-1) / size[..., None]))


def _lag(true: Floats, path: Floats, size: Floats, fps: float) -> float:
    """The delay at which the truth lies nearest to the points of people who move."""
    moving = np.pad(_speed(true, size, fps) > WALKING, ((1, 0), (0, 0), (0, 0)))
    misses = []
    for lag in LAGS:
        frames, part = divmod(lag * fps, 1.0)
        whole = int(frames)
        late = np.full_like(true, np.nan)
        now = true[: len(true) - whole]
        earlier = np.concatenate([now[:1] * np.nan, now[:-1]])
        late[whole:] = now if part < 1e-9 else (1 - part) * now + part * earlier
        distance = ((path - late) ** 2).sum(-1) / size[..., None] ** 2
        misses.append(np.where(moving, distance, np.nan))
    stack = np.array(misses)
    stack = np.where(np.isfinite(stack).all(0), stack, np.nan)  # the same points at every lag
    stack = np.minimum(stack, 0.02)  # swapped sides say nothing about time
    return 1e3 * float(LAGS[int(np.argmin(np.nanmean(stack, axis=(1, 2, 3))))])


def _swapped(true: Floats, path: Floats, size: Floats, fps: float) -> float:
    flip = np.asarray(COCO17.flip)
    wrong = total = 0
    for limb in LIMBS:
        points = list(limb)
        own = np.linalg.norm(path - true, axis=-1)[..., points]
        crossed = np.linalg.norm(path - true[..., flip, :], axis=-1)[..., points]
        apart = np.linalg.norm(true - true[..., flip, :], axis=-1)[..., points]
        usable = np.isfinite(own + crossed) & (apart > LEAST_APART * size[..., None])
        some = usable.sum(-1) >= 2
        better = np.where(usable, crossed - own, 0.0).sum(-1) < 0
        wrong, total = wrong + int((some & better).sum()), total + int(some.sum())
    return wrong / max(total, 1)
