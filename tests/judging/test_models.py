"""MoveNet, BlazePose and TinyPose: crops and points, on files with their exact signatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError
from rtmpose.judging.blazepose import COCO17, BlazePose, Square, square_of
from rtmpose.judging.foreign import open_foreign
from rtmpose.judging.movenet import MoveNet, crop_square, cut_square
from rtmpose.judging.tinypose import TinyPose
from tests.judging.conftest import Save

WIDE = np.zeros((60, 100, 3), np.uint8)


def standing() -> np.ndarray:
    """(17, 3) x, y px, score: shoulders and hips around (40, 30), and all points seen."""
    points = np.tile([40.0, 30.0, 0.9], (17, 1))
    points[5, :2], points[6, :2] = (45, 20), (35, 20)
    points[11, :2], points[12, :2] = (43, 30), (37, 30)
    points[15, :2] = (40, 38)
    return points


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.UINT8, TensorProto.FLOAT])
def test_movenet_gives_points_of_the_whole_picture_then_of_its_crop(save: Save, kind: int) -> None:
    output = np.zeros((1, 1, 17, 3))
    output[..., 0], output[..., 1], output[..., 2] = 0.25, 0.5, 0.1
    model = MoveNet(save("movenet", (1, 192, 192, 3), kind, {"output_0": output}))
    [person] = model(WIDE)
    # the square of side 100 begins 20 px above the picture
    np.testing.assert_allclose(person.keypoints, np.tile([50.0, 5.0], (17, 1)), atol=1e-5)
    np.testing.assert_allclose(person.scores, 0.1)


def test_movenets_crop_follows_the_torso_and_the_points() -> None:
    whole = (0.0, -20.0, 100.0)
    assert crop_square(None, 100, 60) == whole
    points = standing()
    # the torso reaches 10 px from the hips, times 1.9; the points 10 px, times 1.2
    np.testing.assert_allclose(crop_square(points, 100, 60), (21.0, 11.0, 38.0))
    points[15, :2] = (40, 58)  # 28 px away, times 1.2
    np.testing.assert_allclose(crop_square(points, 100, 60), (40 - 33.6, 30 - 33.6, 67.2))
    points[15, 2] = 0.1
    np.testing.assert_allclose(crop_square(points, 100, 60), (21.0, 11.0, 38.0))
    points[[11, 12], 2] = 0.2  # not above the threshold: no torso
    assert crop_square(points, 100, 60) == whole
    points[[11, 12], 2], points[5, :2] = 0.9, (99, 20)  # larger than the picture
    assert crop_square(points, 100, 60) == whole


def test_a_cut_square_keeps_places() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:14, 20:24] = 255
    cut = cut_square(image, 10.0, 0.0, 20.0, 40)
    rows, columns = np.nonzero(cut[..., 0] > 127)
    assert (rows.mean() + 0.5) / 2 == pytest.approx(12.0) and (
        columns.mean() + 0.5
    ) / 2 + 10 == pytest.approx(22)
    assert cut_square(image, 30.0, 30.0, 20.0, 20)[15:, 15:].max() == 0


def blazepose_output(middle: tuple[float, float], reach: tuple[float, float]) -> np.ndarray:
    """(1, 195): point k at (k, 2k) px of the input, logits 0 but for the nose's; the two alignment points."""
    rows = np.zeros((39, 5))
    rows[:, 0], rows[:, 1] = np.arange(39), 2 * np.arange(39)
    rows[0, 3] = 20.0
    rows[33, :2], rows[34, :2] = middle, reach
    return rows.reshape(1, 195)


def test_blazepose_maps_its_points_and_turns_its_square(save: Save) -> None:
    outputs = {
        "world": np.zeros((1, 117)),
        "Identity": blazepose_output((128, 128), (192, 128)),
        "flag": np.array([[0.9]]),
    }
    model = BlazePose(save("blazepose", (1, 256, 256, 3), TensorProto.FLOAT, outputs))
    [person] = model(np.zeros((256, 256, 3), np.uint8))
    np.testing.assert_allclose(person.keypoints[:, 0], COCO17, atol=1e-4)
    np.testing.assert_allclose(person.keypoints[:, 1], 2 * np.array(COCO17), atol=1e-4)
    np.testing.assert_allclose(person.scores[[0, 1]], [1.0, 0.5])
    assert person.box_score == pytest.approx(0.9)
    # the reach lies to the right: the square is turned by a quarter, its side is 2 * 64 * 1.25
    [person] = model(np.zeros((256, 256, 3), np.uint8))
    nose = 128 + 80.0, 128 - 80.0  # the first corner of the turned square
    np.testing.assert_allclose(person.keypoints[0], nose, atol=1e-4)
    model.forget()
    [person] = model(np.zeros((256, 256, 3), np.uint8))
    np.testing.assert_allclose(person.keypoints[0], (0, 0), atol=1e-4)


