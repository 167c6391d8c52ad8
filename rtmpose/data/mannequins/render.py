"""Drawing mannequins: every part of a figure is an ellipsoid or a tapered limb, traced exactly in perspective
into a z-buffer.

Both are quadrics X·Q·X + 2 q·X + c = 0 in camera coordinates. With the ray X = d / w, d = (x, y, 1) and w the
inverse depth, a part's surface is the larger root of c w² + 2 (q·d) w + d·Q·d = 0: a linear function of the
pixel plus the square root of a quadratic one. Only w and the part's number are kept per pixel; colour comes
once, for what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins.body import Array, Camera
from rtmpose.data.mannequins.figure import Floats, Solids

Image = NDArray[np.uint8]
NEAR = 0.2  # m; nothing nearer to the camera is drawn
SUPERSAMPLING = 2  # traced px per image px along each axis


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
