"""Any detector's file is read for what it is, and gives the same people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rtmpose.detection.detector import open_detector, suppressed
from rtmpose.detection.graph import Graph, Pixels
from rtmpose.detection.letterbox import letterbox
from rtmpose.files import UserError
from tests.detection import planted
from tests.support import realdata

REAL = "detectors/rtmdet-nano_320_person.onnx"
IMAGE = np.full((128, 192, 3), 50, np.uint8)  # twice the planted detectors' input

FORMS: dict[str, dict[str, Any]] = {
    "suppressed": {},
    "boxes": {"ends": ("Sigmoid",)},
    "boxes_logits": {},
    "levels": {},
    "grid": {"first": "Slice", "ends": ("Sigmoid",)},
    "grid_decoded": {"first": "Slice", "ends": ("Sigmoid", "Exp")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_form_gives_the_planted_people(form: str, runtime: str, tmp_path: Path) -> None:
    path = planted.write(tmp_path / "planted.onnx", planted.outputs(form), **FORMS[form])
    found = open_detector(path, size=planted.SIZE, runtime=runtime)(IMAGE)
    expected = planted.PEOPLE * [2, 2, 2, 2, 1]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_threshold_and_suppression_are_those_asked_for(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "planted.onnx", planted.outputs("boxes"), fixed=True, ends=("Sigmoid",))
    assert [len(open_detector(path, threshold=t)(IMAGE)) for t in (0.05, 0.55, 0.95)] == [3, 1, 0]
    assert len(open_detector(path, nms=1.0)(IMAGE)) == 3


def test_outputs_in_any_order_and_by_any_name(tmp_path: Path) -> None:
    dets = planted.outputs("suppressed")
    path = planted.write(tmp_path / "p.onnx", {"classes": dets["labels"], "found": dets["dets"]}, fixed=True)
    assert len(open_detector(path)(IMAGE)) == 2


def test_boxes_are_clipped_to_the_image(tmp_path: Path) -> None:
    boxes = np.array([[[-9.0, -5.0, 30.0, 99.0], [50.0, 50.0, 80.0, 62.0]]], np.float32)
    values = {"boxes": boxes, "scores": np.array([[[0.9], [0.8]]], np.float32)}
    path = planted.write(tmp_path / "p.onnx", values, fixed=True, ends=("Sigmoid",))
    found = open_detector(path)(np.zeros((32, 96, 3), np.uint8))  # the second box lies in the grey below
    np.testing.assert_allclose(found, [[0, 0, 30, 32, 0.9]], atol=1e-6)


def _box(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("outputs", "named"),
    [
        ({"output0": _box(1, 84, 126)}, "output0 (1, 84, 126)"),
        ({"boxes": _box(1, 7, 4), "scores": _box(1, 8, 1)}, "scores (1, 8, 1)"),
        ({"simcc_x": _box(1, 17, 384), "simcc_y": _box(1, 17, 512)}, "simcc_x (1, 17, 384)"),
        ({"dets": _box(1, 7, 5), "labels": np.zeros((1, 6), np.int64)}, "dets (1, 7, 5), labels (1, 6)"),
        ({f"map_{n}": _box(1, 4, 3, 3) for n in range(6)}, "map_0 (1, 4, 3, 3)"),
    ],
)
def test_other_outputs_are_refused_by_name(outputs: dict[str, Any], named: str, tmp_path: Path) -> None:
    path = planted.write(tmp_path / "other.onnx", outputs)
    with pytest.raises(UserError) as error:
        open_detector(path, size=planted.SIZE)
    assert str(path) in str(error.value) and named in str(error.value) and "export" in str(error.value)


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "p.onnx", planted.outputs("boxes"), fixed=True, ends=("Sigmoid",))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"nms": float("nan")}, "nms nan"),
        ({"threads": 0}, "threads 0"),
        ({"runtime": "abacus"}, "onnxruntime, openvino"),
        ({"size": (64, 64)}, "takes 96x64 px only"),
    ]
    for settings, text in wrong:
        with pytest.raises(UserError, match=text):
            open_detector(path, **settings)
    free = planted.write(tmp_path / "free.onnx", planted.outputs("boxes"), ends=("Sigmoid",))
    with pytest.raises(UserError, match="multiples of 32"):
        open_detector(free, size=(100, 64))


def test_files_that_are_no_detector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        open_detector(tmp_path / "none.onnx")
    (tmp_path / "torn.onnx").write_bytes(b"\x08\x08\x12torn")
    with pytest.raises(UserError, match="not a complete ONNX model"):
        open_detector(tmp_path / "torn.onnx")
    grey = planted.write(tmp_path / "grey.onnx", planted.outputs("boxes"), channels=1)
    with pytest.raises(UserError, match="input batchx1xheightxwidth"):
        open_detector(grey)


def test_what_is_not_finite_is_told(tmp_path: Path) -> None:
    values = planted.outputs("boxes")
    values["boxes"] = np.full_like(values["boxes"], np.inf)
    path = planted.write(tmp_path / "p.onnx", values, fixed=True, ends=("Sigmoid",))
    with pytest.raises(UserError, match="not finite"):
        open_detector(path)(IMAGE)
    with pytest.raises(ValueError, match="float64"):
        open_detector(path)(IMAGE.astype(float))


def test_pixels_and_size_follow_the_family(tmp_path: Path) -> None:
    dets = planted.outputs("suppressed")
    rtmdet = Graph(planted.write(tmp_path / "rtmdet.onnx", dets))
    yolox = Graph(planted.write(tmp_path / "yolox.onnx", dets, first="Slice"))
    assert rtmdet.pixels().std == (57.375, 57.12, 58.395) and rtmdet.pixels().bgr
    assert yolox.pixels() == Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), bgr=True)
    assert rtmdet.size(None) == (320, 320) and yolox.size(None) == (416, 416)


def test_letterbox_keeps_the_ratio_at_the_top_left() -> None:
    image = np.zeros((100, 50, 3), np.uint8)
    image[..., 0], image[..., 2] = 200, 10  # red, blue
    letter = letterbox(image, (64, 64), Pixels((1.0, 2.0, 3.0), (2.0, 1.0, 1.0)))
    assert letter.blob.shape == (1, 3, 64, 64) and letter.scale == (0.64, 0.64)
    np.testing.assert_allclose(letter.blob[0, :, 0, 0], [4.5, -2, 197], atol=1e-5)  # blue first
    np.testing.assert_allclose(letter.blob[0, :, 63, 31], [4.5, -2, 197], atol=1e-5)
    np.testing.assert_allclose(letter.blob[0, :, 0, 32], [56.5, 112, 111], atol=1e-5)  # grey 114
    np.testing.assert_allclose(letter.to_image(np.array([[0, 0, 32, 64]])), [[0, 0, 50, 100]])


def test_suppression_keeps_the_best_of_each_heap() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 10, 20], [30, 0, 40, 10]], np.float32)
    scores = np.array([0.5, 0.9, 0.4, 0.95], np.float32)
    assert suppressed(boxes, scores, 0.6).tolist() == [3, 1, 2]
    assert suppressed(boxes, scores, 0.5).tolist() == [3, 1]
    assert suppressed(boxes[:0], scores[:0], 0.5).tolist() == []


def test_the_published_detector_finds_the_people_of_a_photograph() -> None:
    image = cv2.imread(str(realdata("coco/val2017/000000000785.jpg")))
    assert image is not None
    pixels = np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)
    found = [
        open_detector(realdata(REAL), runtime=runtime, threads=2)(pixels)
        for runtime in ("onnxruntime", "openvino")
    ]
    assert len(found[0]) == 1
    np.testing.assert_allclose(found[0][0, :4], [281.5, 44.1, 496.4, 386.1], atol=10)  # as annotated
    np.testing.assert_allclose(found[0], found[1], atol=0.05)
