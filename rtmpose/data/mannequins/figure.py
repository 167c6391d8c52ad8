"""What a mannequin is made of: balls and tapered limbs around its bones, dressed by a `Look`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins.body import SIDES, Array, Frame, Proportions
from rtmpose.data.mannequins.points import SKULL, SKULL_CENTER, on_skull

Floats = NDArray[np.float32]
Color = tuple[float, float, float]
FIRST_FINGERS = (92, 113)  # in the whole-body order: a hand's points after its wrist


@dataclass
class Parts:
    """Body parts being collected, each with its colour; `furniture` marks what belongs to no person.

    A ball is the unit sphere under a (4,4) affine map into the world; a limb is the cone
    x² + z² = (r0 + (r1 - r0) y)² between y = 0 and 1 under such a map.
    """

    balls: list[tuple[Array, Array, Color, bool]] = field(
        default_factory=list
    )  # (3,3) half axes as columns, centre
    limbs: list[tuple[Array, Array, float, float, Color, bool]] = field(
        default_factory=list
    )  # start, end, radii
    furniture: bool = False

    def ball(self, frame: Frame, center: object, half_axes: object, color: Array) -> None:
        axes = frame.rotation * np.asarray(half_axes, dtype=np.float64)
        self.balls.append((axes, frame.at(center), _color(color), self.furniture))

    def limb(
        self, start: Array, end: Array, radii: tuple[float, float], color: Array, caps: str = "end"
    ) -> None:
        """A round tapered limb between two world points; `caps` ("start", "end", "both", "") are the round
        ends.
        """
        self.limbs.append((start, end, *radii, _color(color), self.furniture))
        for point, radius, wanted in (
            (start, radii[0], caps in ("start", "both")),
            (end, radii[1], caps in ("end", "both")),
        ):
            if wanted:
                self.balls.append((np.eye(3) * radius, point, _color(color), self.furniture))

    def solids(self) -> Solids:
        """All parts in one array, balls first."""
        n_balls, n = len(self.balls), len(self.balls) + len(self.limbs)
        maps, shapes = np.zeros((n, 4, 4)), np.zeros((n, 2))
        maps[:, 3, 3] = 1
        if self.balls:
            maps[:n_balls, :3, :3] = [ball[0] for ball in self.balls]
            maps[:n_balls, :3, 3] = [ball[1] for ball in self.balls]
        if self.limbs:
            maps[n_balls:, :3, 3] = start = np.array([limb[0] for limb in self.limbs])
            maps[n_balls:, :3, :3] = _limb_axes(np.array([limb[1] for limb in self.limbs]) - start)
            shapes[n_balls:] = [limb[2:4] for limb in self.limbs]
        colors = [ball[2] for ball in self.balls] + [limb[4] for limb in self.limbs]
        furniture = [ball[3] for ball in self.balls] + [limb[5] for limb in self.limbs]
        return Solids(
            maps, shapes, np.arange(n) >= n_balls, np.array(colors, np.float32), np.array(furniture, bool)
        )


def _color(color: Array) -> Color:
    return float(color[0]), float(color[1]), float(color[2])


def _limb_axes(axis: Array) -> Array:
    """(n, 3, 3): columns across, along (at full length) and across again, of limbs with the given axes (n,
    3).
    """
    length = np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-6)
    # any direction that is not the axis
    other = np.where(np.abs(axis[:, 2:]) < 0.8 * length, (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    across = np.cross(axis, other)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return np.stack([across, axis, np.cross(across, axis / length)], axis=2)


@dataclass(frozen=True)
class Solids:
    """n parts: affine maps (n,4,4) into the world, radii (n,2) of limbs, RGB colours (n,3), and what each
    part is.
    """

    maps: Array
    radii: Array
    is_limb: NDArray[np.bool_]
    colors: Floats
    furniture: NDArray[np.bool_]

    def moved(self, offset: Array) -> Solids:
        """The same parts, shifted in the world by `offset` (3,) m."""
        maps = self.maps.copy()
        maps[:, :3, 3] += offset
        return replace(self, maps=maps)


@dataclass(frozen=True)
class Look:
    """Colours (RGB 0…255) and cut of the clothes; both sides of a person are always alike."""

    skin: Array
    hair: Array
    shirt: Array
    trousers: Array
    shoes: Array
    belt: Array
    sleeve: float  # share of the arm that is covered, 0…1
    leg: float  # share of the leg that is covered
    hair_style: int  # 0 bald, 1 short, 2 long, 3 cap


def _head(parts: Parts, frame: Frame, neck: Frame, body: Proportions, look: Look) -> None:
    h, size = body.height, body.height * body.head
    parts.limb(
        neck.origin,
        frame.at((0, 0.02 * size, 0.004 * size)),
        (0.03 * h * body.girth**0.5, 0.027 * size),
        look.skin,
    )
    parts.ball(frame, SKULL_CENTER * size, SKULL * size, look.skin)
    parts.ball(frame, on_skull((0, -0.45, -0.42)) * size, np.array([0.034, 0.034, 0.032]) * size, look.skin)
    dark, lip = look.hair * 0.7, look.skin * (0.8, 0.45, 0.45)
    for sign in (1.0, -1.0):
        parts.ball(
            frame,
            on_skull((0.41 * sign, 0.08, -0.04)) * size,
            np.array([0.0095, 0.0065, 0.005]) * size,
            np.full(3, 245.0),
        )
        parts.ball(
            frame,
            on_skull((0.41 * sign, 0.08, 0.04)) * size,
            np.array([0.0045, 0.0052, 0.004]) * size,
            np.array([40.0, 28, 22]),
        )
        parts.ball(
            frame, on_skull((0.45 * sign, 0.34, 0.0)) * size, np.array([0.013, 0.0035, 0.004]) * size, dark
        )
        ear = SKULL_CENTER + np.array([1.0 * sign, -0.02, -0.1]) * SKULL
        parts.ball(frame, ear * size, np.array([0.005, 0.017, 0.01]) * size, look.skin * 0.93)
    parts.ball(
        frame, on_skull((0, -0.17, 0.02)) * size, np.array([0.008, 0.016, 0.014]) * size, look.skin * 0.96
    )
    parts.ball(frame, on_skull((0, -0.56, -0.02)) * size, np.array([0.016, 0.0065, 0.006]) * size, lip)
    _hair(parts, frame, size, look)


def _hair(parts: Parts, frame: Frame, size: float, look: Look) -> None:
    if look.hair_style == 0:
        return
    crown = np.add(SKULL_CENTER, (0, 0.012, -0.012))
    parts.ball(frame, crown * size, SKULL * (1.06, 1.0, 0.98) * size, look.hair)
    if look.hair_style == 2:
        parts.ball(
            frame,
            (np.add(SKULL_CENTER, (0, -0.03, -0.03))) * size,
            np.array([0.046, 0.075, 0.034]) * size,
            look.hair,
        )
    if look.hair_style == 3:
        parts.ball(
            frame,
            (np.add(SKULL_CENTER, (0, 0.03, 0.0))) * size,
            np.array([0.049, 0.042, 0.06]) * size,
            look.shirt,
        )
        parts.ball(
            frame,
            (np.add(SKULL_CENTER, (0, 0.032, 0.055))) * size,
            np.array([0.036, 0.004, 0.03]) * size,
            look.belt,
        )


def _torso(parts: Parts, frames: Mapping[str, Frame], body: Proportions, look: Look) -> None:
    h, g = body.height, body.girth
    pelvis, abdomen, chest = frames["pelvis"], frames["abdomen"], frames["chest"]
    wide, shoulders = body.hips / 0.055, body.shoulders / 0.108
    parts.ball(pelvis, (0, 0.015 * h, 0), np.array([0.083 * wide, 0.062, 0.056]) * h * g, look.trousers)
    for sign in (1.0, -1.0):
        parts.ball(
            pelvis,
            (0.036 * sign * h, -0.012 * h, -0.03 * h * g),
            np.array([0.042, 0.046, 0.042]) * h * g,
            look.trousers,
        )
        bulge = 0.022 + 0.024 * body.bust
        parts.ball(
            chest,
            (0.042 * sign * h, 0.07 * h, 0.042 * h * g),
            np.array([0.04, 0.038, bulge]) * h * g,
            look.shirt,
        )
        blade = np.array([0.042, 0.06, 0.02]) * h * g
        parts.ball(chest, (0.04 * sign * h, 0.075 * h, -0.038 * h * g), blade, look.shirt)
    parts.ball(pelvis, (0, 0.058 * h, 0), np.array([0.0765, 0.011, 0.056]) * h * g, look.belt)
    parts.ball(abdomen, (0, 0.04 * h, 0), np.array([0.072, 0.085, 0.05]) * h * g, look.shirt)
    parts.ball(chest, (0, 0.065 * h, 0), np.array([0.09 * shoulders, 0.092, 0.057]) * h * g, look.shirt)
    # a neckline in front only: with the face, the chest and the toes it tells front from back
    parts.ball(chest, (0, 0.128 * h, 0.026 * h * g), np.array([0.03, 0.036, 0.026]) * h * g, look.skin)
    for side in SIDES:
        parts.limb(
            frames["neck"].at((0, -0.004 * h, 0)),
            frames[f"{side}_upper_arm"].origin,
            (0.031 * h * g**0.5, 0.033 * h * g**0.5),
            look.shirt,
        )


def _clothed(
    parts: Parts,
    ends: tuple[Array, Array],
    radii: tuple[float, float],
    colors: tuple[Array, Array],
    cover: float,
) -> None:
    """A limb bone, covered over the share `cover` from its start by cloth a little thicker than the skin."""
    start, end = ends
    if cover < 1:
        parts.limb(start, end, radii, colors[1])
    if cover > 0:
        cover = min(cover, 1.0)
        middle = start + cover * (end - start)
        hem = radii[0] + cover * (radii[1] - radii[0])
        parts.limb(
            start, middle, (radii[0] * 1.1, hem * 1.12), colors[0], "both" if cover == 1.0 else "start"
        )


def _arm(
    parts: Parts, frames: Mapping[str, Frame], fingers: Array, body: Proportions, look: Look, side: str
) -> None:
    h, g = body.height, body.height * body.girth**0.7
    shoulder, elbow, hand = (frames[f"{side}_{name}"] for name in ("upper_arm", "forearm", "hand"))
    colors = (look.shirt, look.skin)
    _clothed(parts, (shoulder.origin, elbow.origin), (0.032 * g, 0.0245 * g), colors, look.sleeve * 2)
    _clothed(parts, (elbow.origin, hand.origin), (0.0255 * g, 0.0185 * g), colors, look.sleeve * 2 - 1)
    sign = 1.0 if side == "left" else -1.0
    parts.ball(hand, np.array([-0.002 * sign, -0.03, 0]) * h, np.array([0.011, 0.031, 0.0255]) * h, look.skin)
    for finger in fingers:
        parts.limb(finger[0], finger[1], (0.0078 * h, 0.0072 * h), look.skin)
        parts.limb(finger[1], finger[3], (0.0072 * h, 0.0056 * h), look.skin)
    parts.limb(hand.at((0, -0.008 * h, 0.008 * h)), fingers[0, 1], (0.012 * h, 0.01 * h), look.skin)


def _leg(parts: Parts, frames: Mapping[str, Frame], body: Proportions, look: Look, side: str) -> None:
    h, g = body.height, body.height * body.girth**0.8
    thigh, shin, foot = (frames[f"{side}_{name}"] for name in ("thigh", "shin", "foot"))
    colors = (look.trousers, look.skin)
    _clothed(parts, (thigh.origin, shin.origin), (0.05 * g, 0.034 * g), colors, look.leg * 2)
    _clothed(parts, (shin.origin, foot.origin), (0.0335 * g, 0.0215 * g), colors, look.leg * 2 - 1)
    covered = look.leg > 0.7
    parts.ball(
        shin, (0, -0.075 * h, -0.009 * g), np.array([0.031, 0.085, 0.03]) * g, colors[0 if covered else 1]
    )
    shoe, sign = look.shoes, 1.0 if side == "left" else -1.0
    parts.ball(foot, np.array([0, -0.016, -0.014]) * h, np.array([0.025, 0.026, 0.026]) * h, shoe)
    parts.ball(foot, np.array([0.002 * sign, -0.018, 0.04]) * h, np.array([0.025, 0.02, 0.062]) * h, shoe)
    parts.ball(
        foot, np.array([0.004 * sign, -0.033, 0.034]) * h, np.array([0.0275, 0.006, 0.072]) * h, look.belt
    )


def add_person(
    parts: Parts, frames: Mapping[str, Frame], points: Array, body: Proportions, look: Look
) -> None:
    """Append all parts of a person whose bones stand at `frames`; `points` (135, 3) m are its labelled
    points.
    """
    _torso(parts, frames, body, look)
    _head(parts, frames["head"], frames["neck"], body, look)
    for side, first in zip(SIDES, FIRST_FINGERS, strict=True):
        _arm(parts, frames, points[first : first + 20].reshape(5, 4, 3), body, look, side)
        _leg(parts, frames, body, look, side)
