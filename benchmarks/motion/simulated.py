"""A detector and a pose network that look at a film's truth, with the faults that real ones have.

Boxes shake, people are missed, most of all where others cover them, and some boxes hold nobody. Points
shake, hidden ones more; who is nearly covered gets the pose of the person in front for a while; left and
right are swapped now and then. A network sees nearly the same picture twice and errs alike: most of the
shaking lasts for a second, some for 0.15 s, and a twentieth of its variance is white. All of it is
drawn on a grid of times, so that a film at 15 frames/s has the very faults of one at 60.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins.film import Film, FilmOptions
from rtmpose.descriptors import load_skeleton
from rtmpose.motion.person import Person

Floats = NDArray[np.float64]
COCO17 = load_skeleton("coco17")
GRID = 60.0  # frames/s of the truth; other rates take every n-th of them


@dataclass(frozen=True)
class Faults:
    """How bad the detector and the network are."""

    points: float = 0.35  # standard deviation of a seen point, of OKS's
    hidden: float = 3.0  # times that, of a hidden point
    box: float = 0.03  # standard deviation of a box's edges, of its sides
    missed: float = 0.03  # share of the people who are missed though they are seen
    false: float = 0.15  # boxes a frame that hold nobody
    swapped: float = 0.02  # share of the poses with left and right swapped
    taken: float = 0.7  # how likely somebody who is all covered gets the pose in front


@dataclass(frozen=True, eq=False)
class Truth:
    """The N people of one frame."""

    identity: NDArray[np.int64]  # (N,)
    boxes: Floats  # (N, 4) xyxy px
    points: Floats  # (N, 17, 2) px
    visible: NDArray[np.int64]  # (N, 17), as COCO has them
    seen: Floats  # (N,) share of the silhouette
    area: Floats  # (N,) px seen


def _truth(options: FilmOptions, first: int, last: int) -> list[Truth]:
    film = Film(options)
    return [_frame(film, index) for index in range(first, last)]


def _frame(film: Film, index: int) -> Truth:
    found = film.truth(index)
    return Truth(
        np.array([each.identity for each in found], np.int64),
        np.array([each.xyxy for each in found]).reshape(-1, 4),
        np.array([each.person.points[:17] for each in found]).reshape(-1, 17, 2),
        np.array([each.person.visible[:17] for each in found], np.int64).reshape(-1, 17),
        np.array([each.seen for each in found]),
        np.array([each.person.area for each in found]),
    )


def film_truth(options: FilmOptions) -> list[Truth]:
    """The truth of all frames of a film, on all cores."""
    count, cores = len(Film(options)), os.cpu_count() or 1
    edges = np.linspace(0, count, cores + 1).round().astype(int).tolist()
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = pool.map(_truth, [options] * cores, edges[:-1], edges[1:])
        return [frame for part in parts for frame in part]


def lasting(rng: np.random.Generator, shape: tuple[int, ...], seconds: float) -> Floats:
    """Normal noise along the first axis, at `GRID`, that forgets itself over `seconds`."""
    keep = np.exp(-1 / (seconds * GRID))
    noise = rng.standard_normal(shape)
    for index in range(1, len(noise)):
        noise[index] = keep * noise[index - 1] + np.sqrt(1 - keep**2) * noise[index]
    return noise


def _shaking(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """A network's noise of variance 1: mostly it errs for a while, a twentieth is white."""
    slow, fast = lasting(rng, shape, 1.0), lasting(rng, shape, 0.15)
    return np.sqrt(0.7) * slow + np.sqrt(0.25) * fast + np.sqrt(0.05) * rng.standard_normal(shape)


