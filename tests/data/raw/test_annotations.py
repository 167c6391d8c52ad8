"""Raw formats become persons: real files of every data set, what is left out, and every error a user can
meet.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.data.raw.annotations import ODD_BOX, RawImage, index_raw, read_images
from rtmpose.data.raw.check import check_split
from rtmpose.data.raw.coco_form import AREA_PER_BOX
from rtmpose.data.raw.photograph import is_file, read_photograph
from rtmpose.descriptors import Dataset, load_dataset
from rtmpose.evaluation.coco import evaluate_keypoints
from rtmpose.files import UserError
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
    assert person.area == pytest.approx(213 * 544 * 0.53)
    assert person.keypoints[0].tolist() == [313, 201]
    assert person.visible.tolist() == [2, 1, 2, 1, 1, 2, 1, 0, 0, 2, 0, 0, 2, 2]
    assert annotation["num_keypoints"] == 10 and len(annotation["keypoints"]) == 42
    assert len({person.annotation_id for image in images for person in image.persons}) == 9


def test_wholebody_as_it_is() -> None:
    raw = next(
        image for image in read_images(WHOLEBODY, realdata("coco_wholebody"), "val") if image.image_id == 785
    )
    person, annotation = raw.persons[0], raw.annotations[0]
    assert person.keypoints.shape == (133, 2)
    np.testing.assert_allclose(
        person.keypoints[23:91].ravel(), np.delete(annotation["face_kpts"], slice(2, None, 3))
    )
    assert not annotation["lefthand_valid"] and person.visible[91:112].max() == 0
    assert annotation["righthand_valid"] and person.visible[112:].max() > 0
    assert person.visible[17:23].tolist() == annotation["foot_kpts"][2::3]


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


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_gives_persons_that_can_be_evaluated(name: str) -> None:
    dataset, images = samples(name)
    persons = [person for image in images for person in image.persons]
    points = dataset.skeleton.num_keypoints
    assert len(persons) == SAMPLES[name][2] and not any(image.skipped for image in images)
    for person in persons:
        assert (
            person.keypoints.shape == (points, 2)
            and person.visible.shape == (points,)
            and person.visible.any()
        )
        assert person.area > 0 and min(person.box[2:]) > 0 and person.dataset == name
    assert len({person.annotation_id for person in persons}) == len(persons)
    poses = [np.insert(person.keypoints, 2, 1, axis=1).ravel().tolist() for person in persons]
    found = [
        {"image_id": person.image_id, "category_id": 1, "score": 1.0, "keypoints": pose}
        for person, pose in zip(persons, poses, strict=True)
    ]
    annotations = [{**annotation, "category_id": 1} for image in images for annotation in image.annotations]
    truth = {
        "images": [{"id": image.image_id} for image in images],
        "annotations": annotations,
        "categories": [{"id": 1}],
    }
    assert evaluate_keypoints(truth, found, dataset.skeleton.sigmas)["AR"] == pytest.approx(1)


def test_mpii_counts_from_one_and_lowers_its_boxes() -> None:
    _, images = samples("mpii")
    person, annotation = images[0].persons[0], images[0].annotations[0]
    assert (person.image_id, person.annotation_id, images[0].path.name) == (5808361, 1, "005808361.jpg")
    assert person.keypoints[0].tolist() == [803, 710]  # of 804, 711
    side = 4.718488 * 200  # around (966, 340), 15 px * scale lower, less one
    assert person.box == pytest.approx((965 - side / 2, 339 + 15 * 4.718488 - side / 2, side, side))
    assert annotation["num_keypoints"] == 16 and set(person.visible.tolist()) == {2}
    unlabelled = next(p for image in images for p in image.persons if not p.visible.all())
    assert not unlabelled.keypoints[unlabelled.visible == 0].any()


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


def test_parts_of_halpe_are_runs_of_its_points_in_boxes_around_them() -> None:
    _, whole = samples("halpe136")
    points = {person.annotation_id: person for raw in whole for person in raw.persons}
    for name, starts, count in (("halpe_hand", (94, 115), 21), ("halpe_face", (26,), 68)):
        dataset, images = samples(name)
        parts = [person for raw in images for person in raw.persons]
        assert parts and len(dataset.instances) == len(starts)
        for part in parts:
            number, which = divmod(part.annotation_id, len(starts))
            run = slice(starts[which], starts[which] + count)
            np.testing.assert_array_equal(part.visible, points[number].visible[run])
            np.testing.assert_array_equal(part.keypoints, points[number].keypoints[run])
            labelled, (x, y, w, h) = part.keypoints[part.visible > 0], part.box
            center = (labelled.min(axis=0) + labelled.max(axis=0)) / 2
            np.testing.assert_allclose((x + w / 2, y + h / 2), center, rtol=1e-5)
            assert (np.ptp(labelled, axis=0) <= (w, h)).all() and part.area == pytest.approx(
                w * h * AREA_PER_BOX
            )


def test_both_hands_of_an_annotation_are_instances() -> None:
    _, images = samples("coco_wholebody_hand")
    raw = next(image for image in images if image.image_id == 197388)
    source = json.loads(realdata("coco_wholebody/annotations/coco_wholebody_val_v1.0.json").read_text())[
        "annotations"
    ]
    original = next(annotation for annotation in source if annotation["id"] == 437295)
    left, right = [person for person in raw.persons if person.annotation_id // 2 == 437295]
    for person, side in ((left, "left"), (right, "right")):
        assert person.annotation_id == 2 * 437295 + (side == "right")
        assert person.box == tuple(original[f"{side}hand_box"])
        np.testing.assert_allclose(
            person.keypoints.ravel(), np.delete(original[f"{side}hand_kpts"], slice(2, None, 3))
        )
        annotation = next(entry for entry in raw.annotations if entry["id"] == person.annotation_id)
        assert len(annotation["keypoints"]) == 63 and annotation["num_keypoints"] == 21
        assert (
            annotation["area"] == person.area == pytest.approx(person.box[2] * person.box[3] * AREA_PER_BOX)
        )
        assert annotation["bbox"] == original[f"{side}hand_box"] and "segmentation" not in annotation
    assert sum(len(image.left_out) for image in images) == 18  # of 14 annotations with two hands each


def test_feet_are_looked_for_in_the_persons_box() -> None:
    _, images = samples("coco_wholebody_foot")
    person, annotation = images[0].persons[0], images[0].annotations[0]
    assert person.box == (280.79, 44.73, 218.7, 346.68) and person.area == 27789.11055
    assert person.keypoints[0].tolist() == [439, 378] and len(annotation["keypoints"]) == 18


def test_of_longer_lists_the_first_points_are_taken() -> None:
    _, images = samples("halpe26")
    source = json.loads(realdata("others/halpe/test_halpe.json").read_text())["annotations"][0]
    annotation = next(entry for entry in images[0].annotations if entry["id"] == source["id"])
    assert annotation["keypoints"] == source["keypoints"][:78] and len(source["keypoints"]) == 408
    labelled = [v > 0 for v in annotation["keypoints"][2::3]]
    assert annotation["num_keypoints"] == sum(labelled)


def test_what_a_measure_needs_of_the_image_is_with_its_annotations() -> None:
    _, images = samples("crowdpose")
    annotation = images[0].annotations[0]
    assert annotation["crowdIndex"] == 0.33
    assert annotation["area"] == pytest.approx(273.15 * 352.42 * AREA_PER_BOX)


def test_human_art_names_its_files_from_the_folder_above(tmp_path: Path) -> None:
    (tmp_path / "HumanArt/annotations").mkdir(parents=True)
    (tmp_path / "HumanArt/images").symlink_to(realdata("others/humanart"))
    content = realdata("others/humanart/test_humanart.json").read_bytes()
    (tmp_path / "HumanArt/annotations/validation_humanart.json").write_bytes(content)
    images = list(read_images(load_dataset("humanart"), tmp_path, "val"))
    assert [len(image.persons) for image in images] == [1, 1, 2]


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
