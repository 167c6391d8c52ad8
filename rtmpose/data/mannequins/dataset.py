"""Mannequins in the raw layouts of COCO, AI Challenger and COCO-WholeBody, so that everything runs without a
download.

`render_dataset` draws articulated people (`body`, `points`, `figure`, `render`, `backdrop`, `scene`) and
writes exactly the files that the real data sets have (`layouts`). An image depends on the seed, the layout,
the level, its split and its index alone, never on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rtmpose.data.mannequins.layouts import ANNOTATE, WRITE, Drawn, Parameters, image_name, occluded_share
from rtmpose.data.mannequins.points import AIC14, COCO17
from rtmpose.data.mannequins.scene import render_scene
from rtmpose.files import UserError, destination, read_json, temporary_beside, write_atomic, writing

MARKER = "mannequins.json"
JPEG_QUALITY = 92
LAYOUTS = ("coco17", "aic", "coco_wholebody")
LEVELS = ("easy", "hard")
SPLITS = ("train", "val")
OCCLUSION_BINS = (0.0, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class _Task:
    parameters: Parameters
    split: str
    index: int
    path: Path


def render_dataset(
    root: Path,
    layout: str,
    *,
    level: str = "easy",
    images: Mapping[str, int],
    size: tuple[int, int] = (320, 240),
    seed: int,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Render mannequins into `root` in the raw layout of a real data set and say what came out.

    Args:
        root: folder of the data set. It is ours when it is missing, empty, or holds `mannequins.json`; there
            only files that an earlier call wrote are replaced, any other file stays. With the same parameters
            and the same drawing code nothing is done.
        layout: "coco17", "aic" or "coco_wholebody".
        level: "easy" (mostly front and side views, calm backgrounds) or "hard" (all views, clutter,
            occlusion).
        images: number of images per split, "train" and "val".
        size: (w, h) of the images in px.
        seed: of everything random.
        workers: processes; None takes all cores, 1 draws in this process.
        progress: called with (images done, images in all).

    Returns:
        per split: images, persons, people_per_image, views, occlusion (histogram of the share of a
        person's labelled points that are hidden) and truncated (share of the persons cut by the image's
        border).

    Boxes are the extent of a person's whole silhouette clipped to the image, hidden parts included; `area` is
    the number of px of the silhouette that are seen, as COCO's segmentation area is.

    Raises:
        UserError: unknown layout, level or split, impossible numbers, or a folder with files that are not
        ours.
    """
    root = Path(root)
    parameters = _checked(layout, level, images, size, seed)
    marker = _read_marker(root)
    if marker is not None and marker.get("finished") and marker.get("parameters") == parameters.as_json():
        return dict(marker["summary"])
    root = destination(root, folder=True)
    temporary = temporary_beside(root)
    with writing(root):
        temporary.mkdir(parents=True)
        try:
            summary = _render_into(temporary, parameters, workers, progress)
            _publish(temporary, root, marker, {"parameters": parameters.as_json(), "summary": summary})
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return summary


def _checked(
    layout: str, level: str, images: Mapping[str, int], size: tuple[int, int], seed: int
) -> Parameters:
    if layout not in LAYOUTS:
        raise UserError(f"mannequins: unknown layout {layout!r}; use one of {', '.join(LAYOUTS)}")
    if level not in LEVELS:
        raise UserError(f"mannequins: unknown level {level!r}; use one of {', '.join(LEVELS)}")
    for split, count in images.items():
        if split not in SPLITS or count < 0:
            raise UserError(
                f"mannequins: images: {split}={count}; give the splits {', '.join(SPLITS)} a number ≥ 0"
            )
    if min(size) < 64 or seed < 0:
        raise UserError(
            f"mannequins: size={tuple(size)}, seed={seed}; the size must be at least 64 px and the seed ≥ 0"
        )
    sources = sorted(Path(__file__).parent.glob("*.py"))
    code = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    wanted = {split: int(images[split]) for split in SPLITS if images.get(split, 0) > 0}
    return Parameters(layout, level, wanted, (int(size[0]), int(size[1])), int(seed), code)


def _read_marker(root: Path) -> dict[str, Any] | None:
    """The content of our marker file; None for a missing or empty folder; any other folder is not ours."""
    if (root / MARKER).is_file():
        fix = f"delete the folder {root} to render it anew"
        content = read_json(root / MARKER, fix)
        if not isinstance(content, dict) or not _are_names(content.get("files", [])):
            raise UserError(f"{root / MARKER}: not what we wrote; {fix}")
        return content
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(
            f"{root}: exists and was not rendered by us (no {MARKER}); give the mannequins a folder of their "
            "own"
        )
    return None


