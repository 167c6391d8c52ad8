"""Films with known truth: identities, trembling and lag of people who are known, or off by a known way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtmpose.data.mannequins.film import FilmOptions
from rtmpose.data.mannequins.film_files import write_film
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError
from rtmpose.judging.film import film_table, judge_film
from rtmpose.judging.identities import Moment, identities
from rtmpose.motion.options import TrackOptions
from rtmpose.motion.person import Person

COCO17 = load_skeleton("coco17")
FPS = 30
Change = Callable[[int, Person], Person | None]


def moment(*people: tuple[int, float]) -> Moment:
    """People of 10x10 px by identity and left edge."""
    boxes = np.array([[x, 0, x + 10, 10] for _, x in people], np.float64).reshape(-1, 4)
    return Moment(np.array([identity for identity, _ in people], np.int64), boxes)


def test_switches_are_counted_when_somebody_is_called_otherwise() -> None:
    truth = [moment((1, 0), (2, 50))] * 4
    same = identities(truth, [moment((7, 0), (9, 50))] * 4)
    assert (same.switches, same.idf1) == (0, 1.0) and same.pairs[0] == [(0, 0), (1, 1)]
    swapped = identities(truth, [moment((7, 0), (9, 50))] * 2 + [moment((9, 0), (7, 50))] * 2)
    assert swapped.switches == 2 and swapped.idf1 == pytest.approx(0.5)
    # Whoever was away and has the old name again was never switched; a new name is one switch.
    away = [moment((7, 0)), moment((7, 0), (9, 50)), moment((7, 0)), moment((7, 0), (9, 50))]
    assert identities(truth, away).switches == 0
    renamed = [*away[:3], moment((7, 0), (11, 50))]
    assert identities(truth, renamed).switches == 1
    assert identities(truth, renamed).idf1 == pytest.approx(2 * 5 / (8 + 6))
    nobody = identities(truth, [moment()] * 4)
    assert (nobody.switches, nobody.idf1, nobody.pairs) == (0, 0.0, [[]] * 4)
    assert math.isnan(identities([moment()], [moment()]).idf1)


def test_who_was_matched_stays_matched_where_two_boxes_fit() -> None:
    truth = [moment((1, 0))] * 2
    found = [moment((7, 2)), moment((7, 2), (9, 0))]  # the second one fits better, and is no switch
    assert identities(truth, found).switches == 0


@dataclass
class Filmed:
    """A pipeline that knows a film's truth, and changes it."""

    truth: dict[str, Any]
    change: Change = lambda _, person: person
    asked: tuple[TrackOptions, ...] = ()
    skeleton = COCO17
    network = SimpleNamespace(path=Path("model.onnx"))

    def video(self, _source: Path, *, options: TrackOptions) -> Iterator[Any]:
        self.asked += (options,)
        for image in self.truth["images"]:
            index = image["frame_index"]
            mine = [each for each in self.truth["annotations"] if each["image_id"] == image["id"]]
            people = [self.change(index, person_of(each)) for each in mine]
            yield SimpleNamespace(index=index, persons=[one for one in people if one is not None])


def person_of(annotation: dict[str, Any]) -> Person:
    x, y, w, h = annotation["bbox"]
    points = np.array(annotation["keypoints"], float).reshape(-1, 3)[:, :2]
    return Person(
        np.array([x, y, x + w, y + h]), points, np.ones(17), np.ones(17), 0.9, annotation["track_id"]
    )


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "film"
    write_film(folder, FilmOptions(2, 1.2, FPS, (128, 72), 1), workers=1)
    return folder


@pytest.fixture
def truth(film: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((film / "film.json").read_text())
    return content


def judged(film: Path, truth: dict[str, Any], change: Change = lambda _, person: person) -> Any:
    pipeline: Any = Filmed(truth, change)
    return judge_film(pipeline, film, [1])[0]


def test_the_truth_itself_is_perfect(film: Path, truth: dict[str, Any]) -> None:
    pipeline: Any = Filmed(truth)
    counted: list[int] = []
    rows = judge_film(pipeline, film, [1, 5], options=TrackOptions(smooth=False), progress=counted.append)
    assert [one.every for one in pipeline.asked] == [1, 5] and not pipeline.asked[0].smooth
    assert counted == [*range(1, 37)] * 2
    for one in rows:
        assert one.row.images == 36 and one.row.ap.value == pytest.approx(1.0)
        assert (one.switches, one.idf1) == (0, 1.0)
        assert one.jitter == pytest.approx(0.0, abs=1e-6) and one.lag_ms == pytest.approx(0.0, abs=1e-6)
    assert json.loads(json.dumps(rows[0].as_json()))["idf1"] == 1.0
    assert [line.split()[4] for line in film_table(rows).splitlines()[1:]] == ["0", "0"]


def test_trembling_is_measured_in_sizes(film: Path, truth: dict[str, Any]) -> None:
    def shake(index: int, person: Person) -> Person:
        size = np.sqrt(np.prod(person.box[2:] - person.box[:2]))
        return replace(person, keypoints=person.keypoints + np.array([0.01 * size * (-1) ** index, 0]))

    # Back and forth by 0.02 sizes a frame: the speed changes by 0.04 · 30 a frame, 0.04 · 30² a second.
    assert judged(film, truth, shake).jitter == pytest.approx(0.04 * FPS**2, rel=0.1)


def test_lag_is_measured_in_milliseconds(film: Path, truth: dict[str, Any]) -> None:
    history: dict[int, list[np.ndarray]] = {}

    def late(index: int, person: Person) -> Person:
        assert person.identity is not None
        path = history.setdefault(person.identity, [])
        path.append(person.keypoints)
        return replace(person, keypoints=path[max(0, len(path) - 3)])

    assert judged(film, truth, late).lag_ms == pytest.approx(2000 / FPS, abs=8)


def test_people_who_are_missed_or_taken_for_others(film: Path, truth: dict[str, Any]) -> None:
    def swap(index: int, person: Person) -> Person:
        assert person.identity is not None
        return replace(person, identity=3 - person.identity if index >= 18 else person.identity)

    swapped = judged(film, truth, swap)
    assert swapped.switches == 2 and swapped.idf1 < 0.7 and swapped.row.ap.value == pytest.approx(1.0)
    nobody = judged(film, truth, lambda *_: None)
    assert nobody.row.ap.value == 0 and nobody.idf1 == 0 and math.isnan(nobody.jitter)
    assert nobody.as_json()["jitter"] is None


def test_a_folder_without_a_film_is_one_line(film: Path, truth: dict[str, Any]) -> None:
    pipeline: Any = Filmed(truth)
    with pytest.raises(UserError, match=r"film\.mp4: no such file; write a film with `rtmpose film"):
        judge_film(pipeline, film.parent, [1])
