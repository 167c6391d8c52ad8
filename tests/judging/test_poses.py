"""A whole pipeline judged: AP and intervals, images of one person, skeletons, films, and the commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtmpose.cli.app import app
from rtmpose.data.shards.manifest import EvalImage
from rtmpose.descriptors import load_skeleton
from rtmpose.ending import run_command
from rtmpose.files import UserError
from rtmpose.judging.poses import Row, in_skeleton, judge, pairs_to, single_person, table, truth_boxes
from rtmpose.judging.run import looked
from rtmpose.motion.person import Person

COCO17 = load_skeleton("coco17")
PIXELS = np.zeros((120, 160, 3), np.uint8)


def annotation(number: int, image: int, x: float, **changes: Any) -> dict[str, Any]:
    """A person of 40x80 px whose points lie in two columns."""
    points = [[x + 10 + 20 * (k % 2), 20 + 4.5 * k, 2] for k in range(17)]
    flat = [value for point in points for value in point]
    fixed = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 2500.0}
    return {**fixed, "bbox": [x, 15.0, 40.0, 80.0], "keypoints": flat, "num_keypoints": 17, **changes}


def images() -> list[EvalImage]:
    """Four images: of one person, of two, of one and a crowd, of one without labelled points."""
    crowd = annotation(5, 3, 80, iscrowd=1)
    blank = annotation(6, 4, 20, keypoints=[0] * 51, num_keypoints=0)
    people = {
        1: [annotation(1, 1, 20)],
        2: [annotation(2, 2, 20), annotation(3, 2, 90)],
        3: [annotation(4, 3, 20), crowd],
        4: [blank],
    }
    return [EvalImage(number, PIXELS, 160, 120, found, f"{number}.jpg") for number, found in people.items()]


def truthful(image: EvalImage) -> list[Person]:
    """Everybody just as annotated."""
    found = []
    for box, each in zip(truth_boxes(image), image.annotations, strict=False):
        points = np.array(each["keypoints"], float).reshape(-1, 3)[:, :2]
        found.append(Person(box[:4], points, np.ones(17), np.ones(17), 0.9))
    return found


def test_what_is_found_makes_the_figures() -> None:
    judged = judge(images(), {"all": truthful, "first": lambda image: truthful(image)[:1]})
    every = Row.of(judged["all"], COCO17, draws=50)
    some = Row.of(judged["first"], COCO17, draws=50)
    assert (every.images, every.persons) == (4, 4)
    assert every.ap.value == every.ar == pytest.approx(1.0)
    assert every.ap.low == pytest.approx(1.0)
    assert some.ar == pytest.approx(0.75) and some.ap.low < some.ap.value < 0.8
    lines = table([every, some]).splitlines()
    assert len(lines) == 3 and "100.0" in lines[1] and lines[2].startswith("first")


def test_images_of_one_person() -> None:
    judged = judge(images(), {"all": truthful})["all"]
    assert single_person(judged.truth) == [1]  # a crowd, or somebody without points, is a further person
    alone = judged.of_images([1], "one")
    assert len(alone.poses) == 1 and Row.of(alone, COCO17, draws=10).persons == 1
    with pytest.raises(UserError, match="nobody"):
        Row.of(judged.of_images([4], "blank"), COCO17)


def test_points_of_another_skeleton() -> None:
    whole = load_skeleton("coco_wholebody")
    pairs = pairs_to(whole, COCO17, "model.onnx")
    keypoints = np.arange(266, dtype=float).reshape(133, 2)
    person = Person(np.zeros(4), keypoints, np.arange(133.0), np.ones(133))
    [found] = in_skeleton([person], pairs)
    np.testing.assert_array_equal(found.keypoints, keypoints[:17])
    np.testing.assert_array_equal(found.scores, np.arange(17.0))
    with pytest.raises(UserError, match=r"model.onnx: has no nose"):
        pairs_to(load_skeleton("aic"), COCO17, "model.onnx")


def test_following_models_look_at_each_photograph_anew() -> None:
    class Model:
        calls: Sequence[str] = ()

        def forget(self) -> None:
            self.calls = [*self.calls, "forget"]

        def __call__(self, image: np.ndarray) -> list[Person]:
            self.calls = [*self.calls, "look"]
            return []

    model = Model()
    find = looked(model)
    find(images()[0])
    find(images()[1])
    assert model.calls == ["forget", "look", "look"] * 2


def test_the_commands_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["evaluate-pipeline", "model.onnx"], "give --data"),
        (["evaluate-pipeline", "model.onnx", "--film", "x", "--every", "0"], "--every"),
        (["evaluate-pipeline", "model.onnx", "--film", "x", "--calibrate", "y.onnx"], "give --data"),
        (["film", str(tmp_path / "odd"), "--size", "65x64"], "even"),
    ):
        monkeypatch.setattr("sys.argv", ["rtmpose", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(app)
        assert ended.value.code == 2, arguments
        assert words in capsys.readouterr().err
    assert not (tmp_path / "odd").exists()
