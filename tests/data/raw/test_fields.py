"""Optional fields that are null, 0, NaN, negative, text or of another kind: read, or named with the id."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rtmpose.data.raw.check import check_split
from rtmpose.data.raw.coco_form import AREA_PER_BOX
from rtmpose.evaluation.coco import evaluate_keypoints
from rtmpose.files import UserError
from tests.data.raw.real_files import (
    COCO,
    POINTS,
    Change,
    Desk,
    doubts,
    each_annotation,
    persons,
    plain_set,
    problems,
    refused,
)

NAN, INF = math.nan, math.inf


UNKNOWN = [None, 0, 0.0, -5, NAN, INF, "", "0", "nan"]


@pytest.mark.parametrize("area", UNKNOWN)
def test_an_unknown_area_is_a_share_of_the_box(area: Any, desk: Desk, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", each_annotation(area=area))
    without = plain_set(tmp_path / "b", lambda content: [each.pop("area") for each in content["annotations"]])
    assert {person.area for person in persons(root)} == {80 * 95 * AREA_PER_BOX}
    assert desk.evaluate(root).figures == desk.evaluate(without).figures
    assert "3 annotations have an area that is null" in doubts(root) and not doubts(without)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("area", "4000.0"), ("area", " 4e3 "), ("iscrowd", None), ("iscrowd", False), ("iscrowd", "0"),
        ("iscrowd", 0.0), ("iscrowd", "false"), ("iscrowd", NAN), ("iscrowd", ""), ("num_keypoints", None),
        ("num_keypoints", 0), ("num_keypoints", NAN), ("num_keypoints", -3), ("num_keypoints", "17"),
        ("num_keypoints", [17]), ("num_keypoints", True), ("bbox", ["40", "12.0", 80, " 95"]),
        ("bbox", [40.0, 12.0, 80.0, 95.0]), ("keypoints", [str(v) for p in POINTS for v in p]),
    ],
)  # fmt: skip
def test_fields_may_be_written_otherwise(field: str, value: Any, desk: Desk, tmp_path: Path) -> None:
    plain, other = plain_set(tmp_path / "a"), plain_set(tmp_path / "b", each_annotation(**{field: value}))
    assert check_split(COCO, other, "train", workers=1).problems == [] and doubts(other) == ""
    assert desk.evaluate(other).figures == desk.plain_figures()
    for one, two in zip(persons(plain), persons(other), strict=True):
        assert (one.box, one.area) == (two.box, two.area) and (one.keypoints == two.keypoints).all()


@pytest.mark.parametrize("crowd", [1, True, "1", "true", 1.0])
def test_a_crowd_may_be_written_otherwise(crowd: Any, desk: Desk, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", lambda content: content["annotations"][0].update(iscrowd=crowd))
    assert [person.annotation_id for person in persons(root)] == [2, 3]
    assert desk.evaluate(root).figures["persons"] == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("area", "large"), ("area", [4000]), ("area", True), ("area", {}), ("iscrowd", 2),
        ("iscrowd", "maybe"),
        ("iscrowd", [0]), ("iscrowd", -1), ("keypoints", "x"), ("keypoints", [1, 2, "x"] * 17),
        ("keypoints", {"a": 1}),
        ("image_id", None), ("image_id", [1]), ("id", "one"), ("id", None), ("id", 1.5), ("id", True),
    ],
)  # fmt: skip
def test_a_field_that_means_nothing_is_named(field: str, value: Any, desk: Desk, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", lambda content: content["annotations"][1].update({field: value}))
    line = refused(root)
    assert "person_keypoints_train2017.json: annotation" in line and (field in line)
    assert field == "id" or "annotation 2: " in line
    assert desk.evaluate(root).error == line.replace("train2017", "val2017")


@pytest.mark.parametrize("value", [None, "", 0, -160, NAN, "absent"])
@pytest.mark.parametrize("field", ["width", "height"])
def test_an_unknown_size_is_found_by_opening(field: str, value: Any, desk: Desk, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image[field] = value
            if value == "absent":
                del image[field]
        content["annotations"][0]["bbox"] = [500, 500, 50, 50]

    root = plain_set(tmp_path / "a", change)
    assert "annotation 1 of image 1: empty box" in problems(root)
    assert "1 of 3 persons are skipped (empty box 1)" in desk.shard(root).error
    assert "train 2 persons (1 skipped)" in desk.shard(root, max_skipped=0.5).out
    assert desk.evaluate(root).figures["boxes_from_points"] == 1


@pytest.mark.parametrize("value", ["wide", [160], True, {}])
def test_a_size_that_means_nothing_is_named(value: Any, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", lambda content: content["images"][2].update(height=value))
    assert "image 3: height: " in refused(root)


@pytest.mark.parametrize(("width", "height"), [("160", "120"), ("160.0", 120.0), (160.0, "120")])
def test_sizes_may_be_written_otherwise(width: Any, height: Any, desk: Desk, tmp_path: Path) -> None:
    root = plain_set(
        tmp_path / "a", lambda c: [image.update(width=width, height=height) for image in c["images"]]
    )
    assert problems(root) == "" and not desk.shard(root).error
    assert desk.evaluate(root).figures == desk.plain_figures()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c["images"].append(7), lambda c: c["annotations"].append(None),
        lambda c: c.update(images={}),
        lambda c: c["images"][0].pop("id"), lambda c: c["images"][0].update(id=None),
        lambda c: c["images"][0].update(file_name=None), lambda c: c["images"][0].update(file_name=5),
        lambda c: c["annotations"][0].pop("image_id"), lambda c: c["categories"].append("person"),
        lambda c: c["categories"].append({"name": "x"}),
    ],
)  # fmt: skip
def test_entries_of_another_kind_are_one_line(spoil: Change, tmp_path: Path) -> None:
    assert "person_keypoints_train2017.json: " in refused(plain_set(tmp_path / "a", spoil))


@pytest.mark.parametrize("value", [None, 0, -1, NAN, "0"])
def test_evaluation_by_hand_reads_areas_alike(value: Any) -> None:
    flat = [float(v) for p in POINTS for v in p]
    one = {"id": 1, "image_id": 1, "bbox": [40, 12, 80, 95], "keypoints": flat, "iscrowd": None}
    results = [{"image_id": "1", "keypoints": [v + 4 for v in flat], "score": 1.0}]
    figures = [
        evaluate_keypoints({"images": [{"id": 1}], "annotations": [{**one, "area": area}]}, results)
        for area in (value, 80 * 95 * AREA_PER_BOX)
    ]
    assert figures[0] == figures[1] and figures[0]["AP"] < 1


def test_predictions_that_are_not_finite_are_no_perfect_ones() -> None:
    flat = [float(v) for p in POINTS for v in p]
    one = {"id": 1, "image_id": 1, "bbox": [40, 12, 80, 95], "keypoints": flat, "area": 4000.0}
    for wrong in ({"keypoints": [NAN] * 51}, {"keypoints": [INF] * 51}, {"score": NAN}):
        result = {"image_id": 1, "keypoints": flat, "score": 1.0} | wrong
        with pytest.raises(
            UserError, match=r"prediction 0 \(image_id 1\): keypoints or score are not finite"
        ):
            evaluate_keypoints({"images": [{"id": 1}], "annotations": [one]}, [result])