@dataclass(eq=False)
class Simulated:
    """What a detector and a pose network see of a film whose truth is given at `GRID` frames/s."""

    frames: list[Truth]
    size: tuple[int, int]
    seed: int
    people: int
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 21])
        shape = (len(self.frames), self.people + 1)
        self._points = _shaking(rng, (*shape, 17, 2))
        self._boxes = _shaking(rng, (*shape, 4))
        self._taken, self._swapped = lasting(rng, shape, 0.3), lasting(rng, shape, 0.08)
        self._chance = rng.random(shape)
        self._confidence = rng.standard_normal((*shape, 17))

    def detect(self, index: int) -> tuple[Floats, Floats]:
        """Boxes (M, 4) xyxy px and scores (M,), best first."""
        truth, faults = self.frames[index], self.faults
        rng = np.random.default_rng([self.seed, 22, index])
        missed = faults.missed + 0.9 * np.clip(0.45 - truth.seen, 0, None) / 0.35
        found = self._chance[index, truth.identity] >= missed
        sides = np.tile(truth.boxes[:, 2:] - truth.boxes[:, :2], 2)
        boxes = truth.boxes + faults.box * sides * self._boxes[index, truth.identity]
        scores = np.clip(0.92 - 0.5 * (1 - truth.seen) ** 2 + 0.04 * rng.standard_normal(len(boxes)), 0.3, 1)
        count = rng.poisson(faults.false)
        w, h = self.size
        shape = np.stack([rng.uniform(0.04, 0.12, count) * w, rng.uniform(0.2, 0.6, count) * h], 1)
        corner = rng.uniform(0, 1, (count, 2)) * (np.array([w, h]) - shape)
        boxes = np.concatenate([boxes[found], np.concatenate([corner, corner + shape], 1)])
        scores = np.concatenate([scores[found], rng.uniform(0.3, 0.65, count)])
        order = np.argsort(-scores)
        return np.clip(boxes[order], 0, np.tile(self.size, 2)), scores[order]

    def poses(self, index: int, boxes: Floats, scores: Floats) -> list[Person]:
        """The pose in each box: of whom it frames best, or of nobody."""
        truth = self.frames[index]
        overlap = overlaps(boxes, truth.boxes)
        return [
            self._pose(index, row, box, float(score))
            for row, box, score in zip(overlap, boxes, scores, strict=True)
        ]

    def _pose(self, index: int, overlap: Floats, box: Floats, score: float) -> Person:
        truth = self.frames[index]
        best = int(np.argmax(overlap)) if len(overlap) else -1
        if best < 0 or overlap[best] < 0.3:
            rng = np.random.default_rng([self.seed, 23, index, *np.abs(box).astype(int).tolist()])
            points = box[:2] + rng.uniform(0.1, 0.9, (17, 2)) * (box[2:] - box[:2])
            confidence = rng.uniform(0.02, 0.3, 17)
            return Person(box, points, confidence, confidence, score)
        best = self._in_front(index, best, overlap)
        who = int(truth.identity[best])
        points, visible = truth.points[best].copy(), truth.visible[best]
        bottom = np.array([truth.boxes[best, [0, 2]].mean(), truth.boxes[best, 3]])
        points[visible == 0] = bottom  # outside the picture: at its border
        spread = (
            2 * np.asarray(COCO17.sigmas) * np.sqrt((truth.boxes[best, 2:] - truth.boxes[best, :2]).prod())
        )
        spread = spread * self.faults.points * np.where(visible == 2, 1.0, self.faults.hidden)
        points += spread[:, None] * self._points[index, who]
        middle = np.select([visible == 2, visible == 1], [0.85, 0.45], 0.15)
        width = np.select([visible == 2, visible == 1], [0.07, 0.15], 0.08)
        confidence = np.clip(middle + width * self._confidence[index, who], 0.01, 1.0)
        order = self._sides(index, who)
        return Person(box, points[order], confidence[order], confidence[order], score)

    def _in_front(self, index: int, best: int, overlap: Floats) -> int:
        """The person who covers `best` and whose pose the network gives in its place, or `best`."""
        truth = self.frames[index]
        level = (1 - truth.seen[best]) * self.faults.taken
        if level <= 0 or _normal_share(self._taken[index, truth.identity[best]]) > level:
            return best
        nearer = np.where(truth.boxes[:, 3] > truth.boxes[best, 3], overlap, 0.0)
        nearer[best] = 0.0
        front = int(np.argmax(nearer))
        return front if nearer[front] > 0.15 else best

    def _sides(self, index: int, who: int) -> NDArray[np.int64]:
        """The order of the points: as they are, all swapped, or the legs alone."""
        place = _normal_share(self._swapped[index, who])
        order = np.arange(17)
        if place < self.faults.swapped:
            mirrored = np.asarray(COCO17.flip)
            first = 0 if place < self.faults.swapped / 2 else 11
            order[first:] = mirrored[first:]
        return order


def _normal_share(value: float) -> float:
    """The share of a normal distribution below `value`."""
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))


def overlaps(first: Floats, second: Floats) -> Floats:
    """Intersection over union of boxes (N, 4) and (M, 4): (N, M)."""
    a, b = first[:, None], second[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    return common / np.maximum(union, 1e-9)