def test_blazepose_begins_anew_without_a_person(save: Save) -> None:
    outputs = {"Identity": blazepose_output((128, 128), (192, 128)), "flag": np.array([[0.2]])}
    model = BlazePose(save("nobody", (1, 256, 256, 3), TensorProto.FLOAT, outputs))
    first, second = (model(np.zeros((256, 256, 3), np.uint8))[0] for _ in range(2))
    np.testing.assert_array_equal(first.keypoints, second.keypoints)


def test_a_turned_square_shows_what_lies_there() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    image[48:52, 68:72] = 255  # 20 px to the right of the middle
    square = square_of(np.array([50.0, 50.0]), np.array([70.0, 50.0]))
    assert square.side == 50.0 and square.turn == pytest.approx(np.pi / 2)
    rows, columns = np.nonzero(square.cut(image, 100)[..., 0] > 127)
    shares = (np.array([columns.mean(), rows.mean()]) + 0.5) / 100
    np.testing.assert_allclose(square.place(shares[None])[0], (70, 50), atol=0.3)
    assert shares[1] < 0.2  # upright: the reach is above the middle
    np.testing.assert_allclose(Square(np.array([5.0, 6.0]), 2.0, 0.0).place(np.array([[0.0, 1.0]])), [[4, 7]])


@pytest.mark.parametrize("size", [(96, 128), (192, 256)])
def test_tinypose_finds_the_peaks_in_each_box(save: Save, size: tuple[int, int]) -> None:
    w, h = size[0] // 4, size[1] // 4
    y, x = np.mgrid[:h, :w]
    maps = np.tile(0.8 * np.exp(-((x - 6) ** 2 + (y - 10) ** 2) / 8), (1, 17, 1, 1))
    outputs = {"conv": maps, "argmax": np.zeros((1, 17))}
    model = TinyPose(save("tinypose", (1, 3, size[1], size[0]), TensorProto.FLOAT, outputs))
    boxes = [[10, 10, 40, 50, 0.9], [60, 10, 90, 50, 0.4]]
    left, right = model(WIDE, boxes)
    np.testing.assert_allclose(right.keypoints - left.keypoints, np.tile([50.0, 0.0], (17, 1)), atol=1e-4)
    # a box of 30x40 px is 37.5x50 px of the crop: its middle is (25, 30)
    wanted = (25 - 18.75 + 37.5 * 6 / (w - 1), 30 - 25 + 50 * 10 / (h - 1))
    np.testing.assert_allclose(left.keypoints[0], wanted, atol=0.1)
    assert left.scores[0] == pytest.approx(0.8) and right.box_score == 0.4
    assert len(left.keypoints) == load_skeleton("coco17").num_keypoints
    assert model(WIDE, []) == []


def test_other_files_are_refused(save: Save, tmp_path: Path) -> None:
    picture = save("a", (1, 192, 192, 3), TensorProto.FLOAT, {"out": np.zeros((1, 5))})
    with pytest.raises(UserError, match=r"not MoveNet's"):
        MoveNet(picture)(WIDE)
    with pytest.raises(UserError, match="39 points"):
        BlazePose(picture)(WIDE)
    with pytest.raises(UserError, match="fixed size"):
        TinyPose(picture)
    planes = save("b", (1, 3, 128, 96), TensorProto.FLOAT, {"out": np.zeros((1, 5))})
    with pytest.raises(UserError, match="square picture"):
        MoveNet(planes)
    with pytest.raises(UserError, match="no heatmaps"):
        TinyPose(planes)(WIDE, [[0, 0, 10, 10, 1]])
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for name, words in (("broken.onnx", "cannot open"), ("missing.onnx", "no such file")):
        with pytest.raises(UserError, match=words):
            open_foreign(tmp_path / name)
    (tmp_path / "model.pb").write_bytes(b"")
    with pytest.raises(UserError, match="neither"):
        open_foreign(tmp_path / "model.pb")
