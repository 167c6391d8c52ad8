"""Small videos, and a pipeline that needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rtmpose.descriptors import load_skeleton
from rtmpose.inference.video import VideoWriter
from rtmpose.motion.person import Person

COCO17 = load_skeleton("coco17")
SIZE = (64, 48)
TIMES = (0.1, 0.14, 0.2, 0.21, 0.5, 0.9, 1.0, 1.25)
SINCE = [time - TIMES[0] for time in TIMES]  # the first picture


def picture(level: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Grey, with a bright left half on top, so that a turn is seen."""
    pixels = np.full((size[1], size[0], 3), level, np.uint8)
    pixels[: size[1] // 4, : size[0] // 2] = 250
    return pixels


def clip(path: Path, times: Sequence[float] = TIMES, sizes: Sequence[tuple[int, int]] = (SIZE,)) -> Path:
    """A video whose frames have these times, and grow brighter; sizes in turn."""
    writer = VideoWriter(path, 25)
    for number, time in enumerate(times):
        writer.write(picture(min(240, 20 + 20 * number), sizes[number % len(sizes)]), time)
    writer.close()
    return path


def person(x: float = 4.0, identity: int | None = None, count: int = 17, confidence: float = 0.9) -> Person:
    """Somebody 40 px high whose points lie on a slope from (x, 4)."""
    steps = np.linspace(0, 1, count)[:, None]
    points = np.array([x, 4.0]) + steps * [20.0, 40.0]
    scores = np.full(count, confidence)
    return Person(np.array([x, 4.0, x + 20, 44.0]), points, scores * 2, scores, 0.8, identity)


class Still:
    """A pipeline that always sees the same person; it notes where its detector ran."""

    skeleton = COCO17

    def __init__(self) -> None:
        self.detections: list[int] = []

    def detected(self, pixels: np.ndarray) -> np.ndarray:
        self.detections.append(int(pixels[-1, -1, 0]))
        return np.array([[4.0, 4.0, 24.0, 44.0, 0.8]])

    def persons(self, pixels: np.ndarray, boxes: np.ndarray) -> list[Person]:
        return [person()] * min(len(boxes), 1)
