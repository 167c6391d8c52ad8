"""Drawing mannequins: every body part is an ellipsoid or a tapered limb, traced exactly in perspective into a
z-buffer.

Both are quadrics X·Q·X + 2 q·X + c = 0 in camera coordinates. With the ray X = d / w, d = (x, y, 1) and w the
inverse depth, a part's surface is the larger root of c w² + 2 (q·d) w + d·Q·d = 0: a linear function of the
pixel plus the square root of a quadratic one. Only w and the part's number are kept per pixel; colour comes
once, for what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins.body import SIDES, Array, Camera, Frame, Proportions
from rtmpose.data.mannequins.points import SKULL, SKULL_CENTER, on_skull

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Color = tuple[float, float, float]
NEAR = 0.2  # m; nothing nearer to the camera is drawn
SUPERSAMPLING = 2  # traced px per image px along each axis
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


@dataclass(frozen=True)
class Quadrics:
    """The parts as the tracer needs them, n of them, in camera coordinates."""

    surface: Array  # (n, 4, 4) quadric, scaled by 1 / its constant
    slab: Floats | Array  # (n, 4): 0 ≤ slab · (X, 1) ≤ 1 is the limb
    is_limb: NDArray[np.bool_]
    box: NDArray[np.int64]  # (n, 4): x0, y0, x1, y1 in traced px, clipped
    colors: Floats

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns, in traced px, that the parts may touch."""
        boxes = self.box[(self.box[:, 2:] > self.box[:, :2]).all(1)]
        if len(boxes) == 0:
            return slice(0, 0), slice(0, 0)
        (x0, y0), (x1, y1) = boxes[:, :2].min(0).tolist(), boxes[:, 2:].max(0).tolist()
        return slice(y0, y1), slice(x0, x1)


@dataclass(frozen=True)
class Bounds:
    """Balls that hold the n parts, in camera coordinates: a ball itself twice, a limb in those of its two end
    discs.
    """

    spread: Array  # (2, n, 3, 3) half axes times their transpose
    center: Array  # (2, n, 3) m

    def boxes(self, camera: Camera, offset: Array | None = None) -> Array:
        """(n, 4) x0, y0, x1, y1 px, not clipped, of the parts shifted by `offset` m in the world; NaN at the
        camera.

        A ball's image is the conic dual to C* = A·Aᵀ - t·tᵀ; its upright tangents bound it.
        """
        t = self.center if offset is None else self.center + camera.rotation @ offset
        depth = np.maximum(t[..., 2:] ** 2 - self.spread[..., 2, 2, None], 1e-4)
        middle = (t[..., :2] * t[..., 2:] - self.spread[..., :2, 2]) / depth
        half = middle**2 + (self.spread[..., (0, 1), (0, 1)] - t[..., :2] ** 2) / depth
        half = np.sqrt(np.maximum(half, 0))
        low, high = (middle - half).min(0), (middle + half).max(0)
        boxes = np.concatenate([low, high], 1) * camera.focal + np.tile(camera.center, 2)
        in_front = np.asarray(t[..., 2] > NEAR).all(axis=0, keepdims=True).T
        return np.where(in_front, boxes, np.nan)


def bounds(solids: Solids, camera: Camera) -> Bounds:
    view, limb = camera.view @ solids.maps, solids.is_limb
    axes, center = np.stack([view[:, :3, :3]] * 2), np.stack([view[:, :3, 3]] * 2)
    center[1, limb] += view[limb, :3, 1]
    for end in (0, 1):
        # an end disc is a ball that is flat along the limb
        axes[end, limb] *= np.insert(solids.radii[limb, end, None].repeat(2, 1), 1, 1e-3, axis=1)[:, None]
    return Bounds(axes @ axes.transpose(0, 1, 3, 2), center)


def to_quadrics(solids: Solids, camera: Camera) -> Quadrics:
    """Place the parts before the camera; those behind it or outside the image get empty boxes."""
    limb = solids.is_limb
    inverse = np.linalg.inv(camera.view @ solids.maps)
    unit = np.zeros((len(limb), 4, 4))
    unit[:] = np.diag([1.0, 1.0, 1.0, -1.0])
    r0, slope = solids.radii[limb, 0], solids.radii[limb, 1] - solids.radii[limb, 0]
    unit[limb, 1, 1] = -(slope**2)
    unit[limb, 1, 3] = unit[limb, 3, 1] = -r0 * slope
    unit[limb, 3, 3] = -(r0**2)
    surface = inverse.transpose(0, 2, 1) @ unit @ inverse
    constant = surface[:, 3, 3]
    surface /= np.where(np.abs(constant) < 1e-9, 1e-9, constant)[:, None, None]
    traced = (np.nan_to_num(bounds(solids, camera).boxes(camera), nan=-9.0) + 0.5) * SUPERSAMPLING - 0.5
    box = np.concatenate([np.floor(traced[:, :2]), np.ceil(traced[:, 2:]) + 1], 1)
    box = np.clip(box, 0, np.tile(camera.size, 2) * SUPERSAMPLING).astype(np.int64)
    return Quadrics(surface, inverse[:, 1], limb, box, solids.colors)


