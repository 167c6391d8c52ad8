"""The files of three raw layouts: those of COCO, AI Challenger and COCO-WholeBody, filled with mannequins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins.body import Array
from rtmpose.data.mannequins.points import AIC14, COCO17
from rtmpose.data.mannequins.scene import Person
from rtmpose.descriptors import load_skeleton
from rtmpose.files import write_atomic

# ids of a second split start here, so that they are unique across splits as COCO's are
FIRST_IDS = {"train": 1, "val": 1_000_001}
WHOLEBODY_PARTS = {"foot": (17, 23), "face": (23, 91), "lefthand": (91, 112), "righthand": (112, 133)}


@dataclass(frozen=True)
class Parameters:
    """What a data set of mannequins is rendered from; `code` names the drawing code."""

    layout: str
    level: str
    images: dict[str, int]
    size: tuple[int, int]
    seed: int
    code: str

    def as_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Drawn:
    """What a worker reports of one image: its annotation in the layout's form, and figures for
    the summary.
    """

    name: str
    annotations: list[dict[str, Any]]
    views: list[str]
    occluded: list[float]
    truncated: int


def image_name(parameters: Parameters, split: str, index: int) -> str:
    """An image's path below the data set's folder, in the layout's own manner."""
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


def occluded_share(person: Person, chosen: Iterable[int]) -> float:
    """The share of a person's labelled points, of those that are `chosen`, that are hidden."""
    flags = person.visible[list(chosen)]
    return float((flags == 1).sum() / max((flags > 0).sum(), 1))


def _triples(points: Array, visible: NDArray[np.int64]) -> list[float]:
    rounded = np.round(points, 2)
    return [
        value
        for (x, y), v in zip(rounded.tolist(), visible.tolist(), strict=True)
        for value in (x, y, int(v))
    ]


def coco_person(person: Person) -> dict[str, Any]:
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
            "occluded": round(occluded_share(person, COCO17), 4),
            "truncated": person.truncated,
        },
    }


def _wholebody_person(person: Person) -> dict[str, Any]:
    """COCO-WholeBody's fields; a face or hand of which nothing is seen is not labelled, as in the
    real data.
    """
    annotation = coco_person(person)
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


def _write_coco(folder: Path, split: str, parameters: Parameters, drawn: list[Drawn]) -> None:
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


def _detections(content: Mapping[str, Any], parameters: Parameters) -> list[dict[str, Any]]:
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


def _write_aic(folder: Path, split: str, parameters: Parameters, drawn: list[Drawn]) -> None:
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


ANNOTATE: Mapping[str, Callable[[Person], dict[str, Any]]] = {
    "coco17": coco_person,
    "coco_wholebody": _wholebody_person,
    "aic": _aic_person,
}
WRITE: Mapping[str, Callable[[Path, str, Parameters, list[Drawn]], None]] = {
    "coco17": _write_coco,
    "coco_wholebody": _write_coco,
    "aic": _write_aic,
}
