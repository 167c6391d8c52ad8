"""How mannequins move through a film: ways over the ground, a gait, and standing still.

A way is planned once from a seed, on a fine grid of times that does not depend on the frame rate: a film at
60 frames/s shows the same people as one at 15. Metres, degrees, seconds; the world of `body`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rtmpose.data.mannequins import body as anatomy
from rtmpose.data.mannequins.body import SIDES, Array, Camera, Pose

RATE = 60  # grid points/s of a planned way
EASE = 0.5  # s over which a person starts, stops and turns
STRIDE = 1.35  # m of two steps
APART = 0.65  # m that two people keep from each other, where they can
TRIES = 30  # ways drawn, of which the first that keeps `APART` is taken
LEAVING = 0.25  # share of the ways that end beside the picture
SHARES = (0.85, 0.33)  # of the picture's height that a person fills at the near and the far end of the ground


@dataclass(frozen=True)
class Ground:
    """The part of the floor that people use: z from `far` to `near` (both negative), and the camera's view
    of it.
    """

    near: float
    far: float
    slope: float  # half the width of the view at z is slope * |z|

    @classmethod
    def before(cls, camera: Camera) -> Ground:
        """Where an adult fills between `SHARES` of the picture's height."""
        near, far = (-camera.focal * 1.75 / (share * camera.size[1]) for share in SHARES)
        return cls(near, far, camera.size[0] / 2 / camera.focal)

    def inside(self, rng: np.random.Generator) -> Array:
        """A random place (x, z) in view."""
        z = rng.uniform(self.far, self.near)
        return np.array([rng.uniform(-0.85, 0.85) * self.slope * abs(z), z])

    def outside(self, rng: np.random.Generator) -> Array:
        """A random place (x, z) beside the view."""
        z = rng.uniform(self.far, self.near)
        return np.array([rng.choice([-1.0, 1.0]) * (self.slope * abs(z) + 0.9), z])

    def shows(self, place: Array) -> bool:
        return bool(abs(place[0]) < self.slope * abs(place[1]))


@dataclass(frozen=True)
class Moment:
    """Where one person is at one time, and how far its gait has gone."""

    place: Array  # (2,) x, z m
    yaw: float  # 0 looks into the camera
    phase: float  # rad; a full turn is two steps
    swing: float  # 0 stands still … 1 walks


@dataclass(frozen=True, eq=False)
class Way:
    """One person's way through a film of n grid points, `RATE` of them a second."""

    place: Array  # (n, 2) x, z m
    yaw: Array  # (n,)
    phase: Array  # (n,)
    swing: Array  # (n,)

    def at(self, time: float) -> Moment:
        """The moment at `time` s, between grid points by straight lines; the last one after the end."""
        grid = np.arange(len(self.yaw)) / RATE
        x, z, yaw, phase, swing = (
            float(np.interp(time, grid, values))
            for values in (self.place[:, 0], self.place[:, 1], self.yaw, self.phase, self.swing)
        )
        return Moment(np.array([x, z]), yaw, phase, swing)


def plan_ways(rng: np.random.Generator, people: int, seconds: float, ground: Ground) -> list[Way]:
    """A way for each person; later ones keep away from earlier ones where they find room."""
    places: list[Array] = []
    ways = []
    for _ in range(people):
        place, facing = _legs(rng, int(np.ceil(seconds * RATE)) + 2, ground, places)
        places.append(place)
        ways.append(_eased(place, facing))
    return ways


def _legs(
    rng: np.random.Generator, length: int, ground: Ground, others: Sequence[Array]
) -> tuple[Array, Array]:
    """Places (length, 2) of straight walks and stops, and where the person looks (length,), before easing."""
    place, facing = np.empty((length, 2)), np.empty(length)
    here = max((ground.inside(rng) for _ in range(TRIES)), key=lambda at: _room(at[None], others, 0))
    done, stands = 0, rng.random() < 0.5
    while done < length:
        if stands:
            seconds = rng.uniform(1.0, 3.0) if ground.shows(here) else rng.uniform(0.3, 1.5)
            steps = np.repeat(here[None], max(round(seconds * RATE), 1), 0)
            looks = float(rng.normal(0, 45))
        else:
            steps, looks = _walk(rng, here, ground, others, done)
        steps = steps[: length - done]
        place[done : done + len(steps)], facing[done : done + len(steps)] = steps, looks
        done, here = done + len(steps), steps[-1]
        stands = not stands and (rng.random() < 0.6 or not ground.shows(here))
    return place, facing