def _rays(camera: Camera) -> tuple[Array, Array]:
    """x and y of the rays (x, y, 1) of every traced column and row."""
    x, y = (
        ((np.arange(length * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5 - center) / camera.focal
        for length, center in zip(camera.size, camera.center, strict=True)
    )
    return x, y


def trace(quadrics: Quadrics, camera: Camera) -> tuple[Floats, NDArray[np.int16]]:
    """The nearest surface's inverse depth (1/m, else 0) and its part (else -1), in traced px of
    `quadrics.window`.
    """
    ray_x, ray_y = _rays(camera)
    rows, columns = quadrics.window
    inverse_depth = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    number = np.full(inverse_depth.shape, -1, np.int16)
    q = quadrics.surface
    # with c = 1, w = -q·d + √(d·S·d): the outline is where d·S·d = 0
    outline = q[:, :3, 3, None] * q[:, None, :3, 3] - q[:, :3, :3]
    with np.errstate(invalid="ignore"):
        for part, (x0, y0, x1, y1) in enumerate(quadrics.box.tolist()):
            if x1 <= x0 or y1 <= y0:
                continue
            x, y, s, line = ray_x[x0:x1], ray_y[y0:y1], outline[part], -q[part, :3, 3]
            # in double precision: far from the part's centre these terms cancel
            w = np.multiply.outer((2 * s[0, 1]) * y, x)
            w += (s[0, 0] * x + 2 * s[0, 2]) * x + s[2, 2]
            w += ((s[1, 1] * y + 2 * s[1, 2]) * y)[:, None]
            np.sqrt(w, out=w)  # NaN outside the outline, and NaN is never nearer
            w += line[0] * x + line[2]
            w += (line[1] * y)[:, None]
            place = np.s_[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
            nearest = inverse_depth[place]
            seen = w > nearest
            if quadrics.is_limb[part]:
                a = quadrics.slab[part]
                along = a[3] * w
                along += a[0] * x + a[2]
                along += (a[1] * y)[:, None]
                seen &= (along >= 0) & (along <= w)
            np.copyto(nearest, w, where=seen, casting="same_kind")
            np.copyto(number[place], part, where=seen)
    return inverse_depth, number


def shade(
    quadrics: Quadrics,
    camera: Camera,
    inverse_depth: Floats,
    number: NDArray[np.int16],
    canvas: Image,
    light: Array,
) -> None:
    """Colour the pixels of `canvas` (h, w, 3; the window) that show a part, by Lambert's law; `light` is
    where from.
    """
    pixels = np.flatnonzero(number >= 0)
    if len(pixels) == 0:
        return
    rows, columns = np.divmod(pixels, number.shape[1])
    part = number.ravel()[pixels]
    ray_x, ray_y = _rays(camera)
    y = ray_y[quadrics.window[0]].astype(np.float32)[rows]
    x = ray_x[quadrics.window[1]].astype(np.float32)[columns]
    w = inverse_depth.ravel()[pixels]
    # the surface's gradient Q·X + q, times w > 0; scaled so that single precision holds it
    table = quadrics.surface / np.abs(quadrics.surface[:, :3, :3]).max((1, 2), keepdims=True)
    table = table.astype(np.float32)
    normal = [
        table[:, k, 0][part] * x + table[:, k, 1][part] * y + table[:, k, 2][part] + table[:, k, 3][part] * w
        for k in range(3)
    ]
    length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    facing = -(normal[0] * x + normal[1] * y + normal[2]) / length
    lamp = light.astype(np.float32)
    bright = (normal[0] * lamp[0] + normal[1] * lamp[1] + normal[2] * lamp[2]) / length
    # a quadric divided by a negative constant has its gradient inside out
    bright *= np.sign(facing)
    tone = 0.5 + 0.5 * np.maximum(bright, 0) + 0.15 * (np.abs(facing) - 0.6)
    canvas[rows, columns] = np.clip(quadrics.colors[part] * tone[:, None], 0, 255).astype(np.uint8)
