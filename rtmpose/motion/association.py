"""Who is who: how like a pose is to the person it may continue, and the best assignment of all to all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rtmpose.motion.boxes import Floats, extents, meeting, moved, overlaps, sizes
from rtmpose.motion.observed import Observed
from rtmpose.motion.options import TrackOptions
from rtmpose.motion.tracks import Tracks, drift, expected

Ints = NDArray[np.int64]

DRIFT = 0.5  # sizes per second by which the place of a point becomes less certain
MOST_DRIFT = 0.5  # sizes
ENOUGH = 4.0  # points, weighted by confidence, that make a pose's word count as much as its box's
TURNED = 0.5  # worth of a place where somebody was last seen, beside one further on the way
FAR = 0.5  # sizes of the way from which that holds in full
SAME = 0.5  # likeness of two poses in one place
NEAR = 0.5  # sizes around somebody's extent, within which poses are compared
AWAY = 0.6  # sizes beside the expected way where somebody who returns is half as likely
AWAY_RATE = 0.4  # the same, more per second out of sight
GROWTH = 0.35  # log of the ratio of sizes at which somebody who returns is a third as likely


def pose_similarity(
    places: Floats,
    points: Floats,
    weights: Floats,
    size: Floats,
    elapsed: Floats,
    sigmas: Floats,
    flip: NDArray[np.intp],
) -> tuple[Floats, Floats]:
    """OKS of P expected poses with P new ones, (P,), and how many points each rests on, (P,).

    A point counts with its weight, and as much as the nearer of itself and its mirror point: swapped sides
    tell nothing about who somebody is. The spread of each point grows with the time since it was seen, and
    its peak falls with it: who was seen just now has the better claim to a place.

    Args:
        places: (P, K, 2) px, the expected ones. points: (P, K, 2) px. weights: (P, K) in [0, 1]. size: (P,)
        px. elapsed: (P,) s. sigmas: (K,), as OKS has them. flip: (K,), the mirror point of each.
    """
    difference, crossed = points - places, points[:, flip] - places
    squared = np.minimum((difference**2).sum(-1), (crossed**2).sum(-1))
    unsure = np.minimum(DRIFT * elapsed, MOST_DRIFT)
    sharp = (2 * sigmas) ** 2  # of sizes²
    variance = sharp + unsure[:, None] ** 2
    similarity = np.sqrt(sharp / variance) * np.exp(-squared / (2 * variance * size[:, None] ** 2))
    total = weights.sum(-1)
    return (similarity * weights).sum(-1) / np.maximum(total, np.spacing(1.0)), total


def combined(pose: Floats, evidence: Floats, overlap: Floats) -> Floats:
    """One similarity (N, M) in [0, 1] of a pose's and a box's: equal parts where the pose rests on enough
    points, the box alone where it rests on none.
    """
    part = 0.5 * np.minimum(evidence / ENOUGH, 1.0)
    return part * pose + (1 - part) * overlap


def return_similarity(
    last: Floats, onward: Floats, places: Floats, growth: Floats, elapsed: Floats
) -> Floats:
    """How likely M new people are N that were out of sight, (N, M) in [0, 1], by place and size.

    Who was hidden may have stood still or gone on: what counts is the distance to the way from where
    somebody was last seen to where an unchanged speed leads. To have gone on is the more likely.

    Args:
        last, onward: (N, 1, 2), the ends of the way, in sizes of the person. places: (N, M, 2), of the
        new people. growth: (N, M), the new size by the old one. elapsed: (N,) s out of sight.
    """
    way = onward - last
    length = np.maximum((way**2).sum(-1), np.spacing(1.0))
    along = np.clip(((places - last) * way).sum(-1) / length, 0.0, 1.0)
    beside = ((places - last - along[..., None] * way) ** 2).sum(-1)
    reach = AWAY + AWAY_RATE * elapsed[:, None]
    behind = (1 - along) * np.minimum(np.sqrt(length) / FAR, 1.0)
    near = np.exp(-np.log(2) * beside / reach**2 - (np.log(growth) / GROWTH) ** 2)
    return near * (1 - (1 - TURNED) * behind)


def assigned(similarity: Floats, least: float) -> tuple[Ints, Ints]:
    """The pairs (rows, columns) of the assignment with the greatest sum of similarities (N, M), each row and
    column once at most, pairs below `least` never.
    """
    worth = np.where(similarity >= least, similarity, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    real = worth[rows, columns] > 0
    return rows[real].astype(np.int64), columns[real].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Matches:
    """Who continues whom, and who is new."""

    rows: Ints  # (P,) people of the past
    columns: Ints  # (P,) found people, each of whom continues the one beside
    new: Ints  # (Q,) found people who continue nobody


def associate(
    known: Tracks, found: Observed, time: float, sigmas: Floats, flip: NDArray[np.intp], options: TrackOptions
) -> Matches:
    """Which person of the past each found one continues.

    Three rounds, as ByteTrack (arXiv 2110.06864) has two: who was found with confidence comes first; then the
    others may continue who was seen on the last frame, and at last who was out of sight. A pose
    that somebody is shown by already is nobody else's: in a crossing the network often gives the person in
    front twice.
    """
    rows: Ints = np.zeros(0, np.int64)
    columns: Ints = np.zeros(0, np.int64)
    if not len(known) or not len(found):
        return Matches(rows, columns, np.arange(len(found)))
    likely = similarities(known, found, time, sigmas, flip, options.visible)
    away = ~known.live
    confident = found.box_score >= options.confident
    everyone = np.ones(len(known), bool)
    rounds = [(everyone, confident, likely), (known.live, ~confident, likely)]
    if away.any():
        rounds.append((away, np.ones(len(found), bool), returns(known, found, time)))
    free_rows, free = np.ones(len(known), bool), np.ones(len(found), bool)
    for of, to, worth in rounds:
        row, column = np.flatnonzero(of & free_rows), np.flatnonzero(to & free)
        if len(row) and len(column):
            some, others = assigned(worth[np.ix_(row, column)], options.similar)
            rows, columns = np.append(rows, row[some]), np.append(columns, column[others])
            free_rows[rows], free[columns] = False, False
    new = np.flatnonzero(free)
    alike = found_similarity(found, sigmas, flip)
    if alike.any():
        twice = shown_twice(likely, alike, rows, columns)
        own = ~twice[columns]
        rows, columns, new = rows[own], columns[own], new[~twice[new]]
    return Matches(rows, columns, new)


def shown_twice(likely: Floats, alike: Floats, rows: Ints, columns: Ints) -> NDArray[np.bool_]:
    """Which of M found poses show somebody who is shown by another one, (M,): they are much alike, and the
    pose is more like that person than like the one it was to continue, if there is one.

    Args:
        likely: (N, M), of people of the past and poses. alike: (M, M), of poses. rows, columns: the pairs.
    """
    count = likely.shape[1]
    own = np.zeros(count)
    own[columns] = likely[rows, columns]
    theirs = np.zeros((count, count))  # of the pose and the person whom another pose continues
    theirs[:, columns] = likely[rows].T
    np.fill_diagonal(theirs, 0.0)
    return np.asarray(((theirs > own[:, None]) & (alike > SAME)).any(1))


def found_similarity(found: Observed, sigmas: Floats, flip: NDArray[np.intp]) -> Floats:
    """How much alike different found poses are, (M, M) in [0, 1]; 0 where their boxes do not meet."""
    alike = np.zeros((len(found), len(found)))
    a, b = meeting(found.box)
    if len(a):
        weights = found.confidence[a] * found.confidence[b]
        size, still = sizes(found.box)[a], np.zeros(len(a))
        alike[a, b], _ = pose_similarity(found.points[a], found.points[b], weights, size, still, sigmas, flip)
    return np.maximum(alike, alike.T)


def similarities(
    known: Tracks, found: Observed, time: float, sigmas: Floats, flip: NDArray[np.intp], visible: float
) -> Floats:
    """How like each found pose is to where each person is expected, (N, M), by points and extent; 0 for those
    far from each other.
    """
    shift = drift(known, time)
    places = expected(known, shift, time)
    ours = extents(places, known.confidence >= visible)
    theirs = extents(found.points, found.confidence >= visible)
    ours = np.where(np.isnan(ours), moved(known.box, shift), ours)
    theirs = np.where(np.isnan(theirs), found.box, theirs)
    around = NEAR * known.size[:, None] * (-1.0, -1.0, 1.0, 1.0)
    a, b = np.nonzero(overlaps(ours + around, theirs) > 0)
    likely = np.zeros((len(known), len(found)))
    if len(a):
        weights = known.confidence[a] * found.confidence[b]
        elapsed = (time - known.seen)[a]
        pose, evidence = pose_similarity(
            places[a], found.points[b], weights, known.size[a], elapsed, sigmas, flip
        )
        likely[a, b] = combined(pose, evidence, overlaps(ours, theirs)[a, b])
    return likely


def returns(known: Tracks, found: Observed, time: float) -> Floats:
    """How likely each found person is one that was out of sight, (N, M), by the boxes."""
    elapsed = time - known.seen
    size = known.size[:, None, None]
    last = (known.box[:, None, :2] + known.box[:, None, 2:]) / 2 / size
    place = (found.box[None, :, :2] + found.box[None, :, 2:]) / 2 / size
    way = known.body[:, None] * elapsed[:, None, None] / size
    growth = sizes(found.box)[None] / known.size[:, None]
    return return_similarity(last, last + way, place, growth, elapsed)