def _walk(
    rng: np.random.Generator, here: Array, ground: Ground, others: Sequence[Array], start: int
) -> tuple[Array, float]:
    """A straight walk from `here` (steps, 2), and its direction; people beside the picture come back."""
    best, most = np.empty((0, 2)), -1.0
    for _ in range(TRIES):
        leaves = ground.shows(here) and rng.random() < LEAVING
        target = ground.outside(rng) if leaves else ground.inside(rng)
        distance, speed = float(np.linalg.norm(target - here)), rng.uniform(0.8, 1.7)
        if distance < 1.0:
            continue
        shares = np.linspace(0, 1, max(round(distance / speed * RATE), 2))[1:, None]
        steps = here + shares * (target - here)
        room = _room(steps, others, start)
        if room > most:
            best, most = steps, room
        if room >= APART:
            break
    if most < 0:  # no target was far enough: the ground is tiny
        best = np.repeat(here[None], RATE, 0)
    x, z = best[-1] - here
    return best, float(np.rad2deg(np.arctan2(x, z)))


def _room(steps: Array, others: Sequence[Array], start: int) -> float:
    """The least distance m from `steps`, begun at grid point `start`, to where the others are then."""
    least = np.inf
    for other in others:
        then = other[start : start + len(steps)]
        least = min(least, float(np.linalg.norm(steps[: len(then)] - then, axis=1).min(initial=np.inf)))
    return least


def _eased(place: Array, facing: Array) -> Way:
    """A way whose starts, stops and turns take `EASE`; where nothing moves it stays exactly still."""
    smooth = np.stack([_mean(place[:, axis]) for axis in (0, 1)], 1)
    steps = np.linalg.norm(np.diff(smooth, axis=0, prepend=smooth[:1]), axis=1)
    steps[steps < 1e-9] = 0.0
    yaw = _mean(np.unwrap(facing, period=360))
    return Way(smooth, yaw, np.cumsum(steps) / STRIDE * 2 * np.pi, np.clip(steps * RATE / 0.8, 0, 1))


def _mean(values: Array) -> Array:
    """The mean over `EASE` around each grid point, the ends held."""
    half = round(EASE * RATE / 2)
    padded = np.pad(values, half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.where(np.ptp(windows, 1) == 0, values, windows.mean(1))


def standing_pose(rng: np.random.Generator) -> Pose:
    """How a person stands: legs straight, each arm of a family of its own."""
    drawn = anatomy.random_pose(rng, "easy", 0.0)
    legs = {"hip_flex": 2.0, "hip_abduction": 5.0, "hip_twist": 6.0, "knee": 4.0, "ankle": 0.0}
    calm = {name for name in drawn.trunk if name.startswith("spine")}
    trunk = {name: value * (0.5 if name in calm else 1.0) for name, value in drawn.trunk.items()}
    limbs = {side: {**drawn.limbs[side], **legs} for side in SIDES}
    return Pose(trunk, limbs, "standing", 0.0, 0.0, 0.0)


def pose_at(standing: Pose, moment: Moment) -> Pose:
    """The pose of a moment: the standing pose, and the gait as far as the person walks.

    The hip swings like a cosine, the knee bends while the foot is in the air, and each arm swings against
    its leg.
    """
    share = moment.swing
    limbs: dict[str, Mapping[str, float]] = {}
    for side, ahead in zip(SIDES, (0.0, np.pi), strict=True):
        cosine, sine = np.cos(moment.phase + ahead), np.sin(moment.phase + ahead)
        forward, aside = -24.0 * cosine, 9.0
        gait = {
            "hip_flex": 4 + 25 * cosine,
            "knee": 6 + 8 * max(sine, 0.0) ** 2 + 52 * max(-sine, 0.0) ** 1.5,
            "ankle": 16 * max(-cosine, 0.0) - 4,
            "shoulder_plane": float(np.rad2deg(np.arctan2(forward, aside))),
            "shoulder_elevation": float(np.hypot(forward, aside)),
            "shoulder_twist": 0.0,
            "elbow": 22 + 0.4 * forward,
        }
        still = standing.limbs[side]
        limbs[side] = {
            name: (1 - share) * value + share * float(gait.get(name, value)) for name, value in still.items()
        }
    return Pose(standing.trunk, limbs, "standing", moment.yaw, 2.0 * share, 0.0)