def _are_names(files: object) -> bool:
    """Whether they are the relative paths of a marker: what they name is removed when the folder is rendered
    anew.
    """
    return isinstance(files, list) and all(
        isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts
        for name in files
    )


def _publish(temporary: Path, root: Path, marker: Mapping[str, Any] | None, content: dict[str, Any]) -> None:
    """Move the finished files from `temporary` into `root`, in place of those its marker lists; other files
    stay.
    """
    new = sorted(str(path.relative_to(temporary)) for path in temporary.rglob("*") if path.is_file())
    old = set(marker.get("files", [])) if marker is not None else set()
    for name in new:
        if name not in old and (root / name).exists():
            raise UserError(f"{root / name}: is not ours and would be overwritten; move it elsewhere")
    root.mkdir(parents=True, exist_ok=True)
    # until the end the folder is marked as ours but unfinished: the next call repairs an interruption
    write_atomic(root / MARKER, json.dumps({"finished": False, "files": sorted(old | set(new))}))
    for name in sorted(old - set(new)):
        (root / name).unlink(missing_ok=True)
    for name in new:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary / name, root / name)
    write_atomic(root / MARKER, json.dumps({"finished": True, **content, "files": new}, indent=1))


def _render_into(
    folder: Path, parameters: Parameters, workers: int | None, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    tasks = [
        _Task(parameters, split, index, folder / image_name(parameters, split, index))
        for split, count in parameters.images.items()
        for index in range(count)
    ]
    for parent in {task.path.parent for task in tasks}:
        parent.mkdir(parents=True)
    drawn: dict[str, list[Drawn]] = {split: [] for split in parameters.images}
    for done, (task, result) in enumerate(zip(tasks, _draw_all(tasks, workers), strict=True), start=1):
        drawn[task.split].append(result)
        if progress is not None:
            progress(done, len(tasks))
    for split, results in drawn.items():
        WRITE[parameters.layout](folder, split, parameters, results)
    return {split: _summary(results) for split, results in drawn.items()}


def _draw_all(tasks: list[_Task], workers: int | None) -> Iterator[Drawn]:
    workers = min(workers or os.cpu_count() or 1, max(1, len(tasks) // 8))
    if workers == 1:
        yield from map(_draw, tasks)
        return
    # spawned, not forked: the caller may have threads of torch or OpenMP running
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(0,)
    ) as pool:
        yield from pool.map(_draw, tasks, chunksize=8)


def _draw(task: _Task) -> Drawn:
    """Render one image, write its JPEG and describe it."""
    p = task.parameters
    stream = [p.seed, LAYOUTS.index(p.layout), LEVELS.index(p.level), SPLITS.index(task.split), task.index]
    scene = render_scene(np.random.default_rng(stream), p.level, p.size)
    bgr = np.ascontiguousarray(scene.image[..., ::-1])
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert encoded
    task.path.write_bytes(data.tobytes())
    chosen = AIC14 if p.layout == "aic" else COCO17
    return Drawn(
        name=task.path.name,
        annotations=[ANNOTATE[p.layout](person) for person in scene.persons],
        views=[person.view for person in scene.persons],
        occluded=[occluded_share(person, chosen) for person in scene.persons],
        truncated=sum(person.truncated for person in scene.persons),
    )


def _summary(drawn: list[Drawn]) -> dict[str, Any]:
    """Figures of one split; the histograms' values add up to the number of images or of persons."""
    occluded = [share for result in drawn for share in result.occluded]
    histogram = np.histogram(occluded, OCCLUSION_BINS)[0].tolist()
    views = Counter(view for result in drawn for view in result.views)
    counts = Counter(len(result.annotations) for result in drawn)
    return {
        "images": len(drawn),
        "persons": len(occluded),
        "people_per_image": {str(count): counts[count] for count in sorted(counts)},
        "views": {view: views[view] for view in ("front", "side", "back")},
        "occlusion": {
            f"{a}-{b}": n for a, b, n in zip(OCCLUSION_BINS, OCCLUSION_BINS[1:], histogram, strict=False)
        },
        "truncated": round(sum(result.truncated for result in drawn) / max(len(occluded), 1), 4),
    }
