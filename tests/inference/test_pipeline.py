"""The pipeline on single pictures: the same points as the evaluation's way, whatever the form and threads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtmpose.deploy.card import Confidence
from rtmpose.deploy.e2e import EndToEnd, e2e_path, export_e2e
from rtmpose.deploy.graphs import save_card
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.files import UserError
from rtmpose.inference.network import Points, Spread, open_network, parts_of
from rtmpose.inference.photo import predict_image
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.topdown import one_thread
from tests.deploy.support import relabelled

BOXES = np.array([[10.0, 20.0, 70.0, 100.0], [-30.0, 5.5, 60.0, 305.5], [0.0, 0.0, 160.0, 120.0]])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (120, 160, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), cv2.GaussianBlur(pixels, (0, 0), 3))
    return tmp_path / "photo.png"


@pytest.fixture
def pixels(photo: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(photo))[..., ::-1])  # type: ignore[index]


def test_the_points_are_those_of_predict_with_any_number_of_threads(
    files: ModelFiles, photo: Path, pixels: np.ndarray
) -> None:
    sides = [(x, y, a - x, b - y) for x, y, a, b in BOXES.tolist()]
    expected = predict_image(photo, files.onnx, sides)
    for threads in (1, 2, 5):
        pipeline = PosePipeline.load(files.onnx, threads=threads)
        found = pipeline.persons(pixels, BOXES)
        for person, one in zip(found, expected, strict=True):
            rows = np.array(list(one["keypoints"].values()))
            np.testing.assert_allclose(person.keypoints, rows[:, :2], atol=0.01)
            np.testing.assert_allclose(person.scores, rows[:, 2], atol=1e-3)
        assert pipeline.names == tuple(expected[0]["keypoints"])
    assert pipeline.persons(pixels, np.empty((0, 4))) == []
    assert [one.box.tolist() for one in pipeline(photo)] == [[0, 0, 160, 120]], "one fills the picture"


def test_a_detector_says_where_people_are(files: ModelFiles, photo: Path) -> None:
    def detector(_: np.ndarray) -> np.ndarray:
        return np.array([[10, 20, 70, 100, 0.75], [0, 0, 160, 120, 0.5]])

    found = PosePipeline.load(files.onnx, detector, threads=1)(photo)
    assert [(*one.box, one.box_score) for one in found] == [tuple(row) for row in detector(np.empty(0))]


def test_the_end_to_end_form_is_used_only_where_it_is_this_very_files(
    files: ModelFiles, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.onnx"
    shutil.copy(files.onnx, own)
    export_e2e(own)
    asked: list[Path] = []
    made_from = EndToEnd.made_from

    def noted(self: EndToEnd, source: Path) -> bool:
        asked.append(source)
        return made_from(self, source)

    monkeypatch.setattr(EndToEnd, "made_from", noted)
    whole, plain = open_network(own, 2), open_network(files.onnx, 2)
    assert asked == [own]
    sides = BOXES - [0, 0, *BOXES[0, :2]]
    for ours, theirs in zip(whole(pixels, sides), plain(pixels, sides), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-2)
    other = relabelled(files, tmp_path, git_commit="fff")
    shutil.copy(e2e_path(own), e2e_path(other))
    assert open_network(other).card.git_commit == "fff"
    assert open_network(e2e_path(own)).card == plain.card
    asked.clear()
    rounded = own.with_name("rounded.onnx")
    save_card(own, plain.card.with_more(precision="int8"), rounded)
    export_e2e(rounded)
    assert open_network(rounded).card.precision == "int8" and asked == []


def test_confidence_is_the_cards_curve_or_the_cut_score(
    files: ModelFiles, pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = PosePipeline.load(files.onnx, threads=1)
    assert not raw.calibrated and len(caplog.records) == 1 and "no calibration" in caplog.text
    (person,) = raw.persons(pixels, BOXES[:1])
    np.testing.assert_array_equal(person.confidence, np.clip(person.scores, 0, 1))
    curve = Confidence(slope=2.0, intercept=-1.0)
    path = relabelled(files, tmp_path, confidence=curve.model_dump())
    (sure,) = PosePipeline.load(path, threads=1).persons(pixels, BOXES[:1])
    np.testing.assert_allclose(sure.confidence, 1 / (1 + np.exp(1 - 2 * sure.scores)))
    assert len(caplog.records) == 1, "a calibrated model says nothing"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (np.zeros((4, 4), np.uint8), "uint8 .4, 4.; give a path"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), "has no pixels"),
        (7, "is int; give a path"),
        ("none.jpg", "none.jpg: no such file"),
    ],
)
def test_what_is_no_picture_is_one_line(files: ModelFiles, given: object, reason: str) -> None:
    pipeline = PosePipeline.load(files.onnx, threads=1)
    with pytest.raises(UserError, match=rf"^[^\n]*{reason}[^\n]*$"):
        pipeline(given)  # type: ignore[arg-type]


def test_a_model_with_other_points_is_refused(files: ModelFiles) -> None:
    PosePipeline.load(files.onnx, skeleton="coco17", threads=1)
    with pytest.raises(UserError, match=r"its 17 points are not the \d+ of --skeleton halpe26, such as"):
        PosePipeline.load(files.onnx, skeleton="halpe26", threads=1)


IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_parts_are_put_together_in_the_order_of_the_persons(threads: int, count: int) -> None:
    opened: list[int] = []

    def opening(number: int) -> Points:
        opened.append(number)
        return lambda image, boxes: (boxes * 2, np.full(len(boxes), number))

    boxes, spread = np.arange(4.0 * count).reshape(count, 4), Spread(opening, threads)
    for _ in range(2):
        doubled, by = spread(IMAGE, boxes)
        assert doubled.tolist() == (boxes * 2).tolist()
        assert set(by) == {threads if count < threads else 1}, "few persons share all threads"
    assert opened == ([1, threads] if count < threads else [1])


def test_what_one_thread_meets_ends_the_call() -> None:
    def points(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, ...]:
        if 3 in boxes:
            raise UserError("three")
        return (boxes * 2,)

    spread, nine = Spread(lambda _: points, 3), np.arange(9.0)
    assert spread(IMAGE, nine[:3])[0].tolist() == [0, 2, 4]
    for _ in range(2):
        with pytest.raises(UserError, match="three"):
            spread(IMAGE, nine)
    assert spread(IMAGE, nine[:3])[0].tolist() == [0, 2, 4], "it goes on after an error"


def test_pytorchs_number_of_threads_stays_the_processs() -> None:
    """Threads that keep PyTorch to one for a moment, side by side, leave it as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:

        def points(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, ...]:
            with one_thread():
                return (torch.from_numpy(boxes).add(1).numpy(),)

        spread = Spread(lambda _: points, 3)
        for _ in range(50):
            spread(IMAGE, np.arange(64.0))
        with ThreadPoolExecutor(1) as fresh:
            assert fresh.submit(torch.get_num_threads).result() == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@given(st.integers(1, 200), st.integers(1, 32), st.integers(1, 8))
def test_parts_cover_each_person_once(count: int, threads: int, passes_of: int) -> None:
    parts = [*parts_of(count, threads, passes_of)]
    assert [at for part in parts for at in range(count)[part]] == [*range(count)]
    sizes = [part.stop - part.start for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    if passes_of == 1:
        assert sizes[-1] == 1
    else:  # as many whole passes for each thread as there are
        alike = count // (passes_of * threads) * threads
        assert set(sizes[:alike]) <= {passes_of} and max(sizes[alike:], default=0) <= passes_of // 2


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = "import sys, rtmpose; assert 'numpy' not in sys.modules and hasattr(rtmpose, 'PosePipeline')"
    subprocess.run([sys.executable, "-c", code], check=True)
