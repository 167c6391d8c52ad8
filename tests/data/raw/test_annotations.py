"""Raw formats become persons: real files of every data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rtmpose.data.raw.annotations import read_images
from rtmpose.data.raw.coco_form import AREA_PER_BOX
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.coco import evaluate_keypoints
from tests.data.raw.samples import AIC, COCO, SAMPLES, WHOLEBODY, samples
from tests.support import realdata


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
