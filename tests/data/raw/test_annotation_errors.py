"""Every error in annotations that a user can meet, in one line that names its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtmpose.data.raw.annotations import RawImage, read_images
from rtmpose.data.raw.check import check_split
from rtmpose.data.raw.photograph import is_file, read_photograph
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError
from tests.data.raw.samples import AIC, COCO, small_coco


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
    (raw,) = read_images(COCO, root, "train")
    assert (raw.persons, raw.skipped) == ([], [("missing image", 100)])
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


def test_what_is_no_number_is_named(tmp_path: Path) -> None:
    said = failing(small_coco(tmp_path / "a", [{"keypoints": [1, 2, "x"] * 17}]))
    assert "annotation 100: keypoints: something in it is not a number" in said
    assert "annotation id 'one' is not a whole number" in failing(small_coco(tmp_path / "b", [{"id": "one"}]))


def test_a_descriptor_of_ones_own_without_terms(tmp_path: Path) -> None:
    mine = replace(COCO, download="", source="", licence="")
    with pytest.raises(
        UserError, match=r"train_1\.json is missing: put it there, or correct splits\.train of the descriptor"
    ):
        list(read_images(mine.with_files("train", "train_1.json", None), tmp_path, "train"))
    with pytest.raises(UserError, match="coco_aic19: its descriptor has no reader"):
        small_coco(tmp_path / "coco")
        skeleton = load_dataset("coco_aic19").with_files(
            "train", "annotations/person_keypoints_train2017.json", "train2017"
        )
        list(read_images(skeleton, tmp_path / "coco", "train"))


def test_aic_keypoints_of_the_wrong_length_are_named(tmp_path: Path) -> None:
    layout = AIC.splits["train"]
    (tmp_path / layout.images).mkdir(parents=True)
    image = {
        "image_id": "ab",
        "human_annotations": {"human1": [0, 0, 9, 9]},
        "keypoint_annotations": {"human1": [1]},
    }
    (tmp_path / layout.annotations).write_text(json.dumps([image]))
    with pytest.raises(UserError, match=r"image ab human1: has 1 numbers, expected 42"):
        list(read_images(AIC, tmp_path, "train"))


def test_a_split_that_the_descriptor_lacks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'test'"):
        list(read_images(COCO, tmp_path, "test"))


MPII_PERSON = {
    "image": "7.jpg", "center": [30, 20], "scale": 0.1, "joints": [[9, 9]] * 16, "joints_vis": [1] * 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("joints", None, "joints: has 1 numbers, expected 32"),
        ("joints", "abc", "joints: something in it is not a number"),
        ("joints", [9, 9] * 15, "joints: has 30 numbers, expected 32"),
        ("joints", [[9, "x"]] * 16, "joints: something in it is not a number"),
        ("joints_vis", ["yes"] * 16, "joints_vis: something in it is not a number"),
        ("joints_vis", {}, "joints_vis: something in it is not a number"),
        ("center", [30], r"center: \[30\] is not x and y"),
        ("center", None, "center: None is not x and y"),
        ("center", [30, "x"], "center: 'x' is not a number"),
        ("scale", "x", "scale: 'x' is not a number"),
        ("image", 7, "image: 7 is not the name of a file"),
        ("image", None, "image: None is not the name of a file"),
    ],
)
def test_what_mpii_does_not_write_is_named_by_person_and_field(
    field: str, value: Any, said: str, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations/mpii_train.json"
    path.write_text(json.dumps([MPII_PERSON, MPII_PERSON | {field: value}]))
    with pytest.raises(UserError, match=rf"mpii_train\.json: person 2[^\n]*: {said}[^\n]*$"):
        list(read_images(load_dataset("mpii"), tmp_path, "train"))


def test_names_and_flat_joints_of_mpii_are_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    persons = [
        MPII_PERSON | {"image": name} for name in ("²7.jpg", "007.jpg", "9" * 30, "a.b.jpg", "7.jpg", "7.png")
    ]
    persons[1]["joints"] = [9, 9] * 16
    (tmp_path / "annotations/mpii_train.json").write_text(json.dumps(persons))
    images = list(read_images(load_dataset("mpii"), tmp_path, "train"))
    assert [image.image_id for image in images] == ["²7", 7, "9" * 30, "a.b", "7.jpg", "7.png"]
    assert all(len(image.annotations[0]["keypoints"]) == 48 for image in images)


@pytest.mark.parametrize("name", ["7.jpg\0", "\0", "a" * 300, "sub/" + "é" * 130 + ".jpg"])
def test_a_name_that_no_file_can_have_is_a_missing_image(name: str, tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco")
    path = root / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    (raw,) = read_images(COCO, root, "train")
    assert raw.skipped == [("missing image", 100)]
    with pytest.raises(
        UserError, match=r"train2017\.json: image 7: file_name '.* is no name of a file: .*; correct"
    ):
        read_photograph(raw)
    (problem,) = check_split(COCO, root, "train", workers=1).problems[:1]
    assert "annotations: 100" in problem and "image 7" in problem


def test_a_path_that_is_too_long_as_a_whole_is_a_missing_image(tmp_path: Path) -> None:
    assert not is_file(tmp_path / "/".join(["a" * 200] * 30)) and not is_file(Path("a\0"))
    raw = RawImage(7, Path("a\0"), None, None, [], [])
    with pytest.raises(UserError, match=r"cannot be read .*null byte"):
        read_photograph(raw)


def test_names_with_line_breaks_stay_on_one_line(tmp_path: Path) -> None:
    root = small_coco(
        tmp_path / "coco", [{"image_id": "a\nb", "bbox": [1, 2]}, {"image_id": "a\nb", "area": 1e9}]
    )
    path = root / "annotations/person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["id"] = "a\nb"
    content["categories"] += [{"id": 2, "name": "c\nd"}]
    content["annotations"] += [{**content["annotations"][0], "id": 200, "category_id": 2}]
    path.write_text(json.dumps(content))
    found = check_split(COCO, root, "train", workers=1)
    assert len(found.problems) == 1 and "image a b" in found.problems[0]
    assert len(found.doubts) == 2 and "(c d) 1" in "".join(found.doubts)
    assert not any("\n" in line for line in (*found.problems, *found.doubts))
