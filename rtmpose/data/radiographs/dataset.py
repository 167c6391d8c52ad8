"""Drawn radiographs in the challenge's own form: one stack of padded images, and one list of all points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.radiographs.anatomy import LANDMARKS
from rtmpose.data.radiographs.render import Radiograph, draw_radiograph
from rtmpose.data.raw.stacks.metaimage import write_stack
from rtmpose.files import UserError, destination, read_json, write_atomic

MARKER = "radiographs.json"
STACK, POINTS = "train_stack.mha", "train-gt.json"
SMALLEST = 128  # px of a side
NARROWEST = 0.82  # an image's sides, as a share of the stack's: the rest is padding


def draw_dataset(
    root: Path,
    *,
    images: int,
    size: tuple[int, int],
    seed: int,
    compress: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw `images` radiographs of at most `size` (w, h) px into the folder `root`, which is ours when it is
    missing, empty, or holds our marker; nothing is done where it holds just these already.

    An image depends on the seed and its number alone. Raises UserError for impossible numbers, and for a
    folder that is not ours.
    """
    if images < 1 or min(size) < SMALLEST or seed < 0:
        raise UserError(
            f"radiographs: images={images}, size={list(size)}, seed={seed}; give at least one image, sides "
            f"of {SMALLEST} px, and a seed ≥ 0"
        )
    wanted = {"images": images, "size": list(size), "seed": seed, "compress": compress, "code": _code()}
    if _drawn(root) == wanted:
        return
    root = destination(root, folder=True)
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).unlink(missing_ok=True)
    write_atomic(root / MARKER, json.dumps({"drawing": True}) + "\n")  # ours, also where it is killed
    points: list[dict[str, Any]] = []

    def pages() -> Iterator[NDArray[np.uint8]]:
        for number in range(1, images + 1):
            drawn = radiograph(number, size, seed)
            points.extend(challenge_points(drawn, number))
            page = np.zeros((size[1], size[0], 3), np.uint8)
            height, width = drawn.pixels.shape
            page[:height, :width] = drawn.pixels[..., None]
            yield page
            if progress is not None:
                progress(number, images)

    write_stack(root / STACK, pages(), images, compress=compress)
    write_atomic(root / POINTS, json.dumps(challenge_file(points)) + "\n")
    write_atomic(root / MARKER, json.dumps(wanted) + "\n")


def radiograph(number: int, size: tuple[int, int], seed: int) -> Radiograph:
    """Image `number` of a set whose images have at most `size` (w, h) px."""
    rng = np.random.default_rng([seed, number])
    width, height = (round(side * rng.uniform(NARROWEST, 1.0)) for side in size)
    return draw_radiograph((width, height), rng)


def challenge_points(drawn: Radiograph, number: int) -> Iterator[dict[str, Any]]:
    """An image's entries in the challenge's list: points are named "1" to "38", images are counted from 1."""
    for index in range(len(LANDMARKS)):
        x, y = drawn.landmarks[index].tolist()
        yield {
            "name": str(index + 1),
            "point": [round(x, 3), round(y, 3), number],
            "scale": round(drawn.spacing, 6),
        }


def challenge_file(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The list of points with what the challenge's files have around it."""
    about = {"name": "Orthodontic landmarks", "type": "Multiple points"}
    return {**about, "points": points, "version": {"major": 1, "minor": 0}}


def _drawn(root: Path) -> dict[str, Any] | None:
    """What our marker in `root` says; None for a missing or empty folder; any other one is not ours."""
    if (root / MARKER).is_file():
        found = read_json(root / MARKER, f"delete the folder {root} to draw it anew")
        whole = all((root / name).is_file() for name in (STACK, POINTS))
        return found if isinstance(found, dict) and whole else None
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root}: exists and was not drawn by us (no {MARKER}); give the radiographs a folder of their "
            "own"
        )
    return None


def _code() -> str:
    """A hash of what draws."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
