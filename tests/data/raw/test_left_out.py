"""What of a raw data set is taken, what is left out and why, and the index that counts it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtmpose.data.raw.annotations import ODD_BOX, index_raw, read_images
from rtmpose.data.raw.coco_form import AREA_PER_BOX
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError
from tests.data.raw.samples import COCO, WHOLEBODY, small_coco


def test_a_part_that_is_not_valid_is_not_labelled(tmp_path: Path) -> None:
    parts = {"foot": (6, 2.0), "face": (68, 0.4), "lefthand": (21, 2), "righthand": (21, 1)}
    annotation: dict[str, Any] = {
        "id": 1,
        "image_id": 7,
        "bbox": [1, 1, 30, 30],
        "keypoints": [9.0, 9, 2] * 17,
    }
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
    assert [person.annotation_id for person in raw.persons] == [100, 102]  # num_keypoints is counted anew
    assert raw.left_out == [("crowd", 101), ("no keypoints", 107)]
    assert raw.skipped == [
        ("empty box", 103),
        ("empty box", 104),
        ("points outside the image", 105),
        ("duplicate id", 100),
    ]
    assert len(raw.annotations) == 8


def test_mpii_gathers_the_persons_of_an_image(tmp_path: Path) -> None:
    person = {
        "image": "7.jpg",
        "center": [30, 20],
        "scale": 0.1,
        "joints": [[9, 9]] * 16,
        "joints_vis": [1] * 16,
    }
    others = [
        {**person, "image": "x7.jpg"},
        {**person, "center": [-1, -1]},
        {**person, "joints_vis": [0] * 16},
    ]
    dataset = load_dataset("mpii")
    (tmp_path / "images").mkdir()
    for name in ("7.jpg", "x7.jpg"):
        (tmp_path / "images" / name).touch()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/mpii_train.json").write_text(json.dumps([person, *others]))
    first, second = read_images(dataset, tmp_path, "train")
    assert [(raw.image_id, [p.annotation_id for p in raw.persons]) for raw in (first, second)] == [
        (7, [1]),
        ("x7", [2]),
    ]
    assert first.skipped == [("empty box", 3)] and first.left_out == [("no keypoints", 4)]
    (tmp_path / "annotations/mpii_train.json").write_text(json.dumps([{**person, "joints": [[9, 9]]}]))
    with pytest.raises(UserError, match=r"person 1 \(7\.jpg\): joints: has 2 numbers, expected 32"):
        list(read_images(dataset, tmp_path, "train"))


def test_defects_of_whole_images_take_their_persons_along(tmp_path: Path) -> None:
    root = small_coco(
        tmp_path / "coco", [{}, {"iscrowd": 1}, {"image_id": 8}, {"image_id": 9}, {"image_id": 99}]
    )
    path = root / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    content["images"] += [
        {"id": 7, "file_name": "7.jpg", "width": 64, "height": 48},
        {"id": 8, "file_name": "7.jpg"}, {"id": 8, "file_name": "8.jpg"},
        {"id": 9, "file_name": "9.jpg"},
    ]  # fmt: skip
    path.write_text(json.dumps(content))
    twice, ambiguous, missing, unlisted = read_images(COCO, root, "train")
    assert [person.annotation_id for person in twice.persons] == [100] and twice.left_out == [("crowd", 101)]
    assert (ambiguous.persons, ambiguous.skipped) == ([], [("duplicate image id", 102)])
    assert (missing.persons, missing.skipped) == ([], [("missing image", 103)])
    assert (unlisted.image_id, unlisted.skipped) == (
        99,
        [("image not listed", 104)],
    ) and not unlisted.path.exists()
    assert index_raw(COCO, root, ["train"])["splits"]["train"]["skipped"] == {
        "duplicate image id": 1, "missing image": 1, "image not listed": 1,
    }  # fmt: skip


def test_where_points_lie_is_judged_by_the_labelled_ones(tmp_path: Path) -> None:
    beyond = np.array([[70.0, 20, 2]] * 17)
    one_inside, nan = beyond.copy(), beyond.copy()
    one_inside[3] = 60, 20, 1
    nan[5, 0] = np.nan
    unlabelled_inside = beyond.copy()
    unlabelled_inside[3] = 60, 20, 0
    changes = [
        {"keypoints": points.ravel().tolist()} for points in (beyond, one_inside, nan, unlabelled_inside)
    ]
    (raw,) = read_images(COCO, small_coco(tmp_path / "coco", changes), "train")
    assert [person.annotation_id for person in raw.persons] == [101]
    assert raw.skipped == [
        ("points outside the image", 100), ("points that are not finite", 102), ("points outside the image",
        103),
    ]  # fmt: skip


def test_a_plain_file_without_the_usual_extras(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco", [{}, {"id": 5}, {"id": 6}, {"id": 7}])
    path = root / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        for key in ("area", "num_keypoints", "iscrowd", "category_id"):
            del annotation[key]
    del content["annotations"][1]["keypoints"]
    content["annotations"][2]["bbox"] = None
    content["annotations"][3]["bbox"] = [1, 2, "x", 4]
    content["images"][0]["spacing"] = 0.1
    del content["categories"], content["images"][0]["width"]
    path.write_text(json.dumps(content))
    (raw,) = read_images(COCO, root, "train")
    assert [person.area for person in raw.persons] == [40 * 40 * AREA_PER_BOX]
    assert raw.left_out == [("no keypoints", 5)] and raw.skipped == [("empty box", 6), (ODD_BOX, 7)]
    wanted = {
        "area": 40 * 40 * AREA_PER_BOX,
        "num_keypoints": 17,
        "iscrowd": 0,
        "category_id": 1,
        "spacing": 0.1,
    }
    assert wanted.items() <= raw.annotations[0].items()


def test_categories_are_chosen_by_name(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco", [{}, {"category_id": 2, "keypoints": [1]}])
    path = root / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text()) | {
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    }
    path.write_text(json.dumps(content))
    (raw,) = read_images(replace(COCO, categories=("person",)), root, "train")
    assert [annotation["id"] for annotation in raw.annotations] == [100]
    with pytest.raises(UserError, match="has no category 'horse', only person, car"):
        list(read_images(replace(COCO, categories=("horse",)), root, "train"))


def test_index_says_what_is_there(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco", [{}, {"iscrowd": 1}])
    (root / "train2017/mine.txt").write_text("the user's own")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))
    index = index_raw(COCO, root)
    assert index == index_raw(COCO, root) and json.loads(json.dumps(index)) == index
    assert sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*")) == before
    train = index["splits"]["train"]
    assert (train["images"], train["persons"], train["annotations"], train["left_out"]) == (
        1,
        1,
        2,
        {"crowd": 1},
    )
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
    assert index_raw(COCO, root, ["val"])["splits"]["val"]["detection_file"] == {
        "path": name,
        "bytes": 2,
        "sha256": digest,
    }
