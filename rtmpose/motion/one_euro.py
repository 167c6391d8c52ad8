"""The One-Euro filter (Casiez, Roussel, Vogel: "1 € Filter", CHI 2012) for all points of all people at once.

A low-pass whose cutoff grows with the speed: a point at rest does not tremble, a fast one does not lag. The
speed is counted in sizes of the person per second, so that the same cutoff serves near and far people. Times
are time stamps, so that dropped frames and changing frame rates need no care.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def share(cutoff: ArrayLike, elapsed: ArrayLike) -> Floats:
    """How much of a new value a low-pass of `cutoff` Hz takes after `elapsed` seconds: 0 after none, and
    towards 1 after many (the paper's equation 3).
    """
    turns = 2 * np.pi * np.asarray(cutoff, np.float64) * np.asarray(elapsed, np.float64)
    return turns / (turns + 1)


def filtered(
    smooth: Floats,
    speed: Floats,
    points: Floats,
    elapsed: Floats,
    size: Floats,
    *,
    cutoff: float,
    beta: float,
    speed_cutoff: float,
) -> tuple[Floats, Floats]:
    """One step: the new smooth points (N, K, 2) px and their new speeds (N, K, 2) px/s.

    Args:
        smooth, speed: (N, K, 2), what the last step gave; at first the points and 0. points: (N, K, 2) px,
        the new ones. elapsed: (N, K) s since the last step of each point; after 0 s nothing changes.
        size: (N,) px. cutoff: Hz at rest. beta: Hz per size per second. speed_cutoff: Hz.
    """
    some = elapsed > 0
    rate = np.where(some, 1 / np.where(some, elapsed, 1.0), 0.0)[..., None]
    taken = share(speed_cutoff, elapsed)[..., None]
    speed = speed + taken * ((points - smooth) * rate - speed)
    pace = np.sqrt((speed**2).sum(-1)) / size[:, None]
    taken = share(cutoff + beta * pace, elapsed)[..., None]
    return smooth + taken * (points - smooth), speed
