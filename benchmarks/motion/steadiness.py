"""How much a tracker steadies points, how late they come, and how often left and right are swapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from motion.simulated import COCO17, Truth, overlaps
from rtmpose.motion import measures
from rtmpose.motion.person import Person
from rtmpose.motion.sides import chains_of

Floats = NDArray[np.float64]
CHAINS = chains_of(COCO17)
WALKING = 0.25  # of a person's size per second, from which somebody moves
LEAST = 1.0  # seconds of points that a person's figures rest on


@dataclass(frozen=True)
class Steadiness:
    """Before and after the tracker, by `rtmpose/motion/measures.py`; means over people."""

    jitter: tuple[float, float]  # sizes/s²: acceleration that the movement does not explain
    error: tuple[float, float]  # per mille of size: mean distance of seen points to the truth
    lag: tuple[float, float]  # ms, of those who walk
    swapped: tuple[float, float]  # share of frames with a chain of limbs that has left for right

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
        return f"jitter {jitter} sizes/s², error {error} ‰, lag {lag} ms, swapped {swapped} %"


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
    enough = np.flatnonzero(both.any((2, 3)).sum(0) >= LEAST * fps)
    values = []
    for path in paths:
        each = [_measured(path[:, who], true[:, who], size[:, who], fps) for who in enough]
        values.append(np.nanmean(np.array(each, np.float64).reshape(-1, 4), axis=0))
    return Steadiness(*((float(a), float(b)) for a, b in zip(*values, strict=True)))


def _measured(path: Floats, true: Floats, size: Floats, fps: float) -> tuple[float, float, float, float]:
    """Jitter, error, lag and share of swapped frames of one person, path and truth (T, 17, 2), size (T,)."""
    times, mean = np.arange(len(true)) / fps, float(np.nanmean(size))
    speed = np.linalg.norm(np.diff(true, axis=0), axis=-1) * fps / mean
    walks = np.nanmedian(np.append(speed, 0.0)) > WALKING
    return (
        measures.jitter(path, times, mean, true),
        1e3 * measures.error(path, true, mean),
        1e3 / fps * measures.lag(path, true) if walks else float("nan"),
        measures.swapped_share(path, true, CHAINS, mean),
    )
