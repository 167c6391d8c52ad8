"""Poses of a video over time: when to detect, in which boxes to take poses, who is who, and steady points.

RTMPose's pipeline for videos (arXiv 2303.07399, section 3.5): people are detected on every K-th frame, and
between two detections the boxes follow from the last poses; poses that are there twice are removed, and
points are smoothed by the One-Euro filter. Identities and the repair of swapped sides are built on the same
memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rtmpose.files import UserError
from rtmpose.motion import sides, tracks
from rtmpose.motion.boxes import (
    MARGIN_GAIN,
    Bools,
    Floats,
    areas,
    carried,
    clipped,
    margins_of,
    moved,
    paired_overlaps,
    sizes,
    with_margins,
)
from rtmpose.motion.identity.association import FRAMED, Ints, associate
from rtmpose.motion.identity.likeness import Body, Moment
from rtmpose.motion.observed import Observed, distinct, observe
from rtmpose.motion.one_euro import filtered
from rtmpose.motion.options import TrackOptions
from rtmpose.motion.person import Person
from rtmpose.motion.schedule import Schedule
from rtmpose.skeleton import Skeleton

__all__ = ["PoseTracker", "TrackCounts", "TrackOptions"]

logger = logging.getLogger(__name__)

UNKNOWN_SIGMA = 0.07  # spread of OKS for the points of a skeleton that comes without


@dataclass
class TrackCounts:
    """What happened since the tracker was made."""

    frames: int = 0
    skipped: int = 0  # frames that could not be decoded
    detections: int = 0
    persons: int = 0  # poses of known people, over all frames
    swapped: int = 0  # those of them that had swapped limbs
    repaired: int = 0  # those of them that were repaired; the others keep their sides until doubt decides
    left_out: int = 0  # poses that were no numbers, too unsure, there twice, or of somebody shown already
    resets: int = 0  # times that the video went back


class PoseTracker:
    """The state of one video. For each frame call `boxes`, take poses, then call `update`; for a frame that
    cannot be decoded call `skipped`.
    """

    def __init__(self, skeleton: Skeleton, options: TrackOptions | None = None) -> None:
        self.skeleton = skeleton
        self.options = options or TrackOptions()
        self.counts = TrackCounts()
        sigmas = np.array(skeleton.sigmas or (UNKNOWN_SIGMA,) * skeleton.num_keypoints, np.float64)
        self._body = Body(sigmas, np.array(skeleton.flip, np.intp))
        self._chains = sides.chains_of(skeleton)
        self._named = 0  # identities given so far; none is given twice
        self._forget()

    def _forget(self) -> None:
        self._tracks = tracks.nobody(self.skeleton.num_keypoints, self._chains.count)
        self._schedule = Schedule()
        self._time: float | None = None
        self._size: tuple[int, int] | None = None

    def boxes(self, time: float, size: tuple[int, int]) -> Floats | None:
        """The boxes (N, 4) x1, y1, x2, y2 px to take poses in on the frame of `size` (w, h) at `time` s;
        None where the detector must run. Nobody in sight gives (0, 4) until the next detection.

        UserError for a time or a size that is none.
        """
        self._arrive(time, size)
        if self._schedule.due(self.options.every):
            return None
        known = self._tracks
        boxes = clipped(moved(known.box, tracks.drift(known, time))[known.live], size)
        return boxes[areas(boxes) > 0]

    def skipped(self, time: float) -> None:
        """A frame that could not be decoded: nobody is lost by it, and it counts for the next detection."""
        self._arrive(time, self._size)
        self._schedule = self._schedule.after(detected=False, lost=False)
        self.counts.skipped += 1

    def update(
        self, persons: Sequence[Person], time: float, size: tuple[int, int], detected: bool
    ) -> list[Person]:
        """The people of the frame at `time` s of `size` (w, h): with identities, steady, sides repaired, each
        once, in the order in which they came.

        Args:
            persons: poses in the detector's boxes where `detected`, else in those that `boxes` gave. Who is
            new is believed on frames with a detection only.
        """
        self._arrive(time, size)
        self.counts.frames += 1
        self.counts.detections += detected
        found = observe(persons, self.skeleton.num_keypoints, size, self.options)
        found = distinct(found, self._body.sigmas, self.options.duplicate)
        if not detected:
            found = found.select(found.posed)
        self._forget_old(time)
        now = Moment(time, size, detected)
        pairs = associate(self._tracks, found, now, self._body, self.options)
        self.counts.left_out += len(persons) - len(pairs.columns) - len(pairs.new)
        was_live = self._tracks.live.copy()
        self._tracks.live[:] = False
        same = len(pairs.columns) == len(found) and in_order(pairs.columns)
        continuing = found if same else found.select(pairs.columns)
        given = self._continue(pairs.rows, continuing, pairs.borrowed(), now)
        lost = bool((was_live & ~self._tracks.live).any())
        if len(pairs.felt):
            self._tracks.put(
                pairs.felt, tracks.felt(self._tracks.select(pairs.felt), found.box[pairs.boxes], now.time)
            )
        if detected and len(pairs.new):
            given += self._begin(found.select(pairs.new), time)
        if detected:
            self._forget_unsure()
        self._schedule = self._schedule.after(detected=detected, lost=lost)
        return [person for _, person in sorted(given, key=lambda pair: pair[0])]

    def _arrive(self, time: float, size: tuple[int, int] | None) -> None:
        """Make the state fit the frame: forget all where the video went back, follow a change of size."""
        if not math.isfinite(time):
            raise UserError(f"time: is {time}; give the frame's time stamp in seconds")
        if size is not None and not (len(size) == 2 and all(side > 0 for side in size)):
            raise UserError(f"size: is {size}; give the frame's width and height in px")
        if self._time is not None and time < self._time:
            logger.warning("the video goes back from %.3f s to %.3f s: people get new identities",
                           self._time, time)  # fmt: skip
            self._forget()
            self.counts.resets += 1
        if self._time is not None and time - self._time > self.options.stale:
            self._schedule = self._schedule.at_once()
        if self._size is not None and size is not None and size != self._size:
            self._tracks = self._tracks.rescaled(np.asarray(size, np.float64) / self._size)
            self._schedule = self._schedule.at_once()
        self._time, self._size = time, size or self._size

    def _continue(
        self, rows: Ints, found: Observed, borrowed: Bools, now: Moment
    ) -> list[tuple[int, Person]]:
        """Take the found people over into their tracks, and give them out."""
        if not len(rows):
            return []
        everyone = len(rows) == len(self._tracks) and in_order(rows)
        known = self._tracks if everyone else self._tracks.select(rows)
        time = now.time
        shift = tracks.drift(known, time)
        if self.options.sides and self._chains.count:
            self._repair(known, found, shift, time)
        shown = found.confidence >= self.options.visible
        known.body, known.velocity = tracks.speeds(known, found.points, shown, time)
        self._smoothe(known, found.points, shown, shift, time)
        known.points = np.where(shown[..., None], found.points, known.points + shift[:, None])
        known.confidence = found.confidence
        self._frame(known, found, borrowed, shift, now)
        known.size = tracks.grown(known, now.time, now.size)
        known.point_seen = np.where(shown, time, known.point_seen)
        known.seen = np.full(len(rows), time)
        known.live = np.ones(len(rows), bool)
        known.detections = known.detections + now.detected
        known.frames = known.frames + 1
        self._name(known, known.detections >= self.options.confirm)
        if not everyone:
            self._tracks.put(rows, known)
        self.counts.persons += len(rows)
        return _given(found, known, shown, self.options.smooth)

    def _repair(self, known: tracks.Tracks, found: Observed, shift: Floats, time: float) -> None:
        """Swap the sides of found people back, or those of their past where it was wrong for long."""
        places = tracks.expected(known, shift, time)
        swap = sides.swapped(found.points, places, found.confidence, known.size, self._chains)
        if not swap.any() and not known.doubt.any():
            return
        mend, known.doubt = sides.believed(swap, known.doubt, tracks.unposed(known, time), self.options.doubt)
        every = np.arange(len(found))[:, None]
        take = sides.sources(mend, self._chains, self._body.flip)
        for name in ("points", "confidence", "scores"):
            setattr(found, name, getattr(found, name)[every, take])
        take = sides.sources(swap & ~mend, self._chains, self._body.flip)
        for name in ("points", "velocity", "confidence", "point_seen", "smooth", "slope"):
            setattr(known, name, getattr(known, name)[every, take])
        self.counts.swapped += int(swap.any(1).sum())
        self.counts.repaired += int((swap.any(1) & (swap == mend).all(1)).sum())

    def _smoothe(
        self, known: tracks.Tracks, points: Floats, shown: Bools, shift: Floats, time: float
    ) -> None:
        """One step of the filter, in a frame of reference that goes along with the body: so only what a limb
        does against the body is smoothed, and a walk as such does not lag.
        """
        away = time - known.point_seen
        anew = shown & (away > self.options.hidden)
        elapsed = np.where(shown & ~anew, away, 0.0)
        options = self.options
        smooth, slope = filtered(
            known.smooth + shift[:, None], known.slope, points, elapsed, known.size, cutoff=options.cutoff,
            beta=options.beta, speed_cutoff=options.speed_cutoff,
        )  # fmt: skip
        known.smooth = np.where(anew[..., None], points, smooth)
        known.slope = np.where(anew[..., None], 0.0, slope)

    def _frame(
        self, known: tracks.Tracks, found: Observed, borrowed: Bools, shift: Floats, now: Moment
    ) -> None:
        """The box of each person: the detector's, or around the points as its last one was. A detector's box
        that is `borrowed`, or does not continue the person's, is another's, in which the network has shown
        this one.
        """
        extent = found.extent
        framed = ~np.isnan(extent[:, 0])
        from_points = with_margins(extent, known.margins)
        if now.detected:
            instead = carried(known.box, shift, now.size)
            fit = paired_overlaps(found.box, instead)
            other = framed & (borrowed | (fit < FRAMED))
            other[other] = paired_overlaps(from_points[other], instead[other]) > fit[other]
            margins = margins_of(np.where(framed[:, None], extent, found.box), found.box)
            margins = known.margins + MARGIN_GAIN * (margins - known.margins)
            known.margins = np.where((framed & ~other)[:, None], margins, known.margins)
            known.box = np.where(other[:, None], from_points, found.box)
        else:
            known.box = np.where(framed[:, None], from_points, moved(known.box, shift))

    def _begin(self, found: Observed, time: float) -> list[tuple[int, Person]]:
        """New people; those that are confident enough get an identity at once."""
        shown = found.confidence >= self.options.visible
        framed = ~np.isnan(found.extent[:, :1])
        margins = margins_of(np.where(framed, found.extent, found.box), found.box)
        margins = np.where(framed, margins, (self.options.padding - 1) / 2)
        new = tracks.begun(
            found.points,
            found.confidence,
            shown,
            found.box,
            margins,
            sizes(found.box),
            self._chains.count,
            time,
        )
        self._name(new, (found.box_score >= self.options.confident) | (self.options.confirm == 1))
        self._tracks = self._tracks.joined(new)
        return _given(found, new, shown, self.options.smooth)

    def _name(self, known: tracks.Tracks, sure: Bools) -> None:
        nameless = np.flatnonzero(sure & (known.identity == 0))
        known.identity[nameless] = self._named + 1 + np.arange(len(nameless))
        self._named += len(nameless)

    def _forget_unsure(self) -> None:
        """Forget whom a first detection was not sure of and the next one did not find."""
        kept = self._tracks.live | (self._tracks.identity > 0)
        if not kept.all():
            self._tracks = self._tracks.select(kept)

    def _forget_old(self, time: float) -> None:
        """Forget who was out of sight for longer than the memory lasts."""
        kept = time - self._tracks.seen <= self.options.memory
        if not kept.all():
            self._tracks = self._tracks.select(kept)


def in_order(rows: Ints) -> bool:
    """Whether `rows` are 0, 1, 2 …: then all are meant as they stand, and nothing need be copied."""
    return bool((rows == np.arange(len(rows))).all())


def _given(found: Observed, known: tracks.Tracks, shown: Bools, smooth: bool) -> list[tuple[int, Person]]:
    """The people that have an identity, each with the place at which it came in."""
    points = np.where(shown[..., None], known.smooth, found.points) if smooth else found.points
    return [
        (
            int(found.index[i]),
            Person(
                known.box[i].copy(), points[i].copy(), found.scores[i].copy(), found.confidence[i].copy(),
                float(found.box_score[i]), int(known.identity[i]),
            ),
        )
        for i in np.flatnonzero(known.identity > 0)
    ]  # fmt: skip
