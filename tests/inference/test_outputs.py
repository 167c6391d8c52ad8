"""The forms of what was found: each holds the points' names and numbers, and is whole or not there."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from rtmpose.files import UserError
from rtmpose.inference.outputs import BODY_25, Points, Seen, open_results
from tests.inference.clips import COCO17, person

POINTS = Points("coco17", COCO17.names, 0.5)
SEEN = (
    Seen(7, "a.mp4", (64, 48), [person(4.0, 1), person(30.0, 2)], 0, 0.1),
    Seen(8, "a.mp4", (64, 48), [], 1, 0.14),
    Seen(9, "a.mp4", (64, 48), [person(5.0, 1)], 2, 0.2),
)


def written(form: str, path: Path) -> Path:
    results = open_results(form, path, POINTS)
    for seen in SEEN:
        results.add(seen)
    results.close()
    return path


def test_coco_results_are_what_pycocotools_reads(tmp_path: Path) -> None:
    path = written("coco", tmp_path / "deep" / "a.json")
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in (7, 8, 9)],
        "annotations": [],
        "categories": [{"id": 1, "name": "person"}],
    }
    truth.createIndex()
    found = truth.loadRes(str(path))
    assert sorted(found.imgToAnns) == [7, 9] and len(found.anns) == 3
    first: dict[str, Any] = json.loads(path.read_text())[0]
    assert first["bbox"] == [4, 4, 20, 40] and first["track_id"] == 1 and first["category_id"] == 1
    assert first["keypoint_names"] == list(COCO17.names) and (first["frame"], first["time"]) == (0, 0.1)
    assert first["score"] == pytest.approx(0.8 * 1.8)
    rows = np.array(first["keypoints"]).reshape(-1, 3)
    np.testing.assert_allclose(rows[:, :2], person().keypoints, atol=0.005)
    assert set(rows[:, 2]) == {1.8} and set(first["keypoint_confidence"]) == {0.9}


def test_json_by_names(tmp_path: Path) -> None:
    whole = json.loads(written("json", tmp_path / "a.json").read_text())
    assert whole["skeleton"] == "coco17" and whole["keypoint_names"] == list(COCO17.names)
    assert [len(one["people"]) for one in whole["pictures"]] == [2, 0, 1]
    assert [one["time"] for one in whole["pictures"]] == [0.1, 0.14, 0.2]
    someone = whole["pictures"][2]["people"][0]
    assert someone["keypoints"]["nose"] == [5, 4, 1.8, 0.9] and someone["sure_points"] == 17


def test_csv_has_a_row_for_each_person(tmp_path: Path) -> None:
    with written("csv", tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["identity"]) for row in rows] == [("0", "1"), ("0", "2"), ("2", "1")]
    assert rows[1]["nose_x"] == "30.0" and rows[1]["right_ankle_y"] == "44.0"
    assert rows[1]["left_eye_score"] == "1.8" and rows[1]["left_eye_confidence"] == "0.9"


def test_openpose_is_body_25_with_means_and_a_file_for_each_picture(tmp_path: Path) -> None:
    folder = written("openpose", tmp_path / "out")
    names = [f"a_{number:012d}_keypoints.json" for number in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == names
    whole = json.loads((folder / names[0]).read_text())
    rows = np.array(whole["people"][1]["pose_keypoints_2d"]).reshape(25, 3)
    points = dict(zip(COCO17.names, person(30.0).keypoints, strict=True))
    assert whole["people"][1]["person_id"] == [2] and whole["part_names"] == [name for name, _ in BODY_25]
    neck = (points["left_shoulder"] + points["right_shoulder"]) / 2
    np.testing.assert_allclose(rows[[0, 1, 4, 16]][:, :2], [
        points["nose"], neck, points["right_wrist"], points["left_eye"]], atol=0.006)  # fmt: skip
    np.testing.assert_allclose(rows[:19, 2], 0.9)
    assert not rows[19:].any(), "COCO has no feet"
    results = open_results("openpose", tmp_path / "b", POINTS)
    for number, file in enumerate(("x/a.jpg", "y/a.jpg")):
        results.add(Seen(number, file, (64, 48), []))
    assert len(list((tmp_path / "b").iterdir())) == 2, "the same name in two folders"


def test_lines_are_one_for_each_person(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in written("lines", tmp_path / "a").read_text().splitlines()]
    assert [row["identity"] for row in rows] == [1, 2, 1] and rows[0]["keypoints"]["nose"] == [4, 4, 1.8]


@pytest.mark.parametrize("form", ["coco", "json", "csv", "lines"])
def test_before_the_end_there_is_no_file_and_after_giving_up_neither(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a"
    path.write_text("what was there")
    results = open_results(form, path, POINTS)
    results.add(SEEN[0])
    assert path.read_text() == "what was there"
    results.discard()
    assert path.read_text() == "what was there" and [one.name for one in tmp_path.iterdir()] == ["a"]


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--format: 'xml' is none of lines, coco"):
        open_results("xml", tmp_path / "a", POINTS)
    with pytest.raises(UserError, match=r"^--out: OpenPose's form is one file for each picture; name"):
        open_results("openpose", Path("-"), POINTS)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written: a file stands where a folder belongs"):
        open_results("openpose", tmp_path / "file", POINTS)
