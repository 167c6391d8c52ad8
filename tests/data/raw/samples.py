"""The real samples of every data set, and a small COCO folder that tests change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rtmpose.data.raw.annotations import RawImage, read_images
from rtmpose.descriptors import Dataset, load_dataset
from tests.support import realdata

COCO, AIC, WHOLEBODY = load_dataset("coco17"), load_dataset("aic"), load_dataset("coco_wholebody")
# A descriptor, the annotation file and image folder of its real samples, and the persons in them.
SAMPLES = {
    "mpii": ("others/mpii/test_mpii.json", "others/mpii", 5),
    "crowdpose": ("others/crowdpose/test_crowdpose.json", "others/crowdpose", 4),
    "ap10k": ("others/ap10k/test_ap10k.json", "others/ap10k", 2),
    "lapa106": ("others/lapa/test_lapa.json", "others/lapa", 2),
    "wflw": ("others/wflw/test_wflw.json", "others/wflw", 4),
    "onehand10k": ("others/onehand10k/test_onehand10k.json", "others/onehand10k", 4),
    "ochuman": ("others/ochuman/test_ochuman.json", "others/ochuman", 5),
    "halpe26": ("others/halpe/test_halpe.json", "coco_wholebody/val2017", 12),
    "halpe136": ("others/halpe/test_halpe.json", "coco_wholebody/val2017", 12),
    "halpe_hand": ("others/halpe/test_halpe.json", "coco_wholebody/val2017", 11),
    "halpe_face": ("others/halpe/test_halpe.json", "coco_wholebody/val2017", 9),
    "coco_wholebody_hand": (
        "coco_wholebody/annotations/coco_wholebody_val_v1.0.json",
        "coco_wholebody/val2017",
        10,
    ),
    "coco_wholebody_face": (
        "coco_wholebody/annotations/coco_wholebody_val_v1.0.json",
        "coco_wholebody/val2017",
        4,
    ),
    "coco_wholebody_foot": (
        "coco_wholebody/annotations/coco_wholebody_val_v1.0.json",
        "coco_wholebody/val2017",
        10,
    ),
}


def samples(name: str) -> tuple[Dataset, list[RawImage]]:
    """The real samples of data set `name`, read where they lie."""
    annotations, images, _ = SAMPLES[name]
    dataset = load_dataset(name).with_files("val", annotations, images)
    realdata(annotations)
    return dataset, list(read_images(dataset, realdata(), "val"))


def small_coco(root: Path, changes: list[dict[str, Any]] | None = None) -> Path:
    """A COCO folder with one 64x48 image a split, whose persons are a good one with `changes` made to it."""
    points = [[10 + 2 * k, 5 + 2 * k, 2] for k in range(17)]
    good = {
        "image_id": 7,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 17,
        "area": 500.0,
        "bbox": [8.0, 4, 40, 40],
    }
    annotations = [
        {**good, "id": 100 + i, "keypoints": np.array(points).ravel().tolist(), **change}
        for i, change in enumerate([{}] if changes is None else changes)
    ]
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        content = {
            "images": [{"id": 7, "file_name": "7.jpg", "width": 64, "height": 48}],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        (root / f"annotations/person_keypoints_{split}2017.json").write_text(json.dumps(content))
        (root / f"{split}2017").mkdir()
        noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(root / f"{split}2017/7.jpg"), noise)
    return root
