"""Scenes of mannequins: who stands where, how they are dressed, before which background, and what of them is
seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins import body as anatomy
from rtmpose.data.mannequins import points as mannequin_points
from rtmpose.data.mannequins import render
from rtmpose.data.mannequins.backdrop import color_apart, exposed, random_backdrop
from rtmpose.data.mannequins.body import Array, Camera, Frame, Pose, Proportions
from rtmpose.data.mannequins.figure import Floats, Look, Parts, Solids, add_person
from rtmpose.data.mannequins.render import SUPERSAMPLING, Image

SKINS = np.array(
    [(250, 220, 196), (240, 200, 170), (224, 172, 136), (198, 140, 100), (150, 100, 70), (105, 70, 50)],
    dtype=float,
)
HAIRS = np.array(
    [(30, 24, 22), (70, 45, 28), (120, 80, 45), (200, 165, 100), (150, 60, 30), (170, 170, 172)], dtype=float
)
LEAST_SEEN = {"easy": 0.45, "hard": 0.2}  # share of the silhouette inside the image that must be seen
LEAST_AREA = 60  # px of it
LEAST_INSIDE = {"easy": 0.6, "hard": 0.35}  # share of the silhouette's box that must lie in the image
CUT_SHARE = {"easy": 0.15, "hard": 0.35}  # persons that the image's border may cut
MOST_OVERLAP = {"easy": 0.25, "hard": 0.8}  # of two persons' boxes, as far as there is room
SIZES = {"easy": (0.45, 0.92), "hard": (0.22, 1.05)}  # standing height as a share of the image's
COUNT_SHARES = {"easy": (0.36, 0.31, 0.19, 0.08, 0.04, 0.02), "hard": (0.15, 0.2, 0.22, 0.18, 0.15, 0.1)}


@dataclass(frozen=True)
class Person:
    """One person as the renderer saw it. Lengths are image px."""

    points: Array  # (135, 2) px
    visible: NDArray[np.int64]  # (135,) 2 seen, 1 hidden, 0 outside the image
    box: tuple[float, float, float, float]  # x, y, w, h of the whole silhouette, clipped to the image
    area: float  # px of the silhouette that are seen
    view: str  # front, side or back
    truncated: bool


@dataclass(frozen=True)
class Scene:
    image: Image  # (h, w, 3) RGB
    persons: list[Person]


@dataclass(frozen=True)
class Actor:
    """A person (or, without points, the furniture) placed before the camera."""

    solids: Solids
    box: Array  # x0, y0, x1, y1 px of the whole silhouette, not clipped
    points: Array | None = None  # (135, 3) m
    thickness: float = 0.0  # m per m of `RADII`
    yaw: float = 0.0


@dataclass(frozen=True)
class Layer:
    """One actor traced alone; its arrays are in traced px and cover the window of its parts."""

    actor: Actor
    quadrics: render.Quadrics
    inverse_depth: Floats
    number: NDArray[np.int16]
    own: NDArray[np.bool_]  # where the person itself shows, not its stool
    silhouette: int


def view_of(yaw: float) -> str:
    """front (up to 45° off), back (from 135°) or side, of a yaw in degrees where 0 looks into the camera."""
    off = abs((yaw + 180) % 360 - 180)
    return "front" if off <= 45 else "back" if off >= 135 else "side"


def _random_yaw(rng: np.random.Generator, level: str) -> float:
    if level == "hard":
        return float(rng.uniform(-180, 180))
    middle = rng.choice([0.0, 90.0, -90.0, 180.0], p=[0.65, 0.125, 0.125, 0.1])
    return float(middle + rng.uniform(-35, 35))


def random_look(rng: np.random.Generator, level: str, backdrop: list[Array], bust: float) -> Look:
    skin = SKINS[rng.integers(len(SKINS))] * rng.uniform(0.94, 1.02)
    least = 110 if level == "easy" else 45
    shirt = color_apart(rng, [skin, *backdrop], least)
    trousers = color_apart(rng, [skin, shirt, *backdrop], least)
    style = rng.choice(4, p=[0.05, 0.4, 0.4, 0.15] if bust else [0.12, 0.65, 0.08, 0.15])
    return Look(
        skin=skin,
        hair=HAIRS[rng.integers(len(HAIRS))],
        shirt=shirt,
        trousers=trousers,
        shoes=color_apart(rng, [trousers, *backdrop], least),
        belt=np.full(3, rng.uniform(25, 70)),
        sleeve=float(rng.choice([0.0, rng.uniform(0.22, 0.36), 1.0], p=[0.1, 0.5, 0.4])),
        leg=float(rng.choice([rng.uniform(0.2, 0.45), 1.0], p=[0.3, 0.7])),
        hair_style=int(style),
    )


def _random_camera(rng: np.random.Generator, level: str, size: tuple[int, int]) -> Camera:
    height = rng.uniform(1.0, 1.7) if level == "easy" else rng.uniform(0.6, 3.2)
    focal = size[1] * rng.uniform(1.15, 1.7)
    # looks at a person's waist four metres away, more or less
    tilt = np.rad2deg(np.arctan2(height - 0.9, 4.0)) + rng.normal(0, 3.0)
    return Camera(np.array([0.0, height, 0.0]), float(tilt), float(focal), size)


def _stool(parts: Parts, seat: Array, floor: float, color: Array) -> None:
    parts.furniture = True
    parts.limb(seat * (1, 0, 1) + (0, floor, 0), seat, (0.17, 0.15), color, caps="")
    parts.ball(Frame(np.eye(3), seat), (0, -0.015, 0), (0.19, 0.03, 0.19), color * 0.85)


def _random_person(
    rng: np.random.Generator, level: str, backdrop: list[Array]
) -> tuple[Solids, Array, Pose, Proportions]:
    """A dressed person, hips above the origin and the lowest point on the ground: parts and points (135, 3)
    m.
    """
    pose = anatomy.random_pose(rng, level, _random_yaw(rng, level))
    body = anatomy.random_proportions(rng)
    look = random_look(rng, level, backdrop, body.bust)
    frames = anatomy.solve(pose, body)
    points = mannequin_points.labelled_points(frames, pose, body)
    parts = Parts()
    add_person(parts, frames, points, body, look)
    floor = points[:, 1].min() - 0.012 * body.height
    if pose.family == "sitting" and abs(pose.lean) < 40:
        seat = frames["pelvis"].origin - (0, 0.075 * body.height * body.girth, 0)
        _stool(parts, seat, floor, color_apart(rng, [look.trousers, look.skin, *backdrop], 60))
    rise = np.array([0, -floor, 0])
    return parts.solids().moved(rise), points + rise, pose, body


def _overlap(box: Array, others: list[Array]) -> float:
    """The largest share that the box (4,) shares with another, of the smaller one of both."""
    worst = 0.0
    for other in others:
        sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
        smaller = min((box[2:] - box[:2]).prod(), (other[2:] - other[:2]).prod())
        worst = max(worst, float(sides.prod() / max(smaller, 1e-6)))
    return worst


def _place(
    rng: np.random.Generator, level: str, camera: Camera, backdrop: list[Array], others: list[Array]
) -> Actor:
    """A random person somewhere on the ground: as a rule wholly in the picture, on `easy` rarely behind
    another.
    """
    solids, points, pose, body = _random_person(rng, level, backdrop)
    bounds = render.bounds(solids, camera)
    cut = rng.random() < CUT_SHARE[level]
    best, best_cost = None, np.inf
    for _ in range(12):
        share = rng.uniform(*SIZES[level])
        distance = camera.focal * body.height / (share * camera.size[1])
        reach = camera.size[0] / camera.focal * distance
        offset = np.array([rng.uniform(-0.5, 0.5) * reach, 0.0, -distance])
        boxes = bounds.boxes(camera, offset)[~solids.furniture]
        if np.isnan(boxes).any():
            continue
        box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
        missing = max(0.0, (LEAST_INSIDE[level] if cut else 1.0) - share_inside(box, camera))
        crowding = max(0.0, _overlap(box, others) - MOST_OVERLAP[level])
        if missing + crowding < best_cost:
            best, best_cost = (offset, box), missing + crowding
        if best_cost == 0:
            break
    if best is None:
        return _place(rng, level, camera, backdrop, others)
    offset, box = best
    return Actor(solids.moved(offset), box, points + offset, body.height * body.girth, pose.yaw)


def share_inside(box: Array, camera: Camera) -> float:
    """Share of a box x0, y0, x1, y1 px that lies in the image."""
    clipped = clip(box, camera)
    return float((clipped[2:] - clipped[:2]).prod() / max((box[2:] - box[:2]).prod(), 1e-6))


def clip(box: Array, camera: Camera) -> Array:
    return np.clip(box, 0, np.tile(camera.size, 2) - 1)


def trace_actor(actor: Actor, camera: Camera) -> Layer:
    quadrics = render.to_quadrics(actor.solids, camera)
    inverse_depth, number = render.trace(quadrics, camera)
    own = number >= 0
    if actor.solids.furniture.any():
        own &= ~actor.solids.furniture[number]
    return Layer(actor, quadrics, inverse_depth, number, own, int(np.count_nonzero(own)))


def nearest_layers(layers: list[Layer], camera: Camera) -> list[NDArray[np.bool_]]:
    """For each layer where, in its window, nothing of another layer is nearer."""
    nearest = np.zeros((camera.size[1] * SUPERSAMPLING, camera.size[0] * SUPERSAMPLING), np.float32)
    for layer in layers:
        window = nearest[layer.quadrics.window]
        np.maximum(window, layer.inverse_depth, out=window)
    return [layer.inverse_depth == nearest[layer.quadrics.window] for layer in layers]


def _visibility(layer: Layer, mine: NDArray[np.bool_], camera: Camera) -> tuple[Array, NDArray[np.int64]]:
    """Points (135, 2) px and flags (135,).

    2: within one traced px the person's own surface is seen, no farther before the point than its joint is
    thick; 1: something else or another part of the body is in front; 0: outside the image.
    """
    assert layer.actor.points is not None
    projected = camera.project(layer.actor.points)
    xy, depth = projected[:, :2], projected[:, 2]
    inside = ((xy >= 0) & (xy <= np.array(camera.size) - 1)).all(1) & (depth > render.NEAR)
    rows, columns = layer.quadrics.window
    at = np.rint((np.where(inside[:, None], xy, 0.0) + 0.5) * SUPERSAMPLING - 0.5).astype(int)
    at -= np.array([columns.start, rows.start])
    # the inverse depth that a surface before the point may have at most
    most = 1.0 / np.maximum(depth - mannequin_points.RADII * layer.actor.thickness, render.NEAR)
    steps = np.arange(-1, 2)
    y = np.clip(at[:, 1, None, None] + steps[:, None], 0, mine.shape[0] - 1)
    x = np.clip(at[:, 0, None, None] + steps, 0, mine.shape[1] - 1)
    shown = (mine[y, x] & (layer.inverse_depth[y, x] <= most[:, None, None])).any((1, 2))
    flags = np.where(inside, np.where(shown, 2, 1), 0)
    return np.where(inside[:, None], xy, 0.0), flags


def describe(layer: Layer, mine: NDArray[np.bool_], camera: Camera) -> Person:
    points, flags = _visibility(layer, mine, camera)
    x0, y0, x1, y1 = (float(value) for value in clip(layer.actor.box, camera))
    area = float(np.count_nonzero(mine)) / SUPERSAMPLING**2
    cut = bool((clip(layer.actor.box, camera) != layer.actor.box).any())
    return Person(points, flags, (x0, y0, x1 - x0, y1 - y0), area, view_of(layer.actor.yaw), cut)


def _furniture(rng: np.random.Generator, camera: Camera) -> list[Actor]:
    """Poles, round tables and bushes in front of or among the people, or nothing."""
    parts = Parts(furniture=True)
    for _ in range(rng.integers(0, 4)):
        depth, color = rng.uniform(1.6, 5.0), rng.uniform(20, 235, 3)
        at = np.array([rng.uniform(-0.6, 0.6) * camera.size[0] / camera.focal * depth, 0.0, -depth])
        place, kind = Frame(np.eye(3), at), rng.integers(3)
        if kind == 0:
            parts.limb(at, np.add(at, (0, 3.0, 0)), (rng.uniform(0.03, 0.09), 0.04), color)
        elif kind == 1:
            top = rng.uniform(0.5, 0.9)
            parts.limb(at, np.add(at, (0, top, 0)), (0.06, 0.05), color)
            parts.ball(place, (0, top, 0), (rng.uniform(0.3, 0.6), 0.03, 0.4), color)
        else:
            for _ in range(6):
                parts.ball(
                    place,
                    np.add(rng.uniform(-0.25, 0.25, 3), (0, 0.3, 0)),
                    rng.uniform(0.1, 0.25, 3),
                    color * rng.uniform(0.7, 1.1),
                )
    return [Actor(parts.solids(), np.zeros(4))] if parts.balls or parts.limbs else []


def _cast(
    rng: np.random.Generator, level: str, camera: Camera, backdrop: list[Array]
) -> tuple[list[Layer], list[NDArray[np.bool_]]]:
    """Traced people (without those of whom too little is seen) and furniture, and where each of them is
    nearest.
    """
    actors: list[Actor] = []
    for _ in range(1 + int(rng.choice(6, p=COUNT_SHARES[level]))):
        actors.append(_place(rng, level, camera, backdrop, [actor.box for actor in actors]))
    if level == "hard":
        actors += _furniture(rng, camera)
    layers = [trace_actor(actor, camera) for actor in actors]
    while True:
        nearest = nearest_layers(layers, camera)
        shares = [_shown_share(layer, mask) for layer, mask in zip(layers, nearest, strict=True)]
        if not shares or min(shares) >= LEAST_SEEN[level]:
            return layers, nearest
        layers.pop(int(np.argmin(shares)))


def _shown_share(layer: Layer, nearest: NDArray[np.bool_]) -> float:
    """Share of a person's silhouette that is seen; 0 for a sliver that nobody would label, 1
    for furniture.
    """
    if layer.actor.points is None:
        return 1.0
    shown = int(np.count_nonzero(layer.own & nearest))
    return shown / layer.silhouette if shown > LEAST_AREA * SUPERSAMPLING**2 else 0.0


def render_scene(rng: np.random.Generator, level: str, size: tuple[int, int]) -> Scene:
    """Draw one image of `size` (w, h) px with one to six people, of each of whom enough is seen."""
    while True:
        camera = _random_camera(rng, level, size)
        canvas, backdrop = random_backdrop(rng, level, camera)
        layers, nearest = _cast(rng, level, camera, backdrop)
        if any(layer.actor.points is not None for layer in layers):
            break
    cast_shadows(canvas, layers, camera)
    lamp = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.9, -0.3), -rng.uniform(0.5, 1.0)])
    lamp /= np.linalg.norm(lamp)
    traced = cv2.resize(canvas, None, fx=SUPERSAMPLING, fy=SUPERSAMPLING, interpolation=cv2.INTER_LINEAR)
    persons = []
    for layer, mask in zip(layers, nearest, strict=True):
        shown = np.where(mask, layer.number, np.int16(-1))
        render.shade(layer.quadrics, camera, layer.inverse_depth, shown, traced[layer.quadrics.window], lamp)
        if layer.actor.points is not None:
            persons.append(describe(layer, layer.own & mask, camera))
    return Scene(exposed(rng, level, cv2.resize(traced, size, interpolation=cv2.INTER_AREA)), persons)


def cast_shadows(canvas: Image, layers: list[Layer], camera: Camera) -> None:
    """Darken the ground beneath ankles, knees and hips that are near it."""
    light = np.full(canvas.shape[:2], 255, np.uint8)
    for layer in layers:
        if layer.actor.points is None:
            continue
        for point in layer.actor.points[11:17]:
            if point[1] < 0.35:
                x, y, depth = camera.project(point * (1, 0, 1))
                if depth > 2 * render.NEAR:
                    wide = 0.16 * camera.focal / depth
                    flat = wide * min(1.0, camera.eye[1] / depth + 0.1)
                    cv2.ellipse(light, (round(x), round(y)), (round(wide), round(flat)), 0, 0, 360, 150, -1)
    light = cv2.blur(light, (9, 5))
    cv2.multiply(canvas, cv2.merge([light] * 3), canvas, 1 / 255)
