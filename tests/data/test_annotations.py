"""Raw formats become persons: real files of three data sets, what is left out, and every error a user can meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.config import UserError
from rtmpose.data.annotations import AREA_PER_BOX, index_raw, read_images
from rtmpose.descriptors import load_dataset
from tests.support import realdata

COCO, AIC, WHOLEBODY = load_dataset("coco17"), load_dataset("aic"), load_dataset("coco_wholebody")


def small_coco(root: Path, changes: list[dict[str, Any]] | None = None) -> Path:
    """A COCO folder with one 64x48 image a split, whose persons are a good one with `changes` made to it."""
    points = [[10 + 2 * k, 5 + 2 * k, 2] for k in range(17)]
    good = {"image_id": 7, "category_id": 1, "iscrowd": 0, "num_keypoints": 17, "area": 500.0, "bbox": [8.0, 4, 40, 40]}
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


def test_coco_as_it_is() -> None:
    raw = next(image for image in read_images(COCO, realdata("coco"), "val") if image.image_id == 252219)
    person = next(person for person in raw.persons if person.annotation_id == 481918)
    assert (raw.width, raw.height, raw.path.name) == (640, 428, "000000252219.jpg")
    assert person.box == (326.28, 174.56, 71.24, 197.25) and person.area == 8511.1568
    assert person.keypoints.shape == (17, 2) and person.keypoints.dtype == np.float32
    assert person.keypoints[0].tolist() == [356, 198] and set(person.visible.tolist()) == {2}
    assert (person.dataset, person.iscrowd, person.image_id) == ("coco17", False, 252219)


def test_coco_counts_and_reasons() -> None:
    images = list(read_images(COCO, realdata("coco"), "val"))
    reasons = [reason for image in images for reason, _ in image.left_out]
    assert len(images) == 200 and sum(len(image.persons) for image in images) == 493
    assert (reasons.count("no keypoints"), reasons.count("crowd")) == (254, 16)
    assert sum(len(image.annotations) for image in images) == 763


def test_aic_as_it_is() -> None:
    images = list(read_images(AIC, realdata("aic"), "train"))
    assert [len(image.persons) for image in images] == [3, 3, 3]
    person, annotation = images[0].persons[0], images[0].annotations[0]
    assert person.box == (279, 55, 213, 544)
    assert person.area == pytest.approx(213 * 544 * AREA_PER_BOX)
    assert person.keypoints[0].tolist() == [313, 201]
    assert person.visible.tolist() == [2, 1, 2, 1, 1, 2, 1, 0, 0, 2, 0, 0, 2, 2]
    assert annotation["num_keypoints"] == 10 and len(annotation["keypoints"]) == 42
    assert len({person.annotation_id for image in images for person in image.persons}) == 9


def test_wholebody_as_it_is() -> None:
    raw = next(image for image in read_images(WHOLEBODY, realdata("coco_wholebody"), "val") if image.image_id == 785)
    person, annotation = raw.persons[0], raw.annotations[0]
    assert person.keypoints.shape == (133, 2)
    np.testing.assert_allclose(person.keypoints[23:91].ravel(), np.delete(annotation["face_kpts"], slice(2, None, 3)))
    assert not annotation["lefthand_valid"] and person.visible[91:112].max() == 0
    assert annotation["righthand_valid"] and person.visible[112:].max() > 0
    assert person.visible[17:23].tolist() == annotation["foot_kpts"][2::3]


def test_a_part_that_is_not_valid_is_not_labelled(tmp_path: Path) -> None:
    parts = {"foot": (6, 2.0), "face": (68, 0.4), "lefthand": (21, 2), "righthand": (21, 1)}
    annotation: dict[str, Any] = {"id": 1, "image_id": 7, "bbox": [1, 1, 30, 30], "keypoints": [9.0, 9, 2] * 17}
    for part, (count, seen) in parts.items():
        annotation |= {f"{part}_kpts": [9.0, 9, seen] * count, f"{part}_valid": part != "foot"}
    root = small_coco(tmp_path / "coco")
    content = {"images": [{"id": 7, "file_name": "7.jpg"}], "annotations": [annotation]}
    (root / "annotations/coco_wholebody_val_v1.0.json").write_text(json.dumps(content))
    (person,) = next(read_images(WHOLEBODY, root, "val")).persons
    assert person.visible.tolist() == [2] * 17 + [0] * 6 + [1] * 68 + [2] * 21 + [1] * 21


def test_what_cannot_be_trained_on_is_left_out_with_its_reason(tmp_path: Path) -> None:
    outside = [-5.0, -5, 1] * 17
    changes: list[dict[str, Any]] = [
        {}, {"iscrowd": 1}, {"num_keypoints": 0}, {"bbox": [8, 4, 0, 40]}, {"bbox": [70, 4, 10, 10]},
        {"keypoints": outside}, {"id": 100}, {"keypoints": [5, 5, 0] * 17},
    ]  # fmt: skip
    (raw,) = read_images(COCO, small_coco(tmp_path / "coco", changes), "train")
    assert [person.annotation_id for person in raw.persons] == [100]
    assert raw.left_out == [
        ("crowd", 101), ("no keypoints", 102), ("empty box", 103), ("empty box", 104),
        ("points outside the image", 105), ("duplicate id", 100), ("no keypoints", 107),
    ]  # fmt: skip
    assert len(raw.annotations) == 8


def test_index_says_what_is_there(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco", [{}, {"iscrowd": 1}])
    (root / "train2017/mine.txt").write_text("the user's own")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))
    index = index_raw(COCO, root)
    assert index == index_raw(COCO, root) and json.loads(json.dumps(index)) == index
    assert sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*")) == before
    train = index["splits"]["train"]
    assert (train["images"], train["persons"], train["annotations"], train["left_out"]) == (1, 1, 2, {"crowd": 1})
    assert train["image_files"]["count"] == 2
    (root / "train2017/mine.txt").write_text("the user's own words")
    changed = index_raw(COCO, root, ["train"])["splits"]["train"]["image_files"]
    assert changed["sha256_of_names_and_sizes"] != train["image_files"]["sha256_of_names_and_sizes"]


def test_index_hashes_the_detector_boxes_that_are_there(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco", [{}])
    assert "detection_file" not in index_raw(COCO, root, ["val"])["splits"]["val"]
    name = COCO.splits["val"].detections
    assert name is not None
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("[]")
    digest = "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"  # of "[]"
    assert index_raw(COCO, root, ["val"])["splits"]["val"]["detection_file"] == {"path": name, "bytes": 2, "sha256": digest}


def failing(root: Path) -> str:
    with pytest.raises(UserError) as error:
        list(read_images(COCO, root, "train"))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_folder_says_what_to_download(tmp_path: Path) -> None:
    said = failing(tmp_path / "nowhere")
    for part in ("nowhere", "train2017.zip", "18 GB", "https://cocodataset.org", "licence", "CC BY 4.0"):
        assert part in said


def test_damaged_files_are_named(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco")
    (root / "train2017/7.jpg").unlink()
    assert "7.jpg" in failing(root) and "missing" in failing(root)
    path = root / "annotations/person_keypoints_train2017.json"
    path.write_bytes(path.read_bytes()[:200])
    assert str(path) in failing(root) and "download it again" in failing(root)
    path.write_text("[]")
    assert "not a COCO annotation file" in failing(root)
    path.write_text('{"images": [{"id": 7}], "annotations": []}')
    assert "'file_name'" in failing(root)


def test_keypoints_of_the_wrong_length_are_named(tmp_path: Path) -> None:
    said = failing(small_coco(tmp_path / "coco", [{"keypoints": [1, 2, 2] * 16}]))
    for part in ("person_keypoints_train2017.json", "100", "48", "51"):
        assert part in said


def test_aic_keypoints_of_the_wrong_length_are_named(tmp_path: Path) -> None:
    layout = AIC.splits["train"]
    (tmp_path / layout.images).mkdir(parents=True)
    image = {"image_id": "ab", "human_annotations": {"human1": [0, 0, 9, 9]}, "keypoint_annotations": {"human1": [1]}}
    (tmp_path / layout.annotations).write_text(json.dumps([image]))
    with pytest.raises(UserError, match=r"image ab human1: 1 numbers, expected 42"):
        list(read_images(AIC, tmp_path, "train"))


def test_a_split_that_the_descriptor_lacks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'test'"):
        list(read_images(COCO, tmp_path, "test"))
