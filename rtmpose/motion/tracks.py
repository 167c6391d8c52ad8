"""What is remembered of each person, as arrays over all people, and where it leads."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from rtmpose.motion.boxes import Bools, Floats, cut_sides, middles, sizes, squared_length
from rtmpose.motion.one_euro import share

Ints = NDArray[np.int64]

BODY_HORIZON = 1.0  # s over which a person's own speed fades
LIMB_HORIZON = 0.1  # s, of a limb's speed against the body: limbs swing
BODY_CUTOFF = 1.0  # Hz, of the body's speed
LIMB_CUTOFF = 2.0  # Hz, of a point's speed
MOST_CHANGE = 2.0  # sizes/s by which a new measurement may differ from the body's speed; more is cut
FEW = 5  # frames before which nothing is cut
SIZE_CUTOFF = 0.5  # Hz, of the size


@dataclass(eq=False)
class Tracks:
    """N people with K points and C chains of limbs; px of the frame, seconds of the video."""

    identity: Ints  # (N,) 0 where nobody has been given one yet
    detections: Ints  # (N,) how many detections found the person
    frames: Ints  # (N,) on how many frames the person was seen
    seen: Floats  # (N,) when last
    live: Bools  # (N,) seen on the last frame
    box: Floats  # (N, 4) as given out last
    margins: Floats  # (N, 4) of the box beyond the points' extent
    size: Floats  # (N,) smoothed
    body: Floats  # (N, 2) px/s, the person's own speed
    points: Floats  # (N, K, 2) as last seen, unsmoothed; those out of sight moved with the body
    velocity: Floats  # (N, K, 2) px/s
    confidence: Floats  # (N, K) as last seen
    point_seen: Floats  # (N, K) when last; -inf for never
    smooth: Floats  # (N, K, 2) the filter's points
    slope: Floats  # (N, K, 2) px/s, the filter's speeds
    doubt: Floats  # (N, C) s

    def __len__(self) -> int:
        return len(self.identity)

    def select(self, rows: Ints | Bools) -> Tracks:
        return Tracks(*(getattr(self, name)[rows] for name in REMEMBERED))

    def joined(self, other: Tracks) -> Tracks:
        return Tracks(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in REMEMBERED))

    def put(self, rows: Ints, new: Tracks) -> None:
        """Write `new` over those rows."""
        for name in REMEMBERED:
            getattr(self, name)[rows] = getattr(new, name)

    def rescaled(self, factor: Floats) -> Tracks:
        """The same people in a frame whose width and height changed by `factor` (2,)."""
        in_px = ("body", "points", "velocity", "smooth", "slope")
        changed = {name: getattr(self, name) * factor for name in in_px}
        changed |= {"box": self.box * np.tile(factor, 2), "size": self.size * np.sqrt(factor.prod())}
        return replace(self, **changed)


REMEMBERED = tuple(each.name for each in fields(Tracks))


def nobody(points: int, chains: int) -> Tracks:
    """No people, of that many points and chains."""
    return begun(
        np.zeros((0, points, 2)), np.zeros((0, points)), np.zeros((0, points), bool), np.zeros((0, 4)),
        np.zeros((0, 4)), np.zeros(0), chains, 0.0,
    )  # fmt: skip


def begun(
    points: Floats,
    confidence: Floats,
    shown: Bools,
    boxes: Floats,
    margins: Floats,
    size: Floats,
    chains: int,
    time: float,
) -> Tracks:
    """N new people as they were first seen, at rest and without an identity."""
    count = len(points)
    return Tracks(
        identity=np.zeros(count, np.int64),
        detections=np.ones(count, np.int64),
        frames=np.ones(count, np.int64),
        seen=np.full(count, time),
        live=np.ones(count, bool),
        box=boxes.copy(),
        margins=margins.copy(),
        size=size.copy(),
        body=np.zeros((count, 2)),
        points=points.copy(),
        velocity=np.zeros_like(points),
        confidence=confidence.copy(),
        point_seen=np.where(shown, time, -np.inf),
        smooth=points.copy(),
        slope=np.zeros_like(points),
        doubt=np.zeros((count, chains)),
    )


def travelled(elapsed: Floats, horizon: float) -> Floats:
    """Seconds of full speed that lie in `elapsed` seconds of a speed that fades over `horizon` seconds."""
    return horizon * -np.expm1(-elapsed / horizon)


def drift(tracks: Tracks, time: float) -> Floats:
    """How far each body went since it was seen, (N, 2) px."""
    return tracks.body * travelled(time - tracks.seen, BODY_HORIZON)[:, None]


def unposed(tracks: Tracks, time: float) -> Floats:
    """For how long no point of each was seen, (N,) s; inf where none ever was."""
    return np.asarray(time - tracks.point_seen.max(1))


def expected(tracks: Tracks, shift: Floats, time: float) -> Floats:
    """Where the points are, (N, K, 2) px, of bodies that went by `shift` (N, 2): see `drift`."""
    own = (tracks.velocity - tracks.body[:, None]) * travelled(time - tracks.seen, LIMB_HORIZON)[
        :, None, None
    ]
    return tracks.points + shift[:, None] + own


def felt(tracks: Tracks, boxes: Floats, time: float) -> Tracks:
    """The same people after a detector found their boxes (N, 4) alone: everything goes along with the box,
    and no pose was seen.
    """
    by = middles(boxes) - middles(tracks.box)
    return replace(
        tracks,
        seen=np.full(len(tracks), time),
        box=boxes,
        points=tracks.points + by[:, None],
        smooth=tracks.smooth + by[:, None],
    )


def grown(tracks: Tracks, time: float, picture: tuple[int, int]) -> Floats:
    """The sizes (N,) after new boxes at `time`. Whom the picture's border cuts is at least as large as what
    is seen.
    """
    now = sizes(tracks.box)
    smooth = tracks.size + share(SIZE_CUTOFF, time - tracks.seen) * (now - tracks.size)
    narrowed, shortened = cut_sides(tracks.box, picture)
    return np.where(narrowed | shortened, np.maximum(tracks.size, now), smooth)


def body_step(points: Floats, before: Floats, usable: Bools, fallback: Floats) -> Floats:
    """How far each body moved, (N, 2): the median step of the points (N, K, 2) that are `usable` (N, K) in
    both frames. The others count as having taken the `fallback` (N, 2): few points say little.
    """
    steps = np.where(usable[..., None], points - before, fallback[:, None])
    middle = steps.shape[1] // 2
    ordered = np.sort(steps, axis=1)
    return np.asarray((ordered[:, middle] + ordered[:, -1 - middle]) / 2)


def speeds(tracks: Tracks, points: Floats, shown: Bools, time: float) -> tuple[Floats, Floats]:
    """Speeds of bodies (N, 2) and points (N, K, 2), px/s, after `points` (N, K, 2) were seen at `time`."""
    elapsed = time - tracks.seen
    some = elapsed > 0
    rate = np.where(some, 1 / np.where(some, elapsed, 1.0), 0.0)
    usable = shown & (tracks.point_seen == tracks.seen[:, None])
    step = body_step(points, tracks.points, usable, tracks.body * elapsed[:, None])
    taken = _gain(BODY_CUTOFF, elapsed, tracks.frames)[:, None]
    change = step * rate[:, None] - tracks.body
    limit = np.where(tracks.frames < FEW, np.inf, MOST_CHANGE) * tracks.size
    length = np.maximum(np.sqrt(squared_length(change)), np.spacing(1.0))
    body = tracks.body + taken * np.minimum(1.0, limit / length)[:, None] * change
    measured = (points - tracks.points) * rate[:, None, None]
    taken = _gain(LIMB_CUTOFF, elapsed, tracks.frames)[:, None, None]
    velocity = tracks.velocity + taken * (measured - tracks.velocity)
    return body, np.where(usable[..., None], velocity, body[:, None])


def _gain(cutoff: float, elapsed: Floats, frames: Ints) -> Floats:
    """How much of a measured speed is taken over: the plain mean of the first few, then a low-pass."""
    return np.where(elapsed > 0, np.maximum(share(cutoff, elapsed), 1 / frames), 0.0)
