"""What lies behind the people and over the whole picture: background, clutter, the lens and the sensor."""

from __future__ import annotations

import cv2
import numpy as np

from rtmpose.data.mannequins.body import Array, Camera
from rtmpose.data.mannequins.render import Image


def color_apart(rng: np.random.Generator, others: list[Array], least: float) -> Array:
    """A random colour at least `least` away from the others (RGB distance), the farthest of some tries
    otherwise.
    """
    best, best_distance = np.zeros(3), -1.0
    for _ in range(12):
        hue, saturation, value = rng.uniform(0, 180), rng.uniform(40, 230), rng.uniform(45, 245)
        color = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2RGB)[
            0, 0
        ].astype(np.float64)
        distance = min((float(np.linalg.norm(color - other)) for other in others), default=255.0)
        if distance >= least:
            return color
        if distance > best_distance:
            best, best_distance = color, distance
    return best


def random_backdrop(rng: np.random.Generator, level: str, camera: Camera) -> tuple[Image, list[Array]]:
    """A background (h, w, 3) and the colours that clothes should differ from."""
    w, h = camera.size
    wall, floor = (
        color_apart(rng, [], 0) * 0.5 + rng.uniform(40, 120),
        color_apart(rng, [], 0) * 0.4 + rng.uniform(30, 110),
    )
    horizon = float(
        np.clip(camera.center[1] - camera.focal * np.tan(np.deg2rad(camera.pitch)) + 0.1 * h, -1, h)
    )
    image = np.empty((h, w, 3), np.float32)
    image[: max(round(horizon), 0)], image[max(round(horizon), 0) :] = wall, floor
    # light falls off evenly downwards and sideways, and unevenly on top of that
    down, across = rng.uniform(-25, 25, 2), rng.uniform(-20, 20, 2)
    slope = np.add.outer(np.linspace(down[0], down[1], h), np.linspace(across[0], across[1], w))
    hues = 1 if level == "easy" else 3
    coarse = rng.normal(0, 7 if level == "easy" else 26, (h // 40 + 2, w // 40 + 2, hues)).astype(np.float32)
    image += slope[..., None].astype(np.float32)
    image += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC).reshape(h, w, hues)
    canvas = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 4) if level == "easy" else rng.integers(8, 30)):
        _clutter(rng, canvas, [wall, floor], level)
    return canvas, [wall, floor]


def _clutter(rng: np.random.Generator, canvas: Image, near: list[Array], level: str) -> None:
    h, w = canvas.shape[:2]
    color = near[rng.integers(2)] + rng.uniform(-35, 35, 3) if level == "easy" else rng.uniform(0, 255, 3)
    paint = tuple(float(v) for v in np.clip(color, 0, 255))
    x, y = int(rng.integers(0, w)), int(rng.integers(0, h))
    a, b = (int(v) for v in rng.integers(6, max(w, h) // 4, 2))
    kind = rng.integers(3)
    if kind == 0:
        cv2.rectangle(canvas, (x - a, y - b), (x + a, y + b), paint, -1)
    elif kind == 1:
        cv2.ellipse(canvas, (x, y), (a, b), float(rng.uniform(0, 180)), 0, 360, paint, -1, cv2.LINE_AA)
    else:
        cv2.line(
            canvas,
            (x, y),
            (int(rng.integers(0, w)), int(rng.integers(0, h))),
            paint,
            int(rng.integers(1, 9)),
            cv2.LINE_AA,
        )


def exposed(rng: np.random.Generator, level: str, image: Image) -> Image:
    """What the lens and the sensor add: on `hard` at times blur, always noise."""
    if level == "hard" and rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.3))
    strength = 2.5 if level == "easy" else rng.uniform(2, 8)
    noise = strength * rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    return np.clip(image + noise, 0, 255).astype(np.uint8)
