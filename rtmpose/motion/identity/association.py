"""The best assignment of all found people to all known ones, and whom a box alone shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rtmpose.motion.boxes import Bools, Floats
from rtmpose.motion.identity.likeness import Body, Likeness, Moment, found_similarity, likeness
from rtmpose.motion.identity.returning import returns
from rtmpose.motion.observed import Observed
from rtmpose.motion.options import TrackOptions
from rtmpose.motion.tracks import Tracks

Ints = NDArray[np.int64]

SAME = 0.5  # likeness of two poses in one place
FRAMED = 0.5  # IoU of two boxes around one person, at least
CLEARLY = 0.5  # of the best likeness to anybody, below which a pose is not this person's
FOREIGN = 0.1  # likeness of a pose to a person, below which it is another's


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
    felt: Ints  # (R,) people of the past whom a box alone shows: their pose was not seen
    boxes: Ints  # (R,) found people, the box of each of whom is that of the one beside

    def borrowed(self) -> Bools:
        """Which of `columns` (P,) have a box that is somebody else's."""
        return np.isin(self.columns, self.boxes)


def associate(known: Tracks, found: Observed, now: Moment, body: Body, options: TrackOptions) -> Matches:
    """Which person of the past each found one continues.

    Rounds, as ByteTrack (arXiv 2110.06864) has them: who was found with confidence comes first, then the
    others, and at last who may be somebody that was out of sight. A pose that somebody is shown by already is
    nobody else's: in a crossing the network often gives the person in front twice. What is left of a
    detector's boxes then shows people whose pose was not seen.
    """
    none: Ints = np.zeros(0, np.int64)
    if not len(known) or not len(found):
        return Matches(none, none, np.flatnonzero(found.posed), none, none)
    like = likeness(known, found, now, body, options.visible)
    confident = found.box_score >= options.confident
    everyone = np.ones(len(known), bool)
    likely = np.where(anothers(like.pose), 0.0, like.both)
    rounds = [(everyone, found.posed & confident, likely)]
    if not confident.all():
        rounds.append((everyone, found.posed & ~confident, likely))
    if not known.live.all():
        rounds.append((~known.live, found.posed, returns(known, found, now)))
    rows, columns = in_rounds(rounds, options.similar)
    free = found.posed.copy()
    free[columns] = False
    new = np.flatnonzero(free)
    alike = found_similarity(found, body)
    if alike.any():
        twice = shown_twice(like.both, alike, rows, columns)
        own = ~twice[columns]
        rows, columns, new = rows[own], columns[own], new[~twice[new]]
    if not now.detected:
        return Matches(rows, columns, new, none, none)
    own = ~foreign(like, found.fit, rows, columns)
    rows, columns = rows[own], columns[own]
    return Matches(rows, columns, new, *felt(like, rows, columns, new))


def in_rounds(rounds: Sequence[tuple[Bools, Bools, Floats]], least: float) -> tuple[Ints, Ints]:
    """The pairs of several assignments one after the other, each of those whom the ones before left over.

    Args:
        rounds: of each the people of the past (N,) and the found ones (M,) who take part, and the worth
        (N, M).
    """
    rows: Ints = np.zeros(0, np.int64)
    columns: Ints = np.zeros(0, np.int64)
    free_rows, free = (np.ones(count, bool) for count in rounds[0][2].shape)
    for of, to, worth in rounds:
        row, column = np.flatnonzero(of & free_rows), np.flatnonzero(to & free)
        if len(row) and len(column):
            some, others = assigned(worth[row][:, column], least)
            rows, columns = np.append(rows, row[some]), np.append(columns, column[others])
            free_rows[rows], free[columns] = False, False
    return rows, columns


def anothers(pose: Floats) -> Bools:
    """Which people and poses, (N, M) as their likeness `pose`, do not belong together whatever the box says:
    the pose is somebody else's, and clearly less like this person.
    """
    best = pose.max(0)
    return (pose < CLEARLY * best) & (best >= SAME)


def foreign(like: Likeness, fit: Floats, rows: Ints, columns: Ints) -> Bools:
    """Which pairs (P,) have a box that continues the person and a pose that does not: it is not at all where
    the person's is expected, and does not fill its box (`fit` (M,)). The network has shown somebody else.
    """
    return (like.pose[rows, columns] < FOREIGN) & (fit[columns] < FRAMED)


def felt(like: Likeness, rows: Ints, columns: Ints, new: Ints) -> tuple[Ints, Ints]:
    """Pairs of people whose pose was not seen and of boxes that are theirs: a box whose pose is that of
    somebody in front still says where the one behind is. Such are boxes that nobody has, and those of people
    who are known by the pose, where the box continues somebody else better.
    """
    unseen, free = (np.ones(count, bool) for count in like.box.shape)
    unseen[rows] = False
    free[new] = False
    own = like.box[rows, columns]
    better = np.where(unseen[:, None], like.box, 0.0).max(0)[columns]
    free[columns[(own >= FRAMED) & (own >= better)]] = False
    return in_rounds([(unseen, free, like.box)], FRAMED)


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
