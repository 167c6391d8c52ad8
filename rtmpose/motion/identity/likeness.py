"""How like a found person is to one who is expected: by the points and by the box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtmpose.motion.boxes import (
    Floats,
    carried,
    extents,
    meeting,
    moved,
    near,
    overlaps,
    sizes,
    squared_length,
)
from rtmpose.motion.observed import Observed
from rtmpose.motion.tracks import Tracks, drift, expected, unposed

DRIFT = 0.5  # sizes per second by which the place of a point becomes less certain
MOST_DRIFT = 0.5  # sizes
ENOUGH = 4.0  # points, weighted by confidence, that make a pose's word count as much as its box's
NEAR = 0.5  # sizes around somebody's extent, within which poses are compared


@dataclass(frozen=True)
class Moment:
    """The frame on which people were found."""

    time: float  # s
    size: tuple[int, int]  # px, w and h
    detected: bool  # the boxes are a detector's; else they are our own, and prove nothing


@dataclass(frozen=True, eq=False)
class Body:
    """What is the same for all poses of a skeleton of K points."""

    sigmas: Floats  # (K,), as OKS has them
    flip: NDArray[np.intp]  # (K,) the mirror point of each


@dataclass(frozen=True, eq=False)
class Likeness:
    """N known people and M found ones, each in [0, 1]; 0 for those far from each other."""

    both: Floats  # (N, M) by points and box together
    pose: Floats  # (N, M) by the points
    box: Floats  # (N, M) IoU of the boxes; between two detections, of the points' extents


def pose_similarity(
    places: Floats, points: Floats, weights: Floats, size: Floats, elapsed: Floats, body: Body
) -> tuple[Floats, Floats]:
    """OKS of P expected poses with P new ones, (P,), and how many points each rests on, (P,).

    A point counts with its weight, and as much as the nearer of itself and its mirror point: swapped sides
    tell nothing about who somebody is. The spread of each point grows with the time since it was seen, and
    its peak falls with it: who was seen just now has the better claim to a place.

    Args:
        places: (P, K, 2) px, the expected ones. points: (P, K, 2) px. weights: (P, K) in [0, 1]. size: (P,)
        px. elapsed: (P,) s.
    """
    difference, crossed = points - places, points[:, body.flip] - places
    squared = np.minimum(squared_length(difference), squared_length(crossed))
    unsure = np.minimum(DRIFT * elapsed, MOST_DRIFT)
    sharp = (2 * body.sigmas) ** 2  # of sizes²
    variance = sharp + unsure[:, None] ** 2
    similarity = np.sqrt(sharp / variance) * np.exp(-squared / (2 * variance * size[:, None] ** 2))
    total = weights.sum(-1)
    return (similarity * weights).sum(-1) / np.maximum(total, np.spacing(1.0)), total


def combined(pose: Floats, evidence: Floats, overlap: Floats) -> Floats:
    """One similarity in [0, 1] of a pose's and a box's, of the same shape as they: equal parts where the pose
    rests on enough points, the box alone where it rests on none.
    """
    part = 0.5 * np.minimum(evidence / ENOUGH, 1.0)
    return part * pose + (1 - part) * overlap


def found_similarity(found: Observed, body: Body) -> Floats:
    """How much alike different found poses are, (M, M) in [0, 1]; 0 where their boxes do not meet."""
    alike = np.zeros((len(found), len(found)))
    a, b = meeting(found.box)
    if len(a):
        weights = found.confidence[a] * found.confidence[b]
        size, still = sizes(found.box)[a], np.zeros(len(a))
        alike[a, b], _ = pose_similarity(found.points[a], found.points[b], weights, size, still, body)
    return np.maximum(alike, alike.T)


def likeness(known: Tracks, found: Observed, now: Moment, body: Body, visible: float) -> Likeness:
    """How like each found person is to where each known one is expected.

    A detector's boxes are compared as they are: the extent of the confident points jumps where somebody is
    half hidden or cut by the picture's border, and the box does not. Between two detections a box only says
    whom the network was shown, so there the extents are compared.
    """
    shift = drift(known, now.time)
    places = expected(known, shift, now.time)
    if now.detected:
        ours, theirs = carried(known.box, shift, now.size), found.box
    else:
        own = extents(places, known.confidence >= visible)
        ours = np.where(np.isnan(own), moved(known.box, shift), own)
        theirs = np.where(np.isnan(found.extent), found.box, found.extent)
    a, b = np.nonzero(near(ours, NEAR * known.size, theirs) & found.posed)
    pose, both = np.zeros((2, len(known), len(found)))
    overlap = overlaps(ours, theirs)
    if len(a):
        weights = known.confidence[a] * found.confidence[b]
        elapsed = unposed(known, now.time)[a]
        pose[a, b], evidence = pose_similarity(
            places[a], found.points[b], weights, known.size[a], elapsed, body
        )
        both[a, b] = combined(pose[a, b], evidence, overlap[a, b])
    return Likeness(both, pose, overlap)
