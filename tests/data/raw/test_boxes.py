"""Persons whom evaluation counts, but who have no usable box, no coordinates or another image id."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtmpose.data.raw.annotations import read_images
from rtmpose.data.raw.coco_form import extent_box
from tests.data.raw.real_files import (
    COCO,
    POINTS,
    Desk,
    doubts,
    each_annotation,
    persons,
    plain_set,
    problems,
)

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "box", [None, "absent", [], [40, 12], [40, 12, 0, 0], [40, 12, 0, 95], [40, 12, -80, 95], [NAN] * 4,
            "box", ["a"] * 4, {}, [40, 12, 80, 95, 0.9], [[40, 12, 80, 95]],
            [500, 500, 9, 9], [-90, -90, 20, 20], [True, 1, 1, 1]],
)  # fmt: skip
def test_without_a_usable_box_the_points_extent_is_taken(box: Any, desk: Desk, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][1]["bbox"] = box
        if box == "absent":
            del content["annotations"][1]["bbox"]

    root = plain_set(tmp_path / "a", change)
    found = desk.evaluate(root)
    assert (found.figures["persons"], found.figures["boxes_from_points"], found.figures["unpredicted"]) == (
        3,
        1,
        0,
    )
    assert "first annotation 2 of image 2" in found.notes and 0 < found.figures["keypoint_error"] < 3
    meant = box in (None, "absent", []) or (
        isinstance(box, list) and len(box) == 4 and box[0] not in ("a", True)
    )
    reason = "empty box" if meant else "box that is not four numbers x, y, width, height"
    assert f"annotation 2 of image 2: {reason}" in problems(root)
    cut = desk.shard(root, max_skipped=0.5)
    assert "train 2 persons (1 skipped)" in cut.out, cut.said


def test_who_cannot_be_predicted_is_counted_and_bounded(desk: Desk, tmp_path: Path) -> None:
    one_point = [60, 40, 2, *[0] * 48]
    change = lambda c: c["annotations"][2].update(bbox=None, keypoints=one_point)  # noqa: E731
    root = plain_set(tmp_path / "a", change)
    line = desk.evaluate(root).error
    assert "1 of 3 persons count against AP" in line and "annotation 3 of image 3" in line
    assert "evaluate.max_unpredicted allows (1.0%)" in line
    params = desk.folder / "params.yaml"
    params.write_text(params.read_text().replace("max_unpredicted: 0.01", "max_unpredicted: 0.5"))
    allowed = desk.evaluate(root)
    assert allowed.figures["unpredicted"] == 1 and "1 of 3 persons count against AP" in allowed.notes


def test_persons_of_unlisted_images_are_counted(desk: Desk, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", lambda content: content["annotations"][0].update(image_id="other"))
    assert "1 of 3 persons count against AP" in desk.evaluate(root).error
    assert "annotation 1 of image other: image not listed" in problems(root)


@pytest.mark.parametrize(
    "missing", [[None, None, 0], [NAN, NAN, 0], [None, None, None], [INF, 3, 0], [3, None, 0]]
)
def test_unlabelled_points_need_no_coordinates(missing: list[Any], desk: Desk, tmp_path: Path) -> None:
    flat = [v for p in POINTS for v in p]
    other = plain_set(tmp_path / "a", each_annotation(keypoints=missing * 2 + flat[6:]))
    plain = plain_set(tmp_path / "b", each_annotation(keypoints=[0] * 6 + flat[6:]))
    assert problems(other) == "" and doubts(other) == ""
    assert desk.evaluate(other).figures == desk.evaluate(plain).figures
    assert all((person.visible[:2] == 0).all() for person in persons(other))


def test_labelled_points_without_coordinates_are_skipped_by_name(desk: Desk, tmp_path: Path) -> None:
    flat = [v for p in POINTS for v in p]
    change = lambda c: c["annotations"][0].update(keypoints=[None, None, 2, *flat[3:]])  # noqa: E731
    root = plain_set(tmp_path / "a", change)
    assert "annotation 1 of image 1: points that are not finite" in problems(root)
    assert "points that are not finite 1" in desk.shard(root).error
    assert desk.evaluate(root).figures["unpredicted"] == 0


@pytest.mark.parametrize("write", [str, float, lambda number: f"{number}"])
@pytest.mark.parametrize("where", ["images", "annotations"])
def test_image_ids_of_another_type_are_read_and_said(
    where: str, write: Any, desk: Desk, tmp_path: Path
) -> None:
    def change(content: dict[str, Any]) -> None:
        for entry in content[where]:
            key = "id" if where == "images" else "image_id"
            entry[key] = write(entry[key])

    root = plain_set(tmp_path / "a", change)
    assert len(persons(root)) == 3 and problems(root) == ""
    assert ("image_id is" in doubts(root)) == (write is not float)
    assert desk.evaluate(root).figures == desk.plain_figures()


def test_names_with_leading_zeros_are_no_numbers(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][0]["id"] = "01"
        content["images"][1]["id"], content["annotations"][1]["image_id"] = "1", "1"

    root = plain_set(
        tmp_path / "a", change
    )  # annotation 1 is of image 1, which "1" stands for, "01" does not
    found = {
        raw.image_id: [person.annotation_id for person in raw.persons]
        for raw in read_images(COCO, root, "train")
    }
    assert found == {"01": [], "1": [1, 2], 3: [3]}


def test_the_extent_is_padded_and_never_flat() -> None:
    points = np.array([[10.0, 10, 2], [50, 10, 1], [30, 10, 2], [999, 999, 0]])
    assert extent_box(points) == pytest.approx([5, 10 - 40 / 6 * 1.25, 50, 40 / 3 * 1.25])
    assert extent_box(points[:1]) is None and extent_box(points[3:]) is None
