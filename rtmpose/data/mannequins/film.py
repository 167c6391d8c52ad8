"""Films of mannequins with known truth: who is who, where each point is, and whether it is seen.

People walk, cross before and behind each other, leave the picture and come back, and stand still for a while
(`walk`). A frame depends on the options and its own time alone, so that frames can be drawn in any order and
by any number of processes, and the same seed at another frame rate or size shows the same people.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins import body as anatomy
from rtmpose.data.mannequins import render, walk
from rtmpose.data.mannequins.backdrop import exposed, random_backdrop
from rtmpose.data.mannequins.body import Array, Camera, Pose, Proportions
from rtmpose.data.mannequins.figure import Look, Parts, add_person
from rtmpose.data.mannequins.points import labelled_points
from rtmpose.data.mannequins.render import SUPERSAMPLING, Image
from rtmpose.data.mannequins.scene import (
    LEAST_AREA,
    Actor,
    Layer,
    Person,
    cast_shadows,
    describe,
    nearest_layers,
    random_look,
    trace_actor,
)
from rtmpose.files import UserError

LEAST_SEEN = 0.1  # share of a person's silhouette in the picture that must be seen for it to be labelled
LEVELS = ("easy", "hard")
Traced = list[tuple[int, Layer]]


@dataclass(frozen=True)
class FilmOptions:
    """What a film is drawn from; `level` is that of backgrounds and clothes, as in `render_dataset`."""

    people: int = 8
    seconds: float = 10.0
    fps: float = 30.0
    size: tuple[int, int] = (960, 540)  # w, h px
    seed: int = 0
    level: str = "easy"

    def __post_init__(self) -> None:
        if self.people < 1 or self.seconds <= 0 or self.fps <= 0 or self.seed < 0:
            raise UserError(
                f"film: people={self.people}, seconds={self.seconds:g}, fps={self.fps:g}, seed={self.seed}; "
                "give at least one person, a length and a rate above 0, and a seed of 0 or more"
            )
        if min(self.size) < 64 or self.size[0] % 2 or self.size[1] % 2:
            raise UserError(f"film: size={tuple(self.size)}; give even numbers of at least 64 px")
        if self.level not in LEVELS:
            raise UserError(f"film: unknown level {self.level!r}; use one of {', '.join(LEVELS)}")


@dataclass(frozen=True)
class Filmed:
    """One person of one frame, and who it is: the same number in all frames, also after it was away."""

    identity: int  # from 1
    person: Person
    seen: float  # share of its silhouette in the picture that nobody covers

    @property
    def xyxy(self) -> Array:
        """The box of the whole silhouette, x1, y1, x2, y2 px, clipped to the picture."""
        x, y, w, h = self.person.box
        return np.array([x, y, x + w, y + h])


@dataclass(frozen=True)
class FilmFrame:
    """A frame and all people of whom at least `LEAST_SEEN` is seen, by identity."""

    index: int
    time: float  # s
    image: Image  # (h, w, 3) RGB
    persons: list[Filmed]


@dataclass(frozen=True)
class _Cast:
    """What stays the same of a person in all frames."""

    body: Proportions
    look: Look
    pose: Pose
    way: walk.Way


class Film:
    """A film that `frame` draws, or of which `truth` gives the labels alone, faster."""

    def __init__(self, options: FilmOptions) -> None:
        self.options = options
        # streams of their own: another size shows the same people, dressed alike, on the same ways
        plan, paint, wear = (np.random.default_rng([options.seed, stream]) for stream in (11, 12, 14))
        w, h = options.size
        self.camera = Camera(np.array([0.0, 1.6, 0.0]), 7.0, 1.35 * h, (w, h))
        self.canvas, backdrop = random_backdrop(paint, options.level, self.camera)
        lamp = np.array([paint.uniform(-0.7, 0.7), paint.uniform(-0.9, -0.3), -paint.uniform(0.5, 1.0)])
        self.lamp = lamp / np.linalg.norm(lamp)
        ways = walk.plan_ways(plan, options.people, options.seconds, walk.Ground.before(self.camera))
        self.cast = []
        for way in ways:
            body = anatomy.random_proportions(plan)
            look = random_look(wear, options.level, backdrop, body.bust)
            self.cast.append(_Cast(body, look, walk.standing_pose(plan), way))

    def __len__(self) -> int:
        """The number of frames."""
        return max(round(self.options.seconds * self.options.fps), 1)

    def time(self, index: int) -> float:
        """When frame `index` was taken, s."""
        return index / self.options.fps

    def truth(self, index: int) -> list[Filmed]:
        """The people of frame `index`, as `frame` has them, without drawing it."""
        return self._described(*self._traced(self.time(index)))

    def frame(self, index: int) -> FilmFrame:
        """Frame `index`, drawn."""
        traced, nearest = self._traced(self.time(index))
        canvas = self.canvas.copy()
        cast_shadows(canvas, [layer for _, layer in traced], self.camera)
        large = cv2.resize(canvas, None, fx=SUPERSAMPLING, fy=SUPERSAMPLING, interpolation=cv2.INTER_LINEAR)
        for (_, layer), mask in zip(traced, nearest, strict=True):
            shown = np.where(mask, layer.number, np.int16(-1))
            window = large[layer.quadrics.window]
            render.shade(layer.quadrics, self.camera, layer.inverse_depth, shown, window, self.lamp)
        small = cv2.resize(large, self.options.size, interpolation=cv2.INTER_AREA)
        noise = np.random.default_rng([self.options.seed, 13, index])
        image = exposed(noise, "easy", small)  # a lens that is now sharp and now not is no film's
        return FilmFrame(index, self.time(index), image, self._described(traced, nearest))

    def _actor(self, member: _Cast, time: float) -> Actor:
        moment = member.way.at(time)
        pose = walk.pose_at(member.pose, moment)
        frames = anatomy.solve(pose, member.body)
        points = labelled_points(frames, pose, member.body)
        parts = Parts()
        add_person(parts, frames, points, member.body, member.look)
        # the sole is a little below the lowest labelled point
        rise = 0.012 * member.body.height - points[:, 1].min()
        offset = np.array([moment.place[0], rise, moment.place[1]])
        solids = parts.solids().moved(offset)
        boxes = render.bounds(solids, self.camera).boxes(self.camera)
        box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
        return Actor(solids, box, points + offset, member.body.height * member.body.girth, pose.yaw)

    def _traced(self, time: float) -> tuple[Traced, list[NDArray[np.bool_]]]:
        """Everybody who touches the picture, with the identity, and where each of them is nearest."""
        w, h = self.options.size
        traced = []
        for identity, member in enumerate(self.cast, start=1):
            actor = self._actor(member, time)
            x0, y0, x1, y1 = actor.box.tolist()
            if x1 > 0 and y1 > 0 and x0 < w - 1 and y0 < h - 1:
                traced.append((identity, trace_actor(actor, self.camera)))
        nearest = nearest_layers([layer for _, layer in traced], self.camera)
        return traced, nearest

    def _described(self, traced: Traced, nearest: list[NDArray[np.bool_]]) -> list[Filmed]:
        found = []
        for (identity, layer), mask in zip(traced, nearest, strict=True):
            mine = layer.own & mask
            shown = int(np.count_nonzero(mine))
            seen = shown / max(layer.silhouette, 1)
            if shown > LEAST_AREA * SUPERSAMPLING**2 and seen >= LEAST_SEEN:
                found.append(Filmed(identity, describe(layer, mine, self.camera), seen))
        return found
