"""Small sets after public reports, each by its right result: the check, evaluation and sharding as a user
runs them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.data.raw.real_files import Desk, plain_set, write_annotations
from tests.support import SHARED

FOLDER = SHARED / "bug-inputs"
# What `dataset check` says of each set, "" for nothing; whether shards are cut of it.
CASES: dict[str, tuple[str, bool]] = {
    "category-0": ("", True),
    "category-10": ("", True),
    "area-0": (r"3 annotations have an area that is null, 0, .* a share of the box counts", True),
    "area-null": (r"3 annotations have an area that is null, 0, .* a share of the box counts", True),
    "area-string": ("", True),
    "iscrowd-null": ("", True),
    "iscrowd-string": ("", True),
    "val-without-boxes": (r"annotation 1 of image 1: empty box\n.*annotation 2 of .*: empty box", False),
    "bbox-strings": ("", True),
    "names-in-other-order": (r"differ at points 1\.\.16 \(at 1 the file names right_eye", True),
    "points-0-0-2": (r"15 labelled points lie at exactly \(0, 0\).*annotations: 1, 2, 3", True),
    "flags-1-2-3": (r"visibility flag outside 0, 1, 2: 3 \(15 times\)", True),
    "exif-6-display-frame": (r"90 degrees clockwise \(orientation 6\).*set `exif: display`", False),
    "exif-3": (r"3 photographs have an EXIF turn which is ignored: orientation 3", True),
    "no-sizes": (r"annotation 1 of image 1: empty box\n.*annotation 2 of image 2: points outside", False),
    "motion-photo": ("", True),
    "windows-paths": ("", True),
    "image-id-string": (r"image_id is text in annotations, ids are numbers in images: 3 annotations", True),
    "width-string": ("", True),
}
# Those that evaluation reads as the plain set; of the others some figure differs, or it is refused.
ALIKE = set(CASES) - {
    "area-0", "area-null", "val-without-boxes", "points-0-0-2", "flags-1-2-3", "exif-6-display-frame",
    "exif-3",
    "no-sizes",
}  # fmt: skip


def given(name: str) -> Path:
    if not FOLDER.is_dir():
        pytest.skip("../shared/bug-inputs is not on this machine")
    return FOLDER / name


def test_every_set_is_among_the_cases() -> None:
    assert {path.name for path in given("").iterdir() if path.is_dir()} == set(CASES)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", CASES)
def test_the_check_says_what_is_wrong(name: str, split: str, desk: Desk) -> None:
    wanted, _ = CASES[name]
    found = desk.check(given(name), split)
    if wanted:
        assert re.search(wanted, found.out) and "no problems" not in found.out, found.out
    else:
        assert found.out.endswith("no problems\n") and not found.error, found.said


@pytest.mark.parametrize("name", sorted(ALIKE))
def test_figures_are_those_of_the_plain_file(name: str, desk: Desk) -> None:
    # Of the same photographs, which this set has in the usual place.
    assert desk.evaluate(given(name)).figures == desk.evaluate(given("iscrowd-null")).figures


@pytest.mark.parametrize("name", ["area-0", "area-null"])
def test_an_area_of_nothing_counts_as_none(name: str, desk: Desk, tmp_path: Path) -> None:
    root = tmp_path / "without"
    root.mkdir()
    for part in ("train2017", "val2017"):
        (root / part).symlink_to(given(name) / part)
    content = json.loads((given(name) / "annotations/person_keypoints_val2017.json").read_text())
    for annotation in content["annotations"]:
        del annotation["area"]
    write_annotations(root, content)
    figures = desk.evaluate(given(name)).figures
    assert figures == desk.evaluate(root).figures and 0 < figures["keypoint_error"] < 3


def test_persons_without_a_box_are_predicted_and_said(desk: Desk) -> None:
    found = desk.evaluate(given("val-without-boxes"))
    assert (found.figures["boxes_from_points"], found.figures["unpredicted"], found.figures["persons"]) == (
        2,
        0,
        3,
    )
    assert "2 of 3 persons have no usable box" in found.notes and "annotation 2 of image 2" in found.notes


def test_evaluation_says_what_is_implausible_or_turned(desk: Desk) -> None:
    for name in ("names-in-other-order", "points-0-0-2", "flags-1-2-3", "image-id-string"):
        assert re.search(CASES[name][0], desk.evaluate(given(name)).notes), name
    turned = desk.evaluate(given("exif-6-display-frame")).error
    assert "orientation 6" in turned and "`exif: display`" in turned


@pytest.mark.parametrize("name", CASES)
def test_shards_are_cut_or_one_line_says_why_not(name: str, desk: Desk) -> None:
    found = desk.shard(given(name))
    if CASES[name][1]:
        assert not found.error and "train 3 persons" in found.out, found.said
    else:
        assert "skipped" in found.error and "corrupt image" not in found.error


def test_the_plain_set_has_no_problems(desk: Desk, tmp_path: Path) -> None:
    assert desk.check(plain_set(tmp_path / "plain")).out.endswith("no problems\n")
