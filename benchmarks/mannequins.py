"""How fast mannequins are rendered: images/s with all cores at 320×240, process start-up and JPEG files
included.

`python benchmarks/mannequins.py [--quick] [--workers N] [--contact-sheet PATH]`; the last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.mannequins.render import Image
from rtmpose.data.mannequins.scene import Scene, render_scene
from rtmpose.descriptors import load_skeleton
from rtmpose.machine import cpu_line

COLUMNS, ROWS, SIZE = 4, 3, (320, 240)


def images_per_second(level: str, images: int, workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        render_dataset(
            Path(folder) / level, "coco17", level=level, images={"train": images}, seed=0, workers=workers
        )
        return images / (time.perf_counter() - start)


def with_skeletons(scene: Scene, limbs: tuple[tuple[int, int], ...]) -> Image:
    """The image with its labels: left limbs orange, right ones blue, hidden points hollow."""
    canvas = scene.image.copy()
    for person in scene.persons:
        points = [(round(x), round(y)) for x, y in person.points[:17].tolist()]
        for a, b in limbs:
            if person.visible[a] and person.visible[b]:
                color = (
                    (255, 150, 20)
                    if a % 2 and b % 2
                    else (40, 120, 255)
                    if not (a % 2 or b % 2)
                    else (240, 240, 240)
                )
                cv2.line(canvas, points[a], points[b], color, 1, cv2.LINE_AA)
        for point, flag in zip(points, person.visible[:17].tolist(), strict=True):
            if flag:
                cv2.circle(canvas, point, 2, (255, 255, 255), -1 if flag == 2 else 1, cv2.LINE_AA)
    return canvas


def contact_sheet(path: Path) -> None:
    """4×3 images of `easy` above 4×3 of `hard`; every second one shows its labels."""
    limbs = load_skeleton("coco17").limbs
    blocks = []
    for seed, level in enumerate(("easy", "hard")):
        scenes = [render_scene(np.random.default_rng([seed, n]), level, SIZE) for n in range(COLUMNS * ROWS)]
        drawn = [
            with_skeletons(scene, limbs) if (n + n // COLUMNS) % 2 else scene.image
            for n, scene in enumerate(scenes)
        ]
        blocks += [np.hstack(drawn[row * COLUMNS : (row + 1) * COLUMNS]) for row in range(ROWS)]
    sheet = cv2.resize(np.vstack(blocks), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    path.parent.mkdir(parents=True, exist_ok=True)
    # few levels per channel keep the sensor's noise from filling the file
    quantised = sheet // 8 * 8 + 4
    cv2.imwrite(str(path), quantised[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 images instead of 600")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--contact-sheet", type=Path, help="also write a picture of both levels to this PNG")
    arguments = parser.parse_args()
    print(f"machine: {cpu_line()}", flush=True)
    if arguments.contact_sheet:
        contact_sheet(arguments.contact_sheet)
    images = 100 if arguments.quick else 600
    hard = images_per_second("hard", images, arguments.workers)
    print(f"hard: {hard:.1f} images/s")
    easy = images_per_second("easy", images, arguments.workers)
    result = {
        "name": "mannequins easy 320x240", "ours": round(easy, 1), "peer": None, "ratio": None,
        "unit": "images/s", "machine": cpu_line(), "hard": round(hard, 1),
        "processes": arguments.workers,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
