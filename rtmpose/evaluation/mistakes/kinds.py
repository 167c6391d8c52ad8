"""The kind of every point's error: jitter, inversion, swap or miss (Ronchi & Perona 2017, arXiv 1707.05388,
section 3.1).

The measure is the similarity of one point, exp(-d² / (2 (2σ)² area)), whose mean over the labelled points is
OKS. A point is `good` from 0.85 on, and jitters from 0.5 on. Below, it may lie on a point that looks like the
one it should be on: similar by 0.5 or more to its mirror image of the same person (inversion: left and right
are confused), or to the same point or its mirror image of another person (swap). Where both hold, the nearer
one counts. Everything else is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtmpose.oks import keypoint_similarity

KINDS = ("good", "jitter", "inversion", "swap", "miss")
ERRORS = KINDS[1:]
GOOD, JITTER, INVERSION, SWAP, MISS = range(len(KINDS))
NOT_LABELLED = -1
NEAR, CLOSE = 0.5, 0.85  # similarity from which a point jitters, and from which it is good

Floats = NDArray[np.float64]
Kinds = NDArray[np.int8]


def error_kinds(
    predicted: ArrayLike,
    labelled: ArrayLike,
    area: float,
    others: Sequence[tuple[ArrayLike, float]],
    sigmas: Sequence[float],
    flip: Sequence[int],
) -> Kinds:
    """The kind of each point of one predicted person, (K,) positions in `KINDS`; -1 where the person's point
    is not labelled.

    Args:
        predicted: (K, 2) px. labelled: (K, 3) as (x, y, visible), px; visible 0: not labelled. area: px²,
            above 0.
        others: labelled points (K, 3) and area of each other person of the image.
        sigmas: OKS falloff of the K points. flip: (K,) the point on the other side of the body; its own
            number in the middle.
    """
    points, truth, mirrored = np.asarray(predicted, np.float64), np.asarray(labelled, np.float64), list(flip)
    own = keypoint_similarity(points, truth[:, :2], area, sigmas)  # (K,)
    inverted = _near_mirrored(points, truth, area, sigmas, mirrored)
    inverted[np.asarray(mirrored) == np.arange(len(truth))] = 0.0  # a point in the middle has no other side
    swapped = np.zeros(len(truth))
    for pose, size in others:
        other = np.asarray(pose, np.float64)
        same = keypoint_similarity(points, other[:, :2], size, sigmas) * (other[:, 2] > 0)
        swapped = np.maximum.reduce(
            [swapped, same, _near_mirrored(points, other, size, sigmas, mirrored)],
        )
    found = np.full(len(truth), MISS, np.int8)
    found[swapped >= NEAR] = SWAP
    found[(inverted >= NEAR) & (inverted >= swapped)] = INVERSION
    found[own >= NEAR] = JITTER
    found[own >= CLOSE] = GOOD
    found[truth[:, 2] <= 0] = NOT_LABELLED
    return found


def _near_mirrored(
    points: Floats, truth: Floats, area: float, sigmas: Sequence[float], mirrored: list[int]
) -> Floats:
    """Similarity of each point to a person's mirrored one (K,), by that one's own falloff; 0 where it is not
    labelled.
    """
    spread = [sigmas[point] for point in mirrored]
    similar = keypoint_similarity(points, truth[mirrored, :2], area, spread)
    return np.where(truth[mirrored, 2] > 0, similar, 0.0)
