"""Walking people whose 17 points are known at every time, and a network that sees them with faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtmpose.descriptors import load_skeleton
from rtmpose.motion.person import Person

Floats = NDArray[np.float64]
COCO17 = load_skeleton("coco17")
SIZE = (1280, 720)
LEFT = np.array([name.startswith("left") for name in COCO17.names])
RIGHT = np.array([name.startswith("right") for name in COCO17.names])
# Height above the feet and distance to the side of the body's middle, as shares of the height.
HEIGHTS = np.array(
    [0.91, 0.93, 0.93, 0.92, 0.92, 0.81, 0.81, 0.63, 0.63, 0.48, 0.48, 0.52, 0.52, 0.28, 0.28, 0.04, 0.04]
)
ASIDE = np.array([0, 0.02, 0.02, 0.045, 0.045, 0.11, 0.11, 0.13, 0.13, 0.13, 0.13, 0.06, 0.06] + [0.06] * 4)
FORWARD = np.array([0.06, 0.05, 0.05, 0.0, 0.0] + [0.0] * 12)
STRIDE = np.array([0.0] * 7 + [0.06, 0.06, 0.14, 0.14, 0, 0, 0.07, 0.07, 0.17, 0.17])  # shares of the height
COUNTER = np.array([0.0] * 7 + [np.pi] * 4 + [0.0] * 6)  # an arm swings against the leg of its side


@dataclass(frozen=True)
class Walker:
    """Somebody who walks across the picture at an even pace."""

    start: tuple[float, float]  # px, between the feet, at time 0
    speed: float = 150.0  # px/s, to the right
    height: float = 300.0  # px
    yaw: float = 90.0  # degrees from facing the camera; 90 shows the side
    steps: float = 0.9  # strides per second
    phase: float = 0.0
    turn: float = 0.0  # degrees per second
    stops: tuple[float, float] = (np.inf, np.inf)  # s, from when to when the person stands

    def points(self, time: float) -> Floats:
        """(17, 2) px."""
        return self._points(time)[0]

    def _points(self, time: float) -> tuple[Floats, Floats]:
        """(17, 2) px, and how far each is in front of the body's middle, seen from the camera, px."""
        walked = min(time, self.stops[0]) + max(time - self.stops[1], 0.0)
        phase = 2 * np.pi * self.steps * walked + self.phase
        swing = np.sin(phase + COUNTER + np.pi * RIGHT)
        forward = FORWARD + STRIDE * swing
        aside = ASIDE * (LEFT.astype(float) - RIGHT)
        yaw = np.radians(self.yaw + self.turn * time)
        across = forward * np.sin(yaw) + aside * np.cos(yaw)
        near = forward * np.cos(yaw) - aside * np.sin(yaw)
        lift = 0.04 * np.clip(np.cos(phase + np.pi * RIGHT), 0, None) * (STRIDE > 0.15)
        x = self.start[0] + self.speed * walked + self.height * across
        y = self.start[1] - self.height * (HEIGHTS + lift)
        return np.stack([x, y], 1), near * self.height


def truth(walker: Walker, times: ArrayLike) -> Floats:
    """(T, 17, 2) px."""
    return np.stack([walker.points(time) for time in np.asarray(times, np.float64).tolist()])


def box_around(points: Floats, margin: float = 0.08) -> Floats:
    """x1, y1, x2, y2 px, as a detector gives it: some way beyond the points."""
    low, high = points.min(0), points.max(0)
    grown = margin * (high - low).max()
    return np.concatenate([low - grown, high + grown])


def person(points: Floats, confidence: float | Floats = 0.9, box_score: float = 0.9) -> Person:
    """Somebody with those points."""
    sure = np.broadcast_to(np.asarray(confidence, np.float64), (len(points),)).copy()
    return Person(box_around(points), points.copy(), sure.copy(), sure, box_score)


