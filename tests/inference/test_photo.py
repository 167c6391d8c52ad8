"""A photograph through an exported model gives the points that evaluation gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.predict import predict_poses
from rtmpose.files import UserError
from rtmpose.inference.photo import predict_image
from rtmpose.models import MEAN, STD
from rtmpose.targets import SimCC
from tests.deploy.support import SIZE, formula_net, relabelled

BOXES = [(10.0, 20.0, 60.0, 80.0), (-30.0, 5.5, 90.0, 300.0)]


@dataclass(frozen=True)
class Photo:
    image: np.ndarray
    image_id: int = 1
    annotations: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (120, 160, 3), np.uint8)
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), cv2.GaussianBlur(pixels, (0, 0), 3))
    return path


def test_the_points_are_those_of_the_evaluation(files: ModelFiles, photo: Path) -> None:
    found = predict_image(photo, files.onnx, BOXES, photo.parent / "deep" / "drawn.png")
    pixels = cv2.imread(str(photo))
    assert pixels is not None
    image = Photo(np.ascontiguousarray(pixels[..., ::-1]))
    poses = predict_poses(
        formula_net(), SimCC(SIZE), [image], {1: [(box, 1.0) for box in BOXES]}, load_skeleton("coco17"),
        flip_test=False,
    )  # fmt: skip
    assert [one["box"] for one in found] == [list(box) for box in BOXES]
    for one, pose in zip(found, poses, strict=True):
        assert list(one["keypoints"]) == list(load_skeleton("coco17").names)
        points = np.array(list(one["keypoints"].values()))
        np.testing.assert_allclose(points[:, :2], pose.keypoints, atol=0.01)
        np.testing.assert_allclose(points[:, 2], pose.scores, atol=1e-3)
    drawn = cv2.imread(str(photo.parent / "deep" / "drawn.png"))
    assert drawn is not None and drawn.shape == pixels.shape and (drawn != pixels).any()


def test_without_a_box_the_person_fills_the_picture(files: ModelFiles, photo: Path) -> None:
    assert predict_image(photo, files.onnx, []) == predict_image(photo, files.onnx, [(0, 0, 160, 120)])


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((160.0, 0.0, 10.0, 10.0), "outside the image, which is 160x120 px"),
        ((0.0, -30.0, 10.0, 20.0), "outside the image"),
        ((math.nan, 0.0, 10.0, 10.0), "outside the image"),
        ((0.0, 0.0, math.inf, 10.0), "finite"),
        ((0.0, 0.0, math.nan, 10.0), "outside the image"),
        ((5.0, 5.0, 0.0, 0.0), "w and h above 0"),
    ],
)
def test_a_box_that_shows_nothing_is_one_line(
    files: ModelFiles, photo: Path, box: tuple[float, float, float, float], reason: str
) -> None:
    with pytest.raises(UserError, match=rf"^[^\n]*box[^\n]*{reason}[^\n]*$"):
        predict_image(photo, files.onnx, [box], photo.parent / "drawn.png")
    assert not (photo.parent / "drawn.png").exists()


def test_a_picture_that_is_none_is_one_line(files: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("text.jpg", "none.jpg"):
        with pytest.raises(UserError, match=rf"^[^\n]*{name}: [^\n]+$"):
            predict_image(tmp_path / name, files.onnx, [])


def test_points_of_another_data_set_are_refused(files: ModelFiles, photo: Path, tmp_path: Path) -> None:
    path = relabelled(files, tmp_path, skeleton="ap10k")
    with pytest.raises(
        UserError, match=r"^[^\n]*other\.onnx: its 17 points are not those of data set 'ap10k'"
    ):
        predict_image(photo, path, [])


def test_the_cards_own_mean_and_deviation_prepare_the_photograph(
    files: ModelFiles, photo: Path, tmp_path: Path
) -> None:
    """Twice as bright a picture under twice the mean and deviation is the same input."""
    pixels = cv2.imread(str(photo))
    assert pixels is not None
    cv2.imwrite(str(tmp_path / "dark.png"), pixels // 2)
    cv2.imwrite(str(tmp_path / "even.png"), pixels // 2 * 2)
    doubled = [[2 * value for value in values] for values in (MEAN, STD)]
    bright = relabelled(files, tmp_path, mean=doubled[0], std=doubled[1])
    assert predict_image(tmp_path / "even.png", bright, [], None) != predict_image(
        tmp_path / "even.png", files.onnx, [], None
    )
    ours, theirs = (
        predict_image(path, model, [(0, 0, 160, 120)])
        for path, model in ((tmp_path / "even.png", bright), (tmp_path / "dark.png", files.onnx))
    )
    points = [np.array(list(found[0]["keypoints"].values()))[:, :2] for found in (ours, theirs)]
    assert (np.abs(points[0] - points[1]).max(-1) < 2).mean() > 0.7  # rounding moves near-ties
