"""What is implausible though nothing of it is broken: counted, with the first ids."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.data.raw.check import check_split
from rtmpose.data.raw.doubts import flip_doubts
from rtmpose.descriptors import load_dataset, shipped_datasets
from tests.data.raw.real_files import (
    COCO,
    POINTS,
    Change,
    Desk,
    doubts,
    each_annotation,
    persons,
    plain_set,
)
from tests.support import ROOT, realdata


def test_names_in_another_order_or_of_another_kind(tmp_path: Path) -> None:
    def named(edit: Any) -> Change:
        return lambda content: content["categories"][0].update(
            keypoints=edit(content["categories"][0]["keypoints"])
        )

    def swapped(names: list[str]) -> list[str]:
        names[5], names[6] = names[6], names[5]
        return names

    same = [
        lambda names: [name.replace("_", " ").title() for name in names],
        lambda names: [name.replace("left_", "l-").replace("right_", "r-") for name in names],
        lambda names: ["".join(word.title() for word in name.split("_")) for name in names],
        lambda names: ["_".join(reversed(name.split("_"))) for name in names],
        lambda names: [],
        lambda names: None,
    ]
    for k, edit in enumerate(same):
        assert doubts(plain_set(tmp_path / f"same{k}", named(edit))) == ""
    other = {
        "swapped": (swapped, "the same names in another order", "points 5..6"),
        "reversed": (lambda names: names[::-1], "the same names in another order", "points 0..7, 9..16"),
        "one": (lambda names: [*names[:4], "chin", *names[5:]], "other names", "point 4 "),
        "shorter": (lambda names: names[:15], "other names", "points 15..16"),
    }
    for name, (edit, kind, places) in other.items():
        said = doubts(plain_set(tmp_path / name, named(edit)))
        assert kind in said and places in said and "category 'person'" in said, said


def test_flip_pairs_forgotten(tmp_path: Path) -> None:
    text = (ROOT / "datasets/coco17.yaml").read_text()
    text = text.replace(
        "[left_eye, right_eye], [left_ear, right_ear], [left_shoulder",
        "[left_ear, right_eye], [left_shoulder",
        1,
    )
    start = text.index("flip_pairs")
    assert "[left_ear, right_eye]" in text[start:]
    (tmp_path / "mine.yaml").write_text(text)
    said = doubts(plain_set(tmp_path / "a"), load_dataset(str(tmp_path / "mine.yaml")))
    assert "flip_pairs" in said and "[left_eye, right_eye], [left_ear, right_ear]" in said
    for name in shipped_datasets():
        assert list(flip_doubts(load_dataset(name))) == [], name


@pytest.mark.parametrize(
    ("box", "wrong"), [([40, 12, 120, 107], True), ([30, 5, 115, 110], True), ([40, 12, 80, 95], False)]
)
def test_boxes_as_corners(box: list[float], wrong: bool, tmp_path: Path) -> None:
    said = doubts(plain_set(tmp_path / "a", each_annotation(bbox=box)))
    assert ("3 of 3 boxes fit their points as corners" in said) == wrong


def test_shares_instead_of_pixels(tmp_path: Path) -> None:
    flat = [number for x, y, v in POINTS for number in (x / 160, y / 120, v)]
    both = doubts(plain_set(tmp_path / "a", each_annotation(keypoints=flat, bbox=[0.25, 0.1, 0.5, 0.8])))
    assert "3 boxes are shares" in both and "3 persons have keypoints that are shares" in both
    points = doubts(plain_set(tmp_path / "b", each_annotation(keypoints=flat)))
    assert "keypoints that are shares" in points and "boxes are shares" not in points
    boxes = doubts(plain_set(tmp_path / "c", each_annotation(bbox=[0.25, 0.1, 0.5, 0.8])))
    assert "boxes are shares" in boxes and "have keypoints" not in boxes


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ([0, 0, 2], "6 labelled points lie at exactly (0, 0)"),
        ([0, 0, 1], "6 labelled points lie at exactly (0, 0)"),
        ([0.0, 0.0, 2.0], "6 labelled points lie at exactly (0, 0)"), ([0, 0, 0], ""), ([0, 7, 2], ""),
        ([9, 9, 3], "outside 0, 1, 2: 3 (6 times)"), ([9, 9, -1], "outside 0, 1, 2: -1 (6 times)"),
        ([9, 9, 0.5], "outside 0, 1, 2: 0.5 (6 times)"), ([9, 9, 100], "outside 0, 1, 2: 100 (6 times)"),
        ([9, 9, "3"], "outside 0, 1, 2: 3 (6 times)"),
    ],
)  # fmt: skip
def test_points_in_the_corner_and_odd_flags(point: list[Any], said: str, tmp_path: Path) -> None:
    flat = [v for p in POINTS for v in p]
    found = doubts(plain_set(tmp_path / "a", each_annotation(keypoints=point * 2 + flat[6:])))
    assert said in found and bool(said) == bool(found) and (not said or "first annotations: 1, 2, 3" in found)


def test_all_flags_one(tmp_path: Path) -> None:
    flat = [number for x, y, _ in POINTS for number in (x, y, 1)]
    assert "all 51 labelled points have visibility flag 1" in doubts(
        plain_set(tmp_path / "a", each_annotation(keypoints=flat))
    )
    mixed = plain_set(tmp_path / "b", lambda content: content["annotations"][0].update(keypoints=flat))
    assert doubts(mixed) == ""


def test_flags_of_ai_challenger(tmp_path: Path) -> None:
    dataset = load_dataset("aic")
    layout = dataset.splits["train"]
    (tmp_path / layout.images).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / layout.images / "ab.jpg"), np.zeros((100, 100, 3), np.uint8))
    image = {
        "image_id": "ab", "human_annotations": {"human1": ["5", "5", 90, 90]},
        "keypoint_annotations": {"human1": [9, 9, 0, *[20, 20, 1] * 13]},
    }  # fmt: skip
    (tmp_path / layout.annotations).write_text(json.dumps([image]))
    assert "outside 1, 2, 3: 0 (1 times)" in doubts(tmp_path, dataset)
    assert persons(tmp_path, dataset)[0].box == (5, 5, 85, 85)


def test_strict_makes_doubts_fail(desk: Desk, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", each_annotation(area=0))
    assert not desk.check(root).error and desk.check(root).out.endswith(
        "0 problems, 1 implausible: see whether they are meant\n"
    )
    assert "1 implausible findings in split train" in desk.check(root, "train", "coco17", "--strict").error


@pytest.mark.parametrize("name", ["coco", "coco_wholebody"])
def test_real_photographs_are_plausible(name: str) -> None:
    dataset = {"coco": COCO, "coco_wholebody": load_dataset("coco_wholebody")}[name]
    found = check_split(dataset, realdata(name), "val", workers=1)
    assert (found.doubts, found.problems) == ([], [])


@pytest.mark.parametrize(
    ("area", "told"),
    [(4000 / 160 / 120, True), (75, True), (80, False), (7600, False), (15_000, False), (15_300, True),
     (1e12, True)],
)  # fmt: skip
def test_areas_that_the_box_cannot_have(area: float, told: bool, tmp_path: Path) -> None:
    said = doubts(plain_set(tmp_path / "a", each_annotation(area=area)))
    assert ("3 persons have an area of more than twice their box" in said) == told == bool(said)


@pytest.mark.parametrize(
    ("area", "said"),
    [
        (0.2, "APM and APL are -1: all 3 persons have an area below 1024 px² (from 0.2 to 0.2)"),
        (1e12, "AP is -1: all 3 persons have an area above 1e+10 px² (from 1e+12 to 1e+12)"),
        (4000, ""),
    ],
)
def test_evaluation_says_whose_area_is_counted_by_nothing(
    area: float, said: str, desk: Desk, tmp_path: Path
) -> None:
    found = desk.evaluate(plain_set(tmp_path / "a", each_annotation(area=area)))
    assert found.figures["persons"] == 3 and said in found.notes and "no annotation" not in found.notes
    assert (" -1: " in found.notes) == bool(said)


def test_evaluation_without_a_person_says_so(desk: Desk, tmp_path: Path) -> None:
    found = desk.evaluate(plain_set(tmp_path / "a", each_annotation(iscrowd=1)))
    assert "AP is -1: no annotation is a person with a labelled point" in found.notes


@pytest.mark.parametrize("flag", [math.inf, "Infinity"])
def test_infinite_flags_are_odd_and_the_same_everywhere(flag: Any, desk: Desk, tmp_path: Path) -> None:
    flat = [number for x, y, _ in POINTS for number in (x, y, flag)]
    root = plain_set(tmp_path / "a", each_annotation(keypoints=flat))
    assert "51 points have a visibility flag outside 0, 1, 2: inf (51 times)" in doubts(root)
    assert [person.visible.tolist() for person in persons(root)] == [[2] * 17] * 3
    assert "train 3 persons" in desk.shard(root).out
    assert desk.evaluate(root).figures == desk.plain_figures()


def test_numbers_and_texts_are_ids_of_one_set(desk: Desk, tmp_path: Path) -> None:
    def mixed(content: dict[str, Any]) -> None:
        content["images"][0]["id"] = content["annotations"][0]["image_id"] = "frame_a"

    found = desk.evaluate(plain_set(tmp_path / "a", mixed))
    assert found.figures == desk.plain_figures()