@dataclass(frozen=True)
class Scene:
    """Walkers, the later ones nearer to the camera, seen by a detector and a network with faults."""

    walkers: tuple[Walker, ...]
    noise: float = 0.3  # standard deviation of a point, of OKS's own (2 sigma x size)
    box_noise: float = 0.03  # of a box's edges, of its sides
    missed: float = 0.02  # share of visible people whom the detector misses
    swapped: float = 0.0  # share of the poses whose legs or whose whole body have left and right swapped
    wall: tuple[float, float] | None = None  # px, from where to where nobody is seen
    seed: int = 0

    def poses(self, time: float) -> Floats:
        """(N, 17, 2) px, the truth."""
        return np.stack([walker.points(time) for walker in self.walkers])

    def covered(self, points: Floats) -> NDArray[np.bool_]:
        """Which points (N, 17) lie behind somebody nearer, or behind the wall."""
        hidden = np.zeros(points.shape[:2], bool)
        for index, each in enumerate(points):
            for front in points[index + 1 :]:
                low, high = front.min(0), front.max(0)
                low, high = low + 0.12 * (high - low) * (1, 0), high - 0.12 * (high - low) * (1, 0)
                hidden[index] |= ((each > low) & (each < high)).all(1)
            if self.wall is not None:
                hidden[index] |= (each[:, 0] > self.wall[0]) & (each[:, 0] < self.wall[1])
            hidden[index] |= (each[:, 0] < 0) | (each[:, 0] > SIZE[0])
        return hidden

    def detect(self, time: float) -> tuple[Floats, Floats]:
        """Boxes (M, 4) px and scores (M,) of whom a detector finds."""
        rng = np.random.default_rng([self.seed, 1, round(time * 1000)])
        points = self.poses(time)
        hidden = self.covered(points)
        boxes, scores = [], []
        for each, gone in zip(points, hidden, strict=True):
            share = 1 - gone.mean()
            if share < 0.35 or rng.random() < self.missed:
                continue
            shown = box_around(each[~gone]) if share < 0.8 else box_around(each)
            sides = np.tile(shown[2:] - shown[:2], 2)
            boxes.append(shown + self.box_noise * sides * rng.standard_normal(4))
            scores.append(0.5 + 0.4 * share)
        return np.array(boxes).reshape(-1, 4), np.array(scores)

    def look(self, time: float, boxes: Floats, scores: Floats | None = None) -> list[Person]:
        """The pose in each box: of the person whose points it holds best, the nearer of equals."""
        rng = np.random.default_rng([self.seed, 2, round(time * 1000)])
        points = self.poses(time)
        hidden = self.covered(points)
        found = []
        for index, box in enumerate(boxes):
            inside = (points > box[:2]) & (points < box[2:])
            held = (inside.all(-1) & ~hidden).sum(1) + 0.5 * (inside.all(-1) & hidden).sum(1)
            middle = np.abs(points.mean(1) - (box[:2] + box[2:]) / 2).sum(1) / (box[3] - box[1])
            who = int(np.argmax(held - 4 * middle))
            size = np.sqrt((box_around(points[who])[2:] - box_around(points[who])[:2]).prod())
            spread = self.noise * 2 * np.array(COCO17.sigmas) * size * np.where(hidden[who], 3.0, 1.0)
            seen = points[who] + spread[:, None] * rng.standard_normal((17, 2))
            sure = np.where(hidden[who], 0.25, 0.85) + 0.06 * rng.standard_normal(17)
            if held[who] < 3:
                sure = rng.uniform(0.02, 0.25, 17)
            order = self._order(rng)
            sure = np.clip(sure, 0.01, 1.0)[order]
            score = 1.0 if scores is None else float(scores[index])
            found.append(Person(box, seen[order], sure, sure, score))
        return found

    def _order(self, rng: np.random.Generator) -> NDArray[np.intp]:
        order = np.arange(17)
        draw = rng.random()
        if draw < self.swapped:
            first = 0 if draw < self.swapped / 2 else 11
            order[first:] = np.array(COCO17.flip)[first:]
        return order

    def reseeded(self, seed: int) -> Scene:
        return replace(self, seed=seed)


def who_is(found: Person, points: Floats) -> int:
    """Which of the true poses (N, 17, 2) a person shows: the nearest, swapped sides or not."""
    sure = found.confidence >= 0.3
    if not sure.any():
        sure[:] = True
    swapped = points[:, list(COCO17.flip)]
    near = [np.linalg.norm(found.keypoints - each, axis=-1)[:, sure].mean(1) for each in (points, swapped)]
    return int(np.argmin(np.minimum(*near)))


def switches(named: Sequence[dict[int, int]]) -> int:
    """How often a true person (key) gets another identity (value) than the last time, over all frames."""
    last: dict[int, int] = {}
    count = 0
    for frame in named:
        for who, identity in frame.items():
            count += last.get(who, identity) != identity
            last[who] = identity
    return count
