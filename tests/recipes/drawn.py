"""Small sets in the layout of those that have no real samples here: two pictures, a pose in each.

They have what the real files have and others lack: points as nested lists (RHD), no `iscrowd` (sub-JHMDB).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rtmpose.descriptors import Dataset

SIDE = 128  # px
DRAWN = ("jhmdb", "posetrack18", "freihand", "rhd", "face300w", "cofw")


def write_drawn(dataset: Dataset, root: Path) -> Path:
    """The raw folder of `dataset` with the files of all of its splits."""
    for number, split in enumerate(dataset.splits.values()):
        content = _content(dataset, number)
        path = root / split.annotations
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        for image in content["images"]:
            picture = root / split.images / image["file_name"]
            picture.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(picture), _picture(image["id"]))
    return root


def _picture(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return cv2.resize(
        rng.integers(0, 256, (16, 16, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
    )


def _content(dataset: Dataset, number: int) -> dict[str, Any]:
    rng, count = np.random.default_rng(number), dataset.skeleton.num_keypoints
    images, annotations = [], []
    for which in range(2):
        identity = 1 + 10 * number + which
        images.append(
            {"id": identity, "file_name": f"part/{identity:05d}.png", "width": SIDE, "height": SIDE}
        )
        points = np.concatenate([rng.uniform(24, SIDE - 24, (count, 2)), np.full((count, 1), 2.0)], axis=1)
        low, high = points[:, :2].min(axis=0) - 8, points[:, :2].max(axis=0) + 8
        annotation = {
            "id": identity,
            "image_id": identity,
            "category_id": 1,
            "bbox": [*low.tolist(), *(high - low).tolist()],
            "keypoints": points.tolist() if dataset.name == "rhd" else points.ravel().tolist(),
        }
        annotations.append(annotation if dataset.name == "jhmdb" else {**annotation, "iscrowd": 0})
    category: dict[str, Any] = {"id": 1, "name": "person"}
    return {"images": images, "annotations": annotations, "categories": [category]}
