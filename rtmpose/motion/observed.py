"""The people of one frame as arrays: what cannot be used is left out, and nobody's pose is there twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rtmpose.files import UserError
from rtmpose.motion.boxes import Bools, Floats, areas, extents, meeting, paired_overlaps, with_margins
from rtmpose.motion.options import TrackOptions
from rtmpose.motion.person import Person
from rtmpose.oks import oks_nms

Ints = NDArray[np.int64]

WHOLE = 0.99  # of the frame, from which a box says nothing about where somebody is
LEAST_FIT = 0.01  # what counts for a pose without an extent


@dataclass(eq=False)
class Observed:
    """M people with K points; `index` is each one's place among those that came in."""

    index: Ints  # (M,)
    points: Floats  # (M, K, 2) px
    confidence: Floats  # (M, K)
    scores: Floats  # (M, K)
    box: Floats  # (M, 4) px
    box_score: Floats  # (M,)
    presence: Floats  # (M,) mean confidence of the better half of the points
    extent: Floats  # (M, 4) px around the points that are seen, as `extents` has it
    fit: Floats  # (M,) IoU of the box and one around the points that are seen
    posed: Bools  # (M,) the pose is this person's own; else only the box says something

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: Ints | Bools) -> Observed:
        return Observed(*(getattr(self, name)[rows] for name in OBSERVED))


OBSERVED = tuple(each.name for each in fields(Observed))


def observe(persons: Sequence[Person], points: int, size: tuple[int, int], options: TrackOptions) -> Observed:
    """The usable people: with a finite box that has an area, and at least one finite point. Who is not
    confident enough has no pose.

    A point that is no number counts as not seen, in the middle of the box. UserError where a person has other
    than `points` points: the model and the tracker do not belong together.
    """
    for person in persons:
        if np.shape(person.keypoints) != (points, 2):
            shape = "x".join(map(str, np.shape(person.keypoints)))
            raise UserError(f"keypoints: are {shape}; the tracker's skeleton has {points}x2")
    count = len(persons)
    all_of_them = Observed(
        index=np.arange(count),
        points=np.array([person.keypoints for person in persons], np.float64).reshape(count, points, 2),
        confidence=np.array([person.confidence for person in persons], np.float64).reshape(count, points),
        scores=np.array([person.scores for person in persons], np.float64).reshape(count, points),
        box=np.array([person.box for person in persons], np.float64).reshape(count, 4),
        box_score=np.array([person.box_score for person in persons], np.float64),
        presence=np.zeros(count),
        extent=np.zeros((count, 4)),
        fit=np.zeros(count),
        posed=np.zeros(count, bool),
    )
    found = _finite(all_of_them)
    found.presence = presence(found.confidence)
    found.posed = found.presence >= options.present
    found.extent = extents(found.points, found.confidence >= options.visible)
    from_points = with_margins(found.extent, np.full((len(found), 4), (options.padding - 1) / 2))
    framed = np.isfinite(found.extent[:, 0])
    whole = framed & (areas(found.box) >= WHOLE * size[0] * size[1])
    if whole.any():
        found.box = np.where(whole[:, None], from_points, found.box)
    found.fit = np.where(framed, paired_overlaps(np.where(framed[:, None], from_points, 0.0), found.box), 0.0)
    return found


def _finite(found: Observed) -> Observed:
    """Without the people that have no box or no points; single points that are no numbers are not seen."""
    good = np.isfinite(found.points[..., 0] + found.points[..., 1] + found.confidence)
    boxed = np.isfinite(found.box).all(1) & (areas(found.box) > 0) & np.isfinite(found.box_score)
    usable = boxed & good.any(1)
    if good.all() and usable.all():
        return found
    found, good = found.select(usable), good[usable]
    middle = (found.box[:, None, :2] + found.box[:, None, 2:]) / 2
    found.points = np.where(good[..., None], found.points, middle)
    found.confidence = np.where(good, found.confidence, 0.0)
    found.scores = np.where(good & np.isfinite(found.scores), found.scores, 0.0)
    return found


def presence(confidence: Floats) -> Floats:
    """How surely a person is there, (M,): the mean confidence of the better half of the points (M, K). Half a
    body behind a table is as present as a whole one.
    """
    half = (confidence.shape[1] + 1) // 2
    return np.asarray(np.sort(confidence, axis=1)[:, -half:].mean(1))


def distinct(found: Observed, sigmas: Floats, threshold: float) -> Observed:
    """Each pose once: those whose OKS with a better one is above `threshold` are not their person's own, as
    RTMPose has it on every frame. Better is who has the greatest product of box score, presence and fit: in a
    crossing two boxes show the person in front, and its own is the one that frames it.
    """
    posed = np.flatnonzero(found.posed)
    if len(meeting(found.box[posed])[0]):
        poses = np.concatenate([found.points, found.confidence[..., None]], -1)[posed]
        ranks = (found.box_score * found.presence * np.maximum(found.fit, LEAST_FIT))[posed]
        kept = oks_nms(poses, ranks, areas(found.box[posed]), sigmas.tolist(), threshold)
        own = np.zeros(len(found), bool)
        own[posed[kept]] = True
        found.posed = own
    return found
