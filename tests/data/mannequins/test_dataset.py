"""Mannequins: the anatomy keeps its limits, flags follow the geometry, and the files are the real data sets'
own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from rtmpose.data.mannequins import body as anatomy
from rtmpose.data.mannequins import scene
from rtmpose.data.mannequins.body import Camera, Pose
from rtmpose.data.mannequins.dataset import MARKER, render_dataset
from rtmpose.data.mannequins.figure import Look, Parts, add_person
from rtmpose.data.mannequins.points import AIC14, labelled_points
from rtmpose.data.mannequins.render import SUPERSAMPLING, bounds
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError
from tests.support import realdata

REST = {name: spread[0] for name, spread in anatomy.REST.items()}
BODY = anatomy.Proportions(1.75, 1.2, 0.108, 0.055, 0.172, 0.245, 1.0, 1.15, 0.0)
CAMERA = Camera(np.array([0.0, 0.9, 0.0]), 0.0, 300.0, (320, 240))
SMALL: dict[str, Any] = {"images": {"train": 6, "val": 4}, "size": (160, 120), "seed": 5}


def standing(yaw: float, **limb_angles: float) -> Pose:
    trunk = {name: 0.0 for name in anatomy.TRUNK_LIMITS}
    limbs = {side: {name: REST[name] for name in anatomy.LIMB_LIMITS} | limb_angles for side in anatomy.SIDES}
    return Pose(trunk, limbs, "standing", yaw, 0.0, 0.0)


def actor(pose: Pose, at: tuple[float, float] = (0.0, -3.2)) -> scene.Actor:
    """A person standing at x and z = `at` on the ground before CAMERA."""
    color = np.full(3, 128.0)
    look = Look(color, color, color, color, color, color, 1.0, 1.0, 1)
    frames = anatomy.solve(pose, BODY)
    points = labelled_points(frames, pose, BODY)
    parts = Parts()
    add_person(parts, frames, points, BODY, look)
    offset = np.array([at[0], -points[:, 1].min(), at[1]])
    solids = parts.solids().moved(offset)
    boxes = bounds(solids, CAMERA).boxes(CAMERA)
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    return scene.Actor(solids, box, points + offset, BODY.height * BODY.girth, pose.yaw)


def seen(*actors: scene.Actor) -> list[scene.Person]:
    layers = [scene.trace_actor(one, CAMERA) for one in actors]
    masks = scene.nearest_layers(layers, CAMERA)
    return [
        scene.describe(layer, layer.own & mask, CAMERA) for layer, mask in zip(layers, masks, strict=True)
    ]


def test_a_front_view_shows_everything_and_the_left_side_at_the_larger_x() -> None:
    (person,) = seen(actor(standing(0.0)))
    assert person.visible[:17].tolist() == [2] * 17
    for left, right in ((5, 6), (11, 12), (13, 14), (15, 16), (1, 2), (3, 4), (17, 20)):
        assert person.points[left, 0] > person.points[right, 0]
    # the iBUG jaw runs from the person's right ear to the left one, in this view from left to right
    assert (np.diff(person.points[23:40, 0]) > 0).all()
    assert (
        person.points[31, 1] > person.points[0, 1] > person.points[1, 1] > person.points[133, 1]
    )  # chin, nose, eye, top
    assert person.view == "front" and not person.truncated


def test_a_back_view_hides_the_face_only() -> None:
    (person,) = seen(actor(standing(180.0)))
    assert person.visible[:3].tolist() == [1, 1, 1]
    assert person.visible[5:17].tolist() == [2] * 12
    assert (person.visible[23:91] == 1).mean() > 0.9
    assert person.points[5, 0] < person.points[6, 0]
    assert person.view == "back"


def test_a_side_view_hides_the_far_side() -> None:
    (person,) = seen(
        actor(standing(90.0))
    )  # looks to the image's right: the right side is turned to the camera
    assert person.visible[[2, 4, 6, 12]].tolist() == [2] * 4
    assert person.visible[[3, 5, 11]].tolist() == [1] * 3
    assert person.points[0, 0] > person.points[4, 0]


def test_a_person_in_front_hides_the_one_behind() -> None:
    near, far = seen(actor(standing(0.0), (0.0, -2.4)), actor(standing(0.0), (0.0, -4.5)))
    alone = seen(actor(standing(0.0), (0.0, -4.5)))[0]
    assert near.visible[5:17].max() == 2 and (far.visible[5:13] == 1).all()
    assert far.area < 0.5 * alone.area and far.box == alone.box
    np.testing.assert_array_equal(far.points, alone.points)


def test_points_outside_the_image_are_not_labelled() -> None:
    (person,) = seen(actor(standing(0.0), (1.75, -3.2)))
    assert person.truncated and (person.visible == 0).any() and (person.visible == 2).any()
    assert (person.points[person.visible == 0] == 0).all()
    x, y, w, h = person.box
    assert x >= 0 and y >= 0 and x + w <= 319 and y + h <= 239


def test_box_and_area_are_those_of_the_drawn_silhouette() -> None:
    one = actor(standing(30.0, shoulder_elevation=80.0))
    layer = scene.trace_actor(one, CAMERA)
    (person,) = seen(one)
    rows, columns = np.nonzero(layer.own)
    corner = np.array([layer.quadrics.window[1].start, layer.quadrics.window[0].start] * 2)
    drawn = (np.array([columns.min(), rows.min(), columns.max(), rows.max()]) + corner) / SUPERSAMPLING
    x, y, w, h = person.box
    assert np.abs(drawn - [x, y, x + w, y + h]).max() < 1.5
    assert person.area == layer.own.sum() / SUPERSAMPLING**2


def test_traced_depth_is_that_of_the_anatomy() -> None:
    layer = scene.trace_actor(actor(standing(0.0)), CAMERA)
    assert layer.actor.points is not None
    x, y, depth = CAMERA.project(layer.actor.points[0])  # the nose's tip lies on the surface
    rows, columns = layer.quadrics.window
    column, row = (round((value + 0.5) * SUPERSAMPLING - 0.5) for value in (x, y))
    assert 1 / layer.inverse_depth[row - rows.start, column - columns.start] == pytest.approx(depth, abs=0.02)


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_random_poses_keep_the_joint_limits_and_bone_lengths(level: str) -> None:
    rng = np.random.default_rng(0)
    elbows = []
    for _ in range(60):
        pose, body = anatomy.random_pose(rng, level, 0.0), anatomy.random_proportions(rng)
        for angles, limits in [(pose.trunk, anatomy.TRUNK_LIMITS)] + [
            (limb, anatomy.LIMB_LIMITS) for limb in pose.limbs.values()
        ]:
            assert angles.keys() == limits.keys()
            assert all(limits[name][0] <= angle <= limits[name][1] for name, angle in angles.items())
        p = labelled_points(anatomy.solve(pose, body), pose, body)
        for a, b, share in (
            (5, 7, body.arm),
            (6, 8, body.arm),
            (7, 9, 0.9 * body.arm),
            (11, 13, body.leg),
            (14, 16, body.leg),
        ):
            assert np.linalg.norm(p[a] - p[b]) == pytest.approx(share * body.height, rel=1e-6)
        elbows.append(np.linalg.norm(p[5] - p[9]) / (1.9 * body.arm * body.height))
    assert min(elbows) < 0.7 and max(elbows) > 0.97  # arms do bend, and stretch


def test_right_limbs_mirror_left_ones() -> None:
    pose = standing(
        0.0,
        shoulder_elevation=70.0,
        shoulder_plane=40.0,
        elbow=60.0,
        hip_flex=50.0,
        knee=70.0,
        hip_abduction=20.0,
    )
    p = labelled_points(anatomy.solve(pose, BODY), pose, BODY)
    for left, right in ((5, 6), (7, 8), (9, 10), (13, 14), (15, 16), (17, 20), (95, 116), (111, 132)):
        np.testing.assert_allclose(p[left] * (-1, 1, 1), p[right], atol=1e-9)
    assert p[13, 2] > 0.1 and p[15, 2] < p[13, 2]  # the hip bends forward, the knee backward
    assert p[9, 2] > 0.1  # the elbow bends the forearm forward
    assert p[17, 2] > p[19, 2]  # toes before heels


def test_the_same_seed_gives_the_same_files_for_any_number_of_workers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"images": {"train": 16, "val": 2}, "size": (96, 96), "seed": 3}
    one = render_dataset(tmp_path / "one", "coco17", **options, workers=1)
    two = render_dataset(tmp_path / "two", "coco17", **options, workers=2)
    other = render_dataset(tmp_path / "other", "coco17", **{**options, "seed": 4}, workers=1)
    names = sorted(str(p.relative_to(tmp_path / "one")) for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(names) == 18 + 2 + 1 + 1
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert one == two != other
    assert len({path.read_bytes() for path in (tmp_path / "one").rglob("*.jpg")}) == 18


def test_coco_layout_is_what_pycocotools_reads(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    summary = render_dataset(
        tmp_path / "raw", "coco17", **SMALL, workers=1, progress=lambda now, total: done.append((now, total))
    )
    assert done[-1] == (10, 10) and len(done) == 10
    for split, count in SMALL["images"].items():
        coco = COCO(str(tmp_path / "raw" / "annotations" / f"person_keypoints_{split}2017.json"))
        assert len(coco.imgs) == count and len(coco.anns) == summary[split]["persons"] >= count
        for image in coco.imgs.values():
            pixels = cv2.imread(str(tmp_path / "raw" / f"{split}2017" / image["file_name"]))
            assert pixels is not None and pixels.shape == (image["height"], image["width"], 3) == (
                120,
                160,
                3,
            )
        for annotation in coco.anns.values():
            points = np.array(annotation["keypoints"]).reshape(17, 3)
            assert annotation["num_keypoints"] == (points[:, 2] > 0).sum() > 0
            assert set(points[:, 2]) <= {0, 1, 2} and (points[points[:, 2] == 0] == 0).all()
            assert annotation["area"] <= annotation["bbox"][2] * annotation["bbox"][3] * 1.2
            assert annotation["attributes"]["occluded"] == pytest.approx(
                (points[:, 2] == 1).sum() / (points[:, 2] > 0).sum(), abs=1e-4
            )
    boxes = json.loads(
        (tmp_path / "raw/person_detection_results/COCO_val2017_detections_AP_H_56_person.json").read_text()
    )
    assert set(boxes[0]) == {"image_id", "category_id", "bbox", "score"}
    assert {box["image_id"] for box in boxes} <= set(coco.imgs)


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_summary_adds_up(tmp_path: Path, level: str) -> None:
    summary = render_dataset(tmp_path / "raw", "coco17", **SMALL, level=level, workers=1)
    for split, count in SMALL["images"].items():
        figures = summary[split]
        assert figures["images"] == count == sum(figures["people_per_image"].values())
        assert figures["persons"] == sum(int(n) * k for n, k in figures["people_per_image"].items())
        assert figures["persons"] == sum(figures["views"].values()) == sum(figures["occlusion"].values())
        assert 0 <= figures["truncated"] <= 1


def test_aic_layout_has_the_fields_and_order_of_the_real_one(tmp_path: Path) -> None:
    render_dataset(tmp_path / "raw", "aic", images={"train": 4, "val": 0}, seed=2, workers=1)
    folder = tmp_path / "raw" / "ai_challenger_keypoint_train_20170902"
    content = json.loads((folder / "keypoint_train_annotations_20170909.json").read_text())
    assert [path.name for path in (tmp_path / "raw").iterdir() if path.is_dir()] == [folder.name]
    flags: list[int] = []
    for entry in content:
        assert (folder / "keypoint_train_images_20170902" / f"{entry['image_id']}.jpg").is_file()
        assert (
            len(entry["image_id"]) == 40
            and entry["human_annotations"].keys() == entry["keypoint_annotations"].keys()
        )
        for name, flat in entry["keypoint_annotations"].items():
            assert all(isinstance(value, int) for value in flat + entry["human_annotations"][name])
            points = np.array(flat).reshape(14, 3)
            assert set(points[:, 2]) <= {1, 2, 3} and (points[points[:, 2] == 3, :2] == 0).all()
            assert (points[points[:, 2] < 3, :2].sum(1) > 0).all()
            flags += points[:, 2].tolist()
    assert flags.count(1) > 0.6 * len(flags) > flags.count(2) > 0  # on `easy` most points are seen
    real = json.loads(
        (realdata("aic") / folder.name / "keypoint_train_annotations_20170909.json").read_text()
    )
    assert content[0].keys() == real[0].keys()


def test_aic_takes_the_same_joints_as_coco() -> None:
    coco, aic = load_skeleton("coco17"), load_skeleton("aic")
    assert [coco.names[index] for index in AIC14[:12]] == list(aic.names[:12])
    pose = standing(0.0)
    p = labelled_points(anatomy.solve(pose, BODY), pose, BODY)
    top, neck = p[list(AIC14[12:])]
    assert top[1] > p[0, 1] > neck[1] > p[5, 1] - 0.05


def test_wholebody_layout_has_the_fields_of_the_real_one(tmp_path: Path) -> None:
    render_dataset(tmp_path / "raw", "coco_wholebody", images={"train": 8, "val": 2}, seed=2, workers=1)
    content = json.loads((tmp_path / "raw/annotations/coco_wholebody_train_v1.0.json").read_text())
    lengths = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    for annotation in content["annotations"]:
        for key, count in lengths.items():
            assert len(annotation[key]) == 3 * count
            points = np.array(annotation[key]).reshape(-1, 3)
            if key != "keypoints" and not annotation[key.replace("_kpts", "_valid")]:
                assert (points == 0).all()
    assert any(annotation["face_valid"] for annotation in content["annotations"])
    real = json.loads((realdata("coco_wholebody") / "annotations/coco_wholebody_val_v1.0.json").read_text())
    assert content["annotations"][0].keys() - {"attributes"} == real["annotations"][0].keys()


def test_rendering_again_keeps_what_is_not_ours(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    first = render_dataset(root, "coco17", **SMALL, workers=1)
    mine = root / "train2017" / "holiday.jpg"
    mine.write_bytes(b"mine")
    stamp = (root / MARKER).stat().st_mtime_ns
    assert render_dataset(root, "coco17", **SMALL, workers=1) == first
    assert (root / MARKER).stat().st_mtime_ns == stamp  # the same parameters: nothing done
    fewer = render_dataset(root, "coco17", **{**SMALL, "images": {"train": 3, "val": 1}}, workers=1)
    assert fewer["train"]["images"] == 3 and mine.read_bytes() == b"mine"
    assert sorted(path.name for path in (root / "train2017").glob("0*.jpg")) == [
        f"{n:012d}.jpg" for n in (1, 2, 3)
    ]
    assert json.loads((root / MARKER).read_text())["parameters"]["images"] == {"train": 3, "val": 1}
    assert list(tmp_path.iterdir()) == [root]  # no temporary folder is left


def test_an_interrupted_replacement_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "raw"
    render_dataset(root, "coco17", **SMALL, workers=1)
    replace, moved = os.replace, []

    def interrupted(source: Path, target: Path) -> None:
        if Path(target).suffix == ".jpg":
            moved.append(target)
            if len(moved) == 3:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render_dataset(root, "coco17", **{**SMALL, "seed": 6}, workers=1)
    assert len(moved) == 3 and json.loads((root / MARKER).read_text())["finished"] is False
    again = render_dataset(root, "coco17", **{**SMALL, "seed": 6}, workers=1)
    assert again == render_dataset(tmp_path / "fresh", "coco17", **{**SMALL, "seed": 6}, workers=1)
    for path in (tmp_path / "fresh").rglob("*.jpg"):
        assert path.read_bytes() == (root / path.relative_to(tmp_path / "fresh")).read_bytes()


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(UserError, match=str(tmp_path)):
        render_dataset(tmp_path, "coco17", **SMALL, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": "mpii"},
        {"level": "medium"},
        {"images": {"test": 3}},
        {"images": {"train": -1}},
        {"size": (10, 10)},
        {"seed": -1},
    ],
)
def test_impossible_parameters_are_one_clear_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"layout": "coco17", "level": "easy", **SMALL, **wrong}
    with pytest.raises(UserError) as error:
        render_dataset(tmp_path / "raw", **options, workers=1)
    assert "\n" not in str(error.value) and not (tmp_path / "raw").exists()
