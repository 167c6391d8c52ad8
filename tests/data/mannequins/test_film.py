"""Films of mannequins: reproducible, one plan at every rate and size, and files that others read."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import av
import numpy as np
import pytest

from rtmpose.data.mannequins.film import Film, FilmOptions
from rtmpose.data.mannequins.film_files import write_film
from rtmpose.data.mannequins.walk import APART, Ground, plan_ways
from rtmpose.files import UserError

SMALL = FilmOptions(people=5, seconds=4, fps=15, size=(192, 108), seed=3)


@pytest.fixture(scope="module")
def film() -> Film:
    return Film(SMALL)


def test_a_frame_depends_on_its_options_alone(film: Film) -> None:
    first, again = film.frame(30), Film(SMALL).frame(30)
    np.testing.assert_array_equal(first.image, again.image)
    assert [each.identity for each in first.persons] == [each.identity for each in again.persons]
    other = Film(FilmOptions(people=5, seconds=4, fps=15, size=(192, 108), seed=4)).frame(30)
    assert not np.array_equal(first.image, other.image)


def test_truth_is_that_of_the_drawn_frame(film: Film) -> None:
    for drawn, told in zip(film.frame(20).persons, film.truth(20), strict=True):
        assert drawn.identity == told.identity
        np.testing.assert_array_equal(drawn.person.points, told.person.points)
        np.testing.assert_array_equal(drawn.person.visible, told.person.visible)


def test_another_rate_shows_the_same_people_at_the_same_times(film: Film) -> None:
    fast = Film(FilmOptions(people=5, seconds=4, fps=60, size=(192, 108), seed=3))
    for slow, quick in zip(film.truth(10), fast.truth(40), strict=True):
        np.testing.assert_allclose(slow.xyxy, quick.xyxy)


def test_another_size_shows_the_same_people(film: Film) -> None:
    large = {each.identity: each for each in Film(FilmOptions(5, 4, 15, (384, 216), 3)).truth(10)}
    for each in film.truth(10):
        np.testing.assert_allclose(large[each.identity].xyxy / 2, each.xyxy, atol=0.6)


def test_people_walk_cross_leave_come_back_and_stand_exactly_still() -> None:
    film = Film(FilmOptions(people=8, seconds=9, fps=4, size=(128, 72), seed=0))
    times = [film.time(index) for index in range(len(film))]
    seen = [{each.identity: each.seen for each in film.truth(index)} for index in range(len(film))]
    for identity, member in enumerate(film.cast, start=1):
        steps = np.abs(np.diff([member.way.at(time).place for time in times], axis=0)).max(1)
        assert (steps == 0).any() and (steps > 0.05).any(), identity
    assert any(0 < min(shares.values()) < 0.5 for shares in seen)
    there = {n: [n in shares for shares in seen] for n in range(1, 9)}
    returns = [n for n, row in there.items() if "101" in "".join(str(int(x)) for x, _ in groupby(row))]
    assert returns


def test_people_keep_apart_where_there_is_room() -> None:
    ways = plan_ways(np.random.default_rng(0), 4, 6.0, Ground(-3.0, -9.0, 0.65))
    near = [
        np.linalg.norm(a.place - b.place, axis=1).min() for i, a in enumerate(ways) for b in ways[i + 1 :]
    ]
    assert min(near) > APART * 0.8  # easing rounds the corners


def test_a_film_is_written_as_video_coco_and_mot(tmp_path: Path) -> None:
    options = FilmOptions(people=3, seconds=1, fps=12.5, size=(128, 72), seed=1)
    told = write_film(tmp_path / "film", options, workers=1)
    with av.open(str(tmp_path / "film/film.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == 12.5
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    drawn = Film(options).frame(5)
    assert len(pictures) == told["frames"] == 12
    assert np.abs(pictures[5].astype(float) - drawn.image).mean() < 8  # what H.264 leaves of the noise
    coco = json.loads((tmp_path / "film/film.json").read_text())
    rows = [line.split(",") for line in (tmp_path / "film/gt/gt.txt").read_text().splitlines()]
    sixth = [each for each in coco["annotations"] if each["image_id"] == 6]
    assert [each["track_id"] for each in sixth] == [each.identity for each in drawn.persons]
    assert [int(row[1]) for row in rows if row[0] == "6"] == [each["track_id"] for each in sixth]
    assert len(rows) == told["persons"] == len(coco["annotations"])
    assert "seqLength=12" in (tmp_path / "film/seqinfo.ini").read_text()
    with pytest.raises(UserError, match="not empty"):
        write_film(tmp_path / "film", options, workers=1)


@pytest.mark.parametrize("wrong", [{"people": 0}, {"fps": 0}, {"size": (63, 64)}, {"level": "odd"}])
def test_impossible_films_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="film"):
        FilmOptions(**wrong)  # type: ignore[arg-type]
