"""Confidence beside what came true, and the whole command on a few photographs and a film."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtmpose.cli.app import app
from rtmpose.data.mannequins.film import FilmOptions
from rtmpose.data.mannequins.film_files import write_film
from rtmpose.data.shards.manifest import EvalImage
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.descriptors import load_skeleton
from rtmpose.ending import run_command
from rtmpose.evaluation.confidence import Logistic
from rtmpose.files import UserError
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.judging.calibrated import reliability_of, write_calibrated
from rtmpose.judging.poses import judge, truth_boxes
from rtmpose.motion.person import Person
from tests.deploy.conftest import files
from tests.judging.test_poses import annotation

__all__ = ["files"]
COCO17 = load_skeleton("coco17")
PIXELS = np.zeros((120, 160, 3), np.uint8)


def images(count: int) -> list[EvalImage]:
    """Of two people each; a third one without a size counts nowhere."""
    made = []
    for number in range(1, count + 1):
        none = annotation(number + 1000, number, 60, bbox=[60.0, 15.0, 0.0, 80.0])
        people = [annotation(number, number, 20), none, annotation(number + 500, number, 90)]
        made.append(EvalImage(number, PIXELS, 160, 120, people, f"{number}.jpg"))
    return made


def claiming(image: EvalImage) -> Sequence[Person]:
    """Points that are right as often as the score s says by 1 / (1 + exp(-(6 s - 3)))."""
    rng = np.random.default_rng(int(image.image_id))
    people = []
    for box, each in zip(truth_boxes(image), image.annotations[::2], strict=True):
        scores = rng.uniform(0.3, 0.7, 17)
        wrong = rng.random(17) > Logistic(6.0, -3.0)(scores)
        points = np.array(each["keypoints"], float).reshape(-1, 3)[:, :2] + 40 * wrong[:, None]
        people.append(Person(box[:4], points, scores, scores, 0.9))
    return people


def test_a_curve_is_judged_and_fitted() -> None:
    judged = judge(images(100), {"own": claiming})["own"]
    raw = reliability_of(judged, COCO17, None)
    assert raw.points == 3400 and raw.right == pytest.approx(0.5, abs=0.03)
    assert not raw.calibrated and raw.error == raw.error_raw and raw.rows == raw.rows_raw
    assert raw.curve is not None and raw.curve.slope == pytest.approx(6.0, abs=0.6)
    own = reliability_of(judged, COCO17, Logistic(6.0, -3.0))
    assert own.error is not None and raw.error is not None and own.error_refitted is not None
    assert own.error < 0.03 < raw.error and own.error_refitted < raw.error
    assert own.calibrated and "the model's calibration" in own.line() and "3400 points" in own.line()
    picture = cv2.imdecode(np.frombuffer(own.picture(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and min(picture.shape[:2]) > 300
    assert json.loads(json.dumps(own.as_json(), allow_nan=False))["points"] == 3400


def test_without_points_there_is_nothing_to_say() -> None:
    judged = judge(images(1), {"own": lambda _: []})["own"]
    nothing = reliability_of(judged, COCO17, None)
    assert nothing.error is None and nothing.curve is None and nothing.points == 0
    assert nothing.line() == "confidence: no labelled points"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten photographs of two people in COCO's layout."""
    for folder in ("annotations", "val2017"):
        (tmp_path / "coco" / folder).mkdir(parents=True)
    noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    people = []
    shown = []
    for number in range(1, 11):
        cv2.imwrite(str(tmp_path / f"coco/val2017/{number:012d}.jpg"), noise)
        shown.append({"id": number, "file_name": f"{number:012d}.jpg", "width": 160, "height": 120})
        people += [annotation(number, number, 20), annotation(number + 50, number, 90)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.names)}
    content = {"images": shown, "annotations": people, "categories": [category]}
    (tmp_path / "coco/annotations/person_keypoints_val2017.json").write_text(json.dumps(content))
    return tmp_path / "coco"


def test_the_command_on_photographs_and_a_film(
    files: ModelFiles, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_film(tmp_path / "film", FilmOptions(2, 0.4, 10, (128, 72), 1), workers=1)
    out, better = tmp_path / "figures.json", tmp_path / "better.onnx"
    monkeypatch.setattr(
        "sys.argv",
        ["rtmpose", "evaluate-pipeline", str(files.onnx), "--data", str(data), "--every", "2", "--out",
         str(out), "--film", str(tmp_path / "film")],
    )  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        run_command(app)
    assert not ended.value.code, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "film: detector every 2" in said and "switches  IDF1" in said and "no calibration" in said
    figures = json.loads(out.read_text())
    names = [row["name"] for row in figures["rows"]]
    assert names == ["found boxes", "ground-truth boxes", "film: detector every 2"]
    assert figures["rows"][2]["every"] == 2 and figures["confidence"]["points"] == 340
    assert cv2.imread(str(out.with_suffix(".png"))) is not None
    # The points of a network with made-up weights are all wrong: there is nothing to fit.
    monkeypatch.setattr(
        "sys.argv",
        ["rtmpose", "evaluate-pipeline", str(files.onnx), "--data", str(data), "--calibrate", str(better)],
    )
    with pytest.raises(SystemExit) as ended:
        run_command(app)
    assert ended.value.code == 2 and "340 labelled points are too few" in capsys.readouterr().err
    assert not better.exists() and read_card(files.onnx).confidence is None


def test_a_calibrated_copy_says_so(files: ModelFiles, tmp_path: Path) -> None:
    found = reliability_of(judge(images(100), {"own": claiming})["own"], COCO17, None)
    pipeline = PosePipeline.load(files.onnx, threads=1)
    path = write_calibrated(pipeline, found, tmp_path / "deep/better.onnx")
    better = PosePipeline.load(path, threads=1)
    assert better.calibrated and better.curve == found.curve and not pipeline.calibrated
    scores = np.array([0.1, 0.9])
    np.testing.assert_allclose(better.confidence(scores), found.curve(scores) if found.curve else 0)
    with pytest.raises(UserError, match=r"rtmpose\.onnx: is the model itself"):
        write_calibrated(pipeline, found, files.onnx)
    assert [one.name for one in path.parent.iterdir()] == ["better.onnx"]
