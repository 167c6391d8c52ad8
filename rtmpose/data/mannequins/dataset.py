"""Mannequins in the raw layouts of COCO, AI Challenger and COCO-WholeBody, so that everything runs without a
download.

`render_dataset` draws articulated people (`body`, `points`, `render`, `scene`) and writes exactly the files
that the real data sets have. An image depends on the seed, the layout, the level, its split and its index
alone, never on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins import body, points, render, scene
from rtmpose.data.mannequins.body import Array
from rtmpose.data.mannequins.points import AIC14, COCO17
from rtmpose.data.mannequins.scene import Person, render_scene
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError, read_json, temporary_beside, write_atomic, writing

MARKER = "mannequins.json"
JPEG_QUALITY = 92
LAYOUTS = ("coco17", "aic", "coco_wholebody")
LEVELS = ("easy", "hard")
SPLITS = ("train", "val")
OCCLUSION_BINS = (0.0, 0.1, 0.25, 0.5, 1.0)
# ids of a second split start here, so that they are unique across splits as COCO's are
FIRST_IDS = {"train": 1, "val": 1_000_001}
WHOLEBODY_PARTS = {"foot": (17, 23), "face": (23, 91), "lefthand": (91, 112), "righthand": (112, 133)}


@dataclass(frozen=True)
class _Parameters:
    layout: str
    level: str
    images: dict[str, int]
    size: tuple[int, int]
    seed: int
    code: str

    def as_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class _Task:
    parameters: _Parameters
    split: str
    index: int
    path: Path


@dataclass(frozen=True)
class _Drawn:
    """What a worker reports of one image: its annotation in the layout's form, and figures for
    the summary.
    """

    name: str
    annotations: list[dict[str, Any]]
    views: list[str]
    occluded: list[float]
    truncated: int


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
        root: folder of the data set. It is ours when it is missing, empty, or holds `mannequins.json`; there only files
            that an earlier call wrote are replaced, any other file stays. With the same parameters and the same drawing
            code nothing is done.
        layout: "coco17", "aic" or "coco_wholebody".
        level: "easy" (mostly front and side views, calm backgrounds) or "hard" (all views, clutter, occlusion).
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
) -> _Parameters:
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
    modules = (body, points, render, scene)
    sources = [Path(str(module.__file__)).read_bytes() for module in modules] + [Path(__file__).read_bytes()]
    code = hashlib.sha256(b"".join(sources)).hexdigest()[:16]
    wanted = {split: int(images[split]) for split in SPLITS if images.get(split, 0) > 0}
    return _Parameters(layout, level, wanted, (int(size[0]), int(size[1])), int(seed), code)


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


def _image_name(parameters: _Parameters, split: str, index: int) -> str:
    if parameters.layout != "aic":
        return f"{split}2017/{FIRST_IDS[split] + index:012d}.jpg"
    digest = hashlib.sha1(f"{parameters.seed} {parameters.level} {split} {index}".encode()).hexdigest()
    return str(_aic_paths(split)[1] / f"{digest}.jpg")


def _aic_paths(split: str) -> tuple[Path, Path]:
    """AI Challenger's own names of a split's annotation file and image folder."""
    word, day = ("train", "20170909") if split == "train" else ("validation", "20170911")
    folder = Path(f"ai_challenger_keypoint_{word}_{'20170902' if split == 'train' else day}")
    return (
        folder / f"keypoint_{word}_annotations_{day}.json",
        folder / f"keypoint_{word}_images_{'20170902' if split == 'train' else day}",
    )


def _render_into(
    folder: Path, parameters: _Parameters, workers: int | None, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    tasks = [
        _Task(parameters, split, index, folder / _image_name(parameters, split, index))
        for split, count in parameters.images.items()
        for index in range(count)
    ]
    for parent in {task.path.parent for task in tasks}:
        parent.mkdir(parents=True)
    drawn: dict[str, list[_Drawn]] = {split: [] for split in parameters.images}
    for done, (task, result) in enumerate(zip(tasks, _draw_all(tasks, workers), strict=True), start=1):
        drawn[task.split].append(result)
        if progress is not None:
            progress(done, len(tasks))
    for split, results in drawn.items():
        _WRITERS[parameters.layout](folder, split, parameters, results)
    return {split: _summary(results) for split, results in drawn.items()}


def _draw_all(tasks: list[_Task], workers: int | None) -> Iterator[_Drawn]:
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


def _draw(task: _Task) -> _Drawn:
    """Render one image, write its JPEG and describe it."""
    p = task.parameters
    stream = [p.seed, LAYOUTS.index(p.layout), LEVELS.index(p.level), SPLITS.index(task.split), task.index]
    scene = render_scene(np.random.default_rng(stream), p.level, p.size)
    bgr = np.ascontiguousarray(scene.image[..., ::-1])
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert encoded
    task.path.write_bytes(data.tobytes())
    chosen = AIC14 if p.layout == "aic" else COCO17
    annotate = (
        _aic_person
        if p.layout == "aic"
        else _wholebody_person
        if p.layout == "coco_wholebody"
        else _coco_person
    )
    return _Drawn(
        name=task.path.name,
        annotations=[annotate(person) for person in scene.persons],
        views=[person.view for person in scene.persons],
        occluded=[_occluded(person, chosen) for person in scene.persons],
        truncated=sum(person.truncated for person in scene.persons),
    )


def _occluded(person: Person, chosen: Iterable[int]) -> float:
    flags = person.visible[list(chosen)]
    return float((flags == 1).sum() / max((flags > 0).sum(), 1))


def _triples(points: Array, visible: NDArray[np.int64]) -> list[float]:
    rounded = np.round(points, 2)
    return [
        value
        for (x, y), v in zip(rounded.tolist(), visible.tolist(), strict=True)
        for value in (x, y, int(v))
    ]


def _coco_person(person: Person) -> dict[str, Any]:
    flags = person.visible[:17]
    return {
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": [],
        "num_keypoints": int((flags > 0).sum()),
        "keypoints": _triples(person.points[:17], flags),
        "bbox": [round(value, 2) for value in person.box],
        "area": person.area,
        "attributes": {
            "view": person.view,
            "occluded": round(_occluded(person, COCO17), 4),
            "truncated": person.truncated,
        },
    }


def _wholebody_person(person: Person) -> dict[str, Any]:
    """COCO-WholeBody's fields; a face or hand of which nothing is seen is not labelled, as in the
    real data.
    """
    annotation = _coco_person(person)
    for part, (first, last) in WHOLEBODY_PARTS.items():
        points, flags = person.points[first:last], person.visible[first:last]
        labelled = flags > 0
        valid = bool(labelled.any() if part == "foot" else (flags == 2).any())
        annotation[f"{part}_kpts"] = _triples(points, flags) if valid else [0.0, 0.0, 0] * (last - first)
        annotation[f"{part}_valid"] = valid
        if part != "foot":
            low, high = (
                (points[labelled].min(0), points[labelled].max(0)) if valid else (np.zeros(2), np.zeros(2))
            )
            annotation[f"{part}_box"] = [round(float(value), 2) for value in (*low, *(high - low))]
    return annotation


def _aic_person(person: Person) -> dict[str, Any]:
    """AI Challenger's corner box and 14 points, all integers: flag 1 seen, 2 hidden, 3 not labelled at (0,
    0).
    """
    x, y, w, h = person.box
    keypoints: list[int] = []
    for (px, py), flag in zip(
        person.points[list(AIC14)].tolist(), person.visible[list(AIC14)].tolist(), strict=True
    ):
        keypoints += [round(px), round(py), {2: 1, 1: 2, 0: 3}[flag]]
    return {"box": [round(x), round(y), round(x + w), round(y + h)], "keypoints": keypoints}


def _write_coco(folder: Path, split: str, parameters: _Parameters, drawn: list[_Drawn]) -> None:
    images, annotations = [], []
    for index, result in enumerate(drawn):
        image_id = FIRST_IDS[split] + index
        images.append(
            {
                "id": image_id,
                "file_name": result.name,
                "width": parameters.size[0],
                "height": parameters.size[1],
                "license": 1,
            }
        )
        for number, annotation in enumerate(result.annotations):
            annotations.append({"id": image_id * 10 + number, "image_id": image_id, **annotation})
    skeleton = load_skeleton("coco17")
    limbs = [[a + 1, b + 1] for a, b in skeleton.limbs]
    person = {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": skeleton.names,
        "skeleton": limbs,
    }
    content = {
        "info": {
            "description": f"mannequins, {parameters.level}, seed {parameters.seed}",
            "version": "1.0",
            "year": 2025,
        },
        "licenses": [
            {"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
        ],
        "images": images,
        "categories": [person],
        "annotations": annotations,
    }
    whole = parameters.layout == "coco_wholebody"
    name = f"coco_wholebody_{split}_v1.0.json" if whole else f"person_keypoints_{split}2017.json"
    write_atomic(folder / "annotations" / name, json.dumps(content))
    if split == "val" and not whole:
        boxes = json.dumps(_detections(content, parameters))
        write_atomic(
            folder / "person_detection_results" / "COCO_val2017_detections_AP_H_56_person.json", boxes
        )


def _detections(content: Mapping[str, Any], parameters: _Parameters) -> list[dict[str, Any]]:
    """What a person detector might find: most persons with a slightly wrong box, and some boxes with nobody
    in them.
    """
    rng = np.random.default_rng([parameters.seed, 7])
    found = []
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        dx, dy, dw, dh = rng.normal(0, 0.04, 4)
        box = [x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh)]
        if rng.random() < 0.97:
            found.append((annotation["image_id"], box, rng.beta(9, 1.2)))
    for image in content["images"]:
        if rng.random() < 0.3:
            w, h = rng.uniform(0.1, 0.3) * image["width"], rng.uniform(0.2, 0.6) * image["height"]
            box = [rng.uniform(0, image["width"] - w), rng.uniform(0, image["height"] - h), w, h]
            found.append((image["id"], box, rng.beta(1.2, 6)))
    return [
        {
            "image_id": image_id,
            "category_id": 1,
            "bbox": [round(float(v), 2) for v in box],
            "score": round(float(score), 4),
        }
        for image_id, box, score in found
    ]


def _write_aic(folder: Path, split: str, parameters: _Parameters, drawn: list[_Drawn]) -> None:
    content = []
    for result in drawn:
        people = {f"human{number}": person for number, person in enumerate(result.annotations, start=1)}
        content.append(
            {
                "image_id": Path(result.name).stem,
                "url": "",
                "human_annotations": {name: person["box"] for name, person in people.items()},
                "keypoint_annotations": {name: person["keypoints"] for name, person in people.items()},
            }
        )
    write_atomic(folder / _aic_paths(split)[0], json.dumps(content))


_WRITERS = {"coco17": _write_coco, "coco_wholebody": _write_coco, "aic": _write_aic}


def _summary(drawn: list[_Drawn]) -> dict[str, Any]:
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
