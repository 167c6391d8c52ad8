"""A raw folder's check: figures, every problem by file and id, the contact sheet, and the command on data of
one's own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from rtmpose.data.raw.check import Check, check_split, report
from rtmpose.data.raw.photograph import decode
from rtmpose.data.raw.sheet import BOX, CAPTION, CELL, GAP, contact_sheet
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError
from tests.data.raw.samples import COCO, SAMPLES, small_coco
from tests.support import ROOT, realdata

BIRDS = """
name: birds
reader: coco
splits: {train: {annotations: birds.json, images: photos}}
skeleton:
  points: [beak, left_wing, right_wing]
  limbs: [[beak, left_wing], [beak, right_wing]]
  flip_pairs: [[left_wing, right_wing]]
"""


def own_data(folder: Path, annotations: int = 3) -> Path:
    """A small COCO-style set of one's own with the descriptor `birds.yaml` beside it: two photographs of
    80x60 px.
    """
    (folder / "photos").mkdir(parents=True)
    (folder / "birds.yaml").write_text(BIRDS)
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(folder / "photos" / name), np.full((60, 80, 3), 128, np.uint8))
    points = [20, 20, 2, 30, 30, 1, 0, 0, 0]
    content = {
        "images": [{"id": k, "file_name": f"{'ab'[k]}.jpg", "width": 80, "height": 60} for k in (0, 1)],
        "annotations": [
            {"id": 10 + k, "image_id": k % 2, "bbox": [10, 10, 40, 30], "keypoints": points}
            for k in range(annotations)
        ],
    }
    (folder / "birds.json").write_text(json.dumps(content))
    return folder


def change(folder: Path, edit: Any) -> None:
    content = json.loads((folder / "birds.json").read_text())
    edit(content)
    (folder / "birds.json").write_text(json.dumps(content))


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "rtmpose.cli.app", "dataset", "check", *arguments]
    return subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False)


def checked(folder: Path) -> Check:
    return check_split(load_dataset(str(folder / "birds.yaml")), folder, "train", workers=1)


def test_own_data_need_one_yaml_and_no_code(tmp_path: Path) -> None:
    folder = own_data(tmp_path / "mine")
    done = command(
        tmp_path, "mine/birds.yaml", "--raw", "mine", "--draw", "2", "--out", "sheet.png", "--input", "32x32"
    )
    assert done.returncode == 0, done.stderr
    for said in (
        "birds, split train in mine: 2 images, 3 annotations, 3 persons",
        "sigmas: ESTIMATED, since the descriptor gives none: a point takes",
        "beak=0.05, left_wing=0.05, right_wing=0.05",
        f"        2 {'#' * 40} 3",
        "are enlarged to 32x32",
        "drawn: sheet.png",
        "no problems",
    ):
        assert said in done.stdout, said
    sheet = decode((tmp_path / "sheet.png").read_bytes())
    assert sheet is not None and sheet.shape == (CELL + CAPTION + 2 * GAP, 2 * CELL + 3 * GAP, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "sheet.png"]
    assert sorted(path.name for path in folder.iterdir()) == ["birds.json", "birds.yaml", "photos"]


def test_problems_end_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    own_data(tmp_path)
    change(tmp_path, lambda content: content["annotations"][1].update(bbox=[10, 10, 0, 5]))
    done = command(tmp_path, "birds.yaml")
    assert done.returncode == 2
    assert done.stderr == "error: .: 1 problems in split train of birds; they are listed above\n"
    assert "problem: birds.json: annotation 11 of image 1: empty box\n1 problems\n" in done.stdout
    assert "skipped for a defect: empty box 1" in done.stdout


def test_a_descriptor_reads_other_files(tmp_path: Path) -> None:
    own_data(tmp_path)
    (tmp_path / "birds.json").rename(tmp_path / "other.json")
    (tmp_path / "photos").rename(tmp_path / "pictures")
    done = command(
        tmp_path, "birds.yaml", "--split", "extra", "--annotations", "other.json", "--images", "pictures"
    )
    assert done.returncode == 0 and "split extra" in done.stdout, done.stderr


MISTAKES: list[tuple[list[str], str]] = [
    (
        ["birds.yaml", "--annotations", "gone.json"],
        "gone.json is missing: put it there, or correct splits.train",
    ),
    (["birds.yaml", "--split", "val"], "no split 'val', only ['train']"),
    (
        ["birds.yaml", "--draw", "1", "--out", "sheet.bmp"],
        "sheet.bmp: a contact sheet is a .jpg or .png file",
    ),
    (["birds.yaml", "--input", "big"], "--input: 'big' is not WIDTHxHEIGHT"),
    (
        ["coco17", "--annotations", "birds.json", "--images", "photos"],
        "annotation 10: keypoints: has 9 numbers, expected 51",
    ),
    (["gone.yaml"], "gone.yaml: no such data-set descriptor"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES)
def test_mistakes_are_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    own_data(tmp_path)
    done = command(tmp_path, *arguments)
    assert done.returncode == 2
    assert (
        done.stderr.startswith("error: ")
        and len(done.stderr.strip().splitlines()) == 1
        and said in done.stderr
    )


def test_every_problem_is_named_by_file_and_id(tmp_path: Path) -> None:
    folder = own_data(tmp_path, annotations=7)

    def spoil(content: dict[str, Any]) -> None:
        content["images"] += [{"id": k, "file_name": f"{k}.jpg"} for k in (2, 3, 4, 5)]
        content["images"][1]["width"] = 81
        content["annotations"][1] |= {"id": 10, "image_id": 0}
        content["annotations"][2] |= {"keypoints": [-1, -1, 2, 90, 90, 2, 1, 1, 0]}
        content["annotations"][3] |= {"image_id": 2}
        content["annotations"][4] |= {"image_id": 3}
        content["annotations"][5] |= {"image_id": 1}
        content["annotations"][6] |= {"image_id": 77}

    change(folder, spoil)
    whole = (folder / "photos/a.jpg").read_bytes()
    (folder / "photos/3.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "photos/4.jpg").write_text("no image")
    found = checked(folder)
    photos, listing = folder / "photos", folder / "birds.json"
    expected = [
        rf"{listing}: annotation 10 of image 0: duplicate id",
        rf"{listing}: annotation 12 of image 0: points outside the image",
        rf"{photos}/b.jpg: is 80x60 px, its annotations say 81x60.*\(image 1, annotations: 15\)",
        rf"{photos}/2.jpg: missing image \(image 2, annotations: 13\)",
        rf"{photos}/3.jpg: the JPEG is cut off.*\(image 3, annotations: 14\)",
        rf"{photos}/4.jpg: not an image.*\(image 4, annotations: none\)",
        rf"{photos}/5.jpg: missing image \(image 5, annotations: none\)",
        rf"{listing}: annotation 16 of image 77: image not listed",
    ]
    assert len(found.problems) == len(expected)
    for line, pattern in zip(found.problems, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert [person.annotation_id for _, person in found.persons] == [10] and found.found == 3
    lines = list(report(found, (192, 256)))
    assert [line for line in lines if line.startswith("problem: ")] == [
        f"problem: {line}" for line in found.problems
    ]
    assert lines[-1] == "8 problems"
    assert (
        "skipped for a defect: duplicate id 1, points outside the image 1, missing image 1, image not listed "
        "1" in lines
    )


def test_a_folder_without_persons_is_a_problem(tmp_path: Path) -> None:
    folder = own_data(tmp_path)
    change(folder, lambda content: [entry.update(iscrowd=1) for entry in content["annotations"]])
    found = checked(folder)
    assert found.problems == [f"{folder / 'birds.json'}: none of its 3 annotations is a person to train on"]
    assert "left out by the format's own rules: crowd 3" in list(report(found, (192, 256)))
    with pytest.raises(UserError, match="no person to draw"):
        contact_sheet(found, 3, tmp_path / "sheet.png")


def test_figures_of_real_photographs() -> None:
    found = check_split(COCO, realdata("coco"), "val", workers=1)
    lines = list(report(found, (192, 256)))
    assert (found.images, found.annotations, found.found, found.outside, found.problems) == (
        200,
        763,
        493,
        0,
        [],
    )
    widths = np.array([person.box[2] for _, person in found.persons])
    heights = np.array([person.box[3] for _, person in found.persons])
    small = int((np.maximum(widths, heights * 0.75) * 1.25 < 192).sum())
    assert (
        f"smaller than the input: the crops of {small} persons ({100 * small / 493:.0f} %) are enlarged to "
        "192x256" in lines
    )
    (row,) = [line for line in lines if line.strip().startswith("width")]
    assert row.split()[1:] == [f"{np.quantile(widths, q):.1f}" for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)]
    bars = [line.split() for line in lines[lines.index("persons by labelled points, of 17") + 1 :][:17]]
    labelled = [(person.visible > 0).sum() for _, person in found.persons]
    assert [int(bar[-1]) for bar in bars] == [labelled.count(k) for k in range(1, 18)]
    assert max(len(bar[1]) for bar in bars if len(bar) == 3) == 40


def test_points_outside_the_image_are_counted(tmp_path: Path) -> None:
    points = np.array([[30.0, 20, 2]] * 17)
    points[:2] = [[70, 20, 2], [-3, 20, 1]]
    points[2] = [90, 90, 0]
    root = small_coco(tmp_path / "coco", [{"keypoints": points.ravel().tolist()}])
    assert check_split(COCO, root, "train", workers=1).outside == 2


@pytest.mark.parametrize("name", ["coco_wholebody_hand", "mpii", "lapa106"])
def test_a_sheet_shows_boxes_and_points(name: str, tmp_path: Path) -> None:
    annotations, images, _ = SAMPLES[name]
    realdata(annotations)
    found = check_split(
        load_dataset(name).with_files("val", annotations, images), realdata(), "val", workers=1
    )
    one = replace(found, persons=found.persons[:1])
    sheet = decode(contact_sheet(one, 5, tmp_path / "sheet.png").read_bytes())
    assert sheet is not None and sheet.shape == (CELL + CAPTION + 2 * GAP, CELL + 2 * GAP, 3)
    picture = sheet[GAP : GAP + CELL, GAP : GAP + CELL].astype(int)
    drawn = np.argwhere(np.abs(picture - BOX).sum(-1) < 20)
    _, _, w, h = one.persons[0][1].box
    extent = np.ptp(drawn, axis=0)[::-1]
    assert extent[0] / extent[1] == pytest.approx(w / h, rel=0.05)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500


def test_a_wild_box_does_not_stop_the_sheet(tmp_path: Path) -> None:
    folder = own_data(tmp_path)
    change(
        folder,
        lambda content: content["annotations"][0].update(
            bbox=[-1e7, 0, 3e7, 50], keypoints=[1e9, 5, 2, 9, 9, 2, 0, 0, 0]
        ),
    )
    assert contact_sheet(checked(folder), 3, tmp_path / "sheet.jpg").stat().st_size > 1000


def test_the_raw_stage_says_what_it_skipped_and_what_is_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = own_data(tmp_path)
    change(folder, lambda content: content["annotations"][1].update(bbox=[10, 10, 0, 5]))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["datasets"] = {"birds": {"descriptor": str(folder / "birds.yaml"), "raw": str(folder)}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(folder)
    import_module("pipelines.raw").main(["birds"])
    printed = capsys.readouterr().out
    assert "birds: train: 2 persons in 2 images" in printed
    assert "birds: train: skipped for a defect: empty box 1" in printed and "sigmas are estimated" in printed


def test_hands_are_named_by_the_id_in_the_file(tmp_path: Path) -> None:
    hands = load_dataset("coco_wholebody_hand")
    root = small_coco(
        tmp_path / "coco",
        [{"lefthand_kpts": [9, 9, 2] * 21, "lefthand_valid": True, "lefthand_box": [0, 0, 0, 0]}],
    )
    dataset = hands.with_files("train", "annotations/person_keypoints_train2017.json", "train2017")
    (problem, nobody) = check_split(dataset, root, "train", workers=1).problems
    assert problem.endswith("person_keypoints_train2017.json: annotation 100 of image 7: empty box")
    assert "none of its 2 annotations" in nobody


def test_which_data_sets_there_are() -> None:
    run = [sys.executable, "-m", "rtmpose.cli.app", "dataset", "list"]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) == 29 and not any("TEMPLATE" in line for line in printed)
    (line,) = [line for line in printed if line.startswith("coco_wholebody ")]
    assert "133 points" in line and "research" in line
