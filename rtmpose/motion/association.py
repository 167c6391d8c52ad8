"""Who is who: how like a pose is to the person it may continue, and the best assignment of all to all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rtmpose.motion.boxes import Floats, extents, moved, overlaps, sizes
from rtmpose.motion.observed import Observed
from rtmpose.motion.options import TrackOptions
from rtmpose.motion.tracks import Tracks, expected

Ints = NDArray[np.int64]

DRIFT = 0.5  # sizes per second by which the place of a point becomes less certain
MOST_DRIFT = 0.5  # sizes
ENOUGH = 4.0  # points, weighted by confidence, that make a pose's word count as much as its box's
SAME = 0.5  # likeness of two poses in one place
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
    """OKS of N expected poses to M new ones, (N, M), and how many points it rests on, (N, M).

    A point counts with its weight, and as much as the nearer of itself and its mirror point: swapped sides
    tell nothing about who somebody is. The spread of each point grows with the time since it was seen.

    Args:
        places: (N, K, 2) px, the expected ones. points: (M, K, 2) px. weights: (N, M, K) in [0, 1].
        size: (N,) px. elapsed:
        (N,) s. sigmas: (K,), as OKS has them. flip: (K,), the mirror point of each.
    """
    difference = points[None] - places[:, None]
    squared = np.einsum("nmkd,nmkd->nmk", difference, difference)
    crossed = points[None, :, flip] - places[:, None]
    squared = np.minimum(squared, np.einsum("nmkd,nmkd->nmk", crossed, crossed))
    drift = np.minimum(DRIFT * elapsed, MOST_DRIFT)
    variance = (2 * sigmas) ** 2 + drift[:, None] ** 2  # (N, K), of sizes²
    similarity = np.exp(-squared / (2 * variance * size[:, None] ** 2)[:, None])
    total = weights.sum(-1)
    return np.einsum("nmk,nmk->nm", similarity, weights) / np.maximum(total, np.spacing(1.0)), total


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
    somebody was last seen to where an unchanged speed leads.

    Args:
        last, onward: (N, 1, 2), the ends of the way, in sizes of the person. places: (N, M, 2), of the
        new people. growth: (N, M), the new size by the old one. elapsed: (N,) s out of sight.
    """
    way = onward - last
    length = np.maximum((way**2).sum(-1), np.spacing(1.0))
    along = np.clip(((places - last) * way).sum(-1) / length, 0.0, 1.0)
    beside = ((places - last - along[..., None] * way) ** 2).sum(-1)
    reach = AWAY + AWAY_RATE * elapsed[:, None]
    return np.exp(-np.log(2) * beside / reach**2 - (np.log(growth) / GROWTH) ** 2)


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

    Three rounds, as ByteTrack (arXiv 2110.06864) has two: who was found with confidence comes first, then the
    others may continue who was seen on the last frame, and at last those who were out of sight return. A pose
    that somebody is shown by already is nobody else's: in a crossing the network often gives the person in
    front twice.
    """
    rows: Ints = np.zeros(0, np.int64)
    columns: Ints = np.zeros(0, np.int64)
    if not len(known) or not len(found):
        return Matches(rows, columns, np.arange(len(found)))
    likely = similarities(known, found, time, sigmas, flip, options.visible)
    confident = found.box_score >= options.confident
    away = ~known.live
    rounds = [(known.live | away, confident, likely), (known.live, ~confident, likely)]
    if away.any():
        rounds.append((away, confident | ~confident, returns(known, found, time)))
    for of, to, worth in rounds:
        row = np.setdiff1d(np.flatnonzero(of), rows)
        column = np.setdiff1d(np.flatnonzero(to), columns)
        if len(row) and len(column):
            some, others = assigned(worth[np.ix_(row, column)], options.similar)
            rows, columns = np.append(rows, row[some]), np.append(columns, column[others])
    new = np.setdiff1d(np.arange(len(found)), columns)
    if len(found) > 1:
        twice = shown_twice(likely, found_similarity(found, sigmas, flip), rows, columns)
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
    """How much alike the found poses are, (M, M) in [0, 1]."""
    weights = found.confidence[:, None] * found.confidence[None]
    still = np.zeros(len(found))
    return pose_similarity(found.points, found.points, weights, sizes(found.box), still, sigmas, flip)[0]


def similarities(
    known: Tracks, found: Observed, time: float, sigmas: Floats, flip: NDArray[np.intp], visible: float
) -> Floats:
    """How like each found pose is to where each person is expected, (N, M), by points and extent."""
    shift, places = expected(known, time)
    weights = known.confidence[:, None] * found.confidence[None]
    elapsed = time - known.seen
    pose, evidence = pose_similarity(places, found.points, weights, known.size, elapsed, sigmas, flip)
    ours, theirs = (
        extents(places, known.confidence >= visible),
        extents(found.points, found.confidence >= visible),
    )
    ours = np.where(np.isnan(ours), moved(known.box, shift), ours)
    theirs = np.where(np.isnan(theirs), found.box, theirs)
    return combined(pose, evidence, overlaps(ours, theirs))


def returns(known: Tracks, found: Observed, time: float) -> Floats:
    """How likely each found person is one that was out of sight, (N, M), by the boxes."""
    shift, _ = expected(known, time)
    size = known.size[:, None, None]
    last = (known.box[:, None, :2] + known.box[:, None, 2:]) / 2 / size
    place = (found.box[None, :, :2] + found.box[None, :, 2:]) / 2 / size
    growth = sizes(found.box)[None] / known.size[:, None]
    return return_similarity(last, last + shift[:, None] / size, place, growth, time - known.seen)
