"""Drawn persons and predictions that references were computed from: `tests/golden/measures/make.py` and the
tests draw the same by their seeds. NumPy is all it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CROWD_IMAGES, WHOLE_IMAGES = 24, 10
# Of each drawn case of points: its seed, how many keypoints, and the two that are labelled of everybody since
# distances are divided by theirs.
POINTS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "hand": (1, 21, ()),
    "mpii": (2, 16, ()),
    "jhmdb": (5, 15, (4, 5)),
    "wflw": (6, 98, (60, 72)),
    "lapa": (7, 106, (66, 79)),
    "coco_wholebody_face": (8, 68, (36, 45)),
}
FIELDS = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


def points(name: str, persons: int = 40) -> dict[str, NDArray[Any]]:
    """Persons of a case of POINTS on 10 images: true and predicted points (P, K, 2) px, which are labelled
    (P, K), boxes xywh (P, 4) px, heads (P,) px and the image of each.
    """
    seed, keypoints, always = POINTS[name]
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(0, 200, (persons, 2)), rng.uniform(60, 240, (persons, 2))], 1)
    true = boxes[:, None, :2] + rng.uniform(0, 1, (persons, keypoints, 2)) * boxes[:, None, 2:]
    spread = 10.0 ** rng.uniform(-0.5, 1.8, (persons, keypoints, 1))
    labelled = rng.uniform(size=(persons, keypoints)) < 0.8
    labelled[:, always] = True
    return {
        "true": true,
        "predicted": true + spread * rng.normal(size=true.shape),
        "labelled": labelled,
        "boxes": boxes,
        "heads": rng.uniform(15, 60, persons),
        "image": np.sort(rng.integers(0, 10, persons)),
    }


def _person(rng: np.random.Generator, keypoints: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A box xywh and points (K, 3), rounded as annotation files are."""
    box = np.concatenate([rng.uniform(0, 300, 2), rng.uniform(50, 200, 2)]).round(2)
    flags = rng.choice([0, 1, 2], keypoints, p=[0.2, 0.2, 0.6])
    places = (box[:2] + rng.uniform(0, 1, (keypoints, 2)) * box[2:]).round(1)
    return box, np.concatenate([places * (flags > 0)[:, None], flags[:, None]], 1)


def _found(rng: np.random.Generator, box: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
    """Points (K, 3) near the true ones, as exact as the person is easy."""
    spread = rng.choice([0.01, 0.03, 0.08]) * np.sqrt(box[2] * box[3])
    hidden = box[:2] + rng.uniform(0, 1, (len(true), 2)) * box[2:]
    places = np.where(true[:, 2:] > 0, true[:, :2], hidden) + spread * rng.normal(size=(len(true), 2))
    return np.concatenate([places, rng.uniform(0.3, 1, (len(true), 1))], 1).round(3)


def crowds(seed: int = 3) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A ground truth as CrowdPose writes it, without areas, and results: images of 2 to 24 persons, some of
    whom show hidden points alone, and some found twice or not at all.
    """
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    results: list[dict[str, Any]] = []
    for image in range(1, CROWD_IMAGES + 1):
        index = round(float(rng.choice([rng.uniform(0, 0.2), rng.uniform(0.2, 0.8), rng.uniform(0.8, 1)])), 2)
        truth["images"].append({"id": image, "file_name": f"{image}.jpg", "crowdIndex": index})
        for _ in range(24 if image == 1 else rng.integers(2, 7)):
            box, true = _person(rng, 14)
            if rng.uniform() < 0.15:
                true[:, 2] = np.minimum(true[:, 2], 1)
            number = len(truth["annotations"]) + 1
            truth["annotations"].append({
                "id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": box.tolist(),
                "keypoints": true.ravel().tolist(), "num_keypoints": int((true[:, 2] == 2).sum()),
            })  # fmt: skip
            for _ in range(rng.choice([0, 1, 2], p=[0.1, 0.75, 0.15])):
                results.append(_result(rng, image, _found(rng, box, true)))
    return truth, results


def whole_bodies(seed: int = 4) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A ground truth of COCO-WholeBody's 133 points in its five fields, areas of their own, and results of
    133 points. Hands, faces and feet are missing now and then.
    """
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    results: list[dict[str, Any]] = []
    for image in range(1, WHOLE_IMAGES + 1):
        truth["images"].append({"id": image, "file_name": f"{image}.jpg"})
        for _ in range(rng.integers(1, 5)):
            box, true = _person(rng, 133)
            start, fields = 0, {}
            for name, count in FIELDS.items():
                if name != "keypoints" and rng.uniform() < 0.35:
                    true[start : start + count] = 0
                fields[name] = true[start : start + count].ravel().tolist()
                start += count
            truth["annotations"].append({
                "id": len(truth["annotations"]) + 1, "image_id": image, "category_id": 1, "iscrowd": 0,
                "bbox": box.tolist(), "area": round(float(box[2] * box[3] * rng.uniform(0.3, 0.8)), 2),
                "num_keypoints": int((true[:17, 2] > 0).sum()), **fields,
            })  # fmt: skip
            for _ in range(rng.choice([1, 2], p=[0.8, 0.2])):
                results.append(_result(rng, image, _found(rng, box, true)))
    return truth, results


def _result(rng: np.random.Generator, image: int, found: NDArray[Any]) -> dict[str, Any]:
    score = round(float(rng.uniform(0.1, 1)), 6)
    return {"image_id": image, "category_id": 1, "keypoints": found.ravel().tolist(), "score": score}
