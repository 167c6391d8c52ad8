"""Runs over pictures and videos: what they write, leave out and say, also when they are ended early."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.ending import Signalled
from rtmpose.files import UserError
from rtmpose.inference.inputs import Input, inputs_of, is_animated
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.inference.run import Asked, Done, encoded, run
from rtmpose.inference.video import Video
from tests.inference.clips import SINCE, TIMES, Still, clip, picture


@pytest.fixture(scope="module")
def pipeline(files: ModelFiles) -> PosePipeline:
    """A real pipeline, but for the people that it sees."""
    made = PosePipeline.load(files.onnx, Still().detected, threads=1)
    made.persons = Still().persons  # type: ignore[method-assign]
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plain(items: Iterable[Any], total: int | None, unit: str) -> Iterable[Any]:
    return items


def ran(pipeline: PosePipeline, given: list[str], asked: Asked, bar: Any = plain) -> tuple[Done, list[str]]:
    said: list[str] = []
    return run(pipeline, inputs_of(given), asked, said.append, bar), said


def photos(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), picture(90))


def test_a_folder_of_pictures_and_a_video(pipeline: PosePipeline, here: Path) -> None:
    photos(here / "in", "b.png", "a.jpg")
    clip(here / "c.mp4")
    done, said = ran(pipeline, ["in", "c.mp4"], Asked("json", Path("out.json"), Path("drawn")))
    assert (done.pictures, done.people, done.points) == (10, 10, 170) and said == []
    whole = json.loads(Path("out.json").read_text())["pictures"]
    assert [one["file"] for one in whole[:3]] == ["in/a.jpg", "in/b.png", "c.mp4"]
    assert [one["time"] for one in whole[2:]] == pytest.approx(SINCE, abs=1e-3)
    assert {one["people"][0]["identity"] for one in whole[:2]} == {None}
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["a.png", "b.png", "c.mp4"]
    with Video("drawn/c.mp4") as drawn:
        frames = list(drawn)
    assert [one.time for one in frames] == pytest.approx(SINCE, abs=1e-3)
    assert frames[0].pixels is not None and np.ptp(frames[0].pixels[20:, 30:]) < np.ptp(frames[0].pixels)


def test_only_sure_points_are_drawn_and_counted(pipeline: PosePipeline, here: Path) -> None:
    photos(here, "a.png")
    for sure, points in ((0.95, 0), (0.5, 17)):
        done, _ = ran(pipeline, ["a.png"], Asked("coco", Path("a.json"), Path("drawn.png"), sure))
        drawn = cv2.imread("drawn.png")
        assert done.points == points and drawn is not None
        assert (drawn != picture(90)).any() == bool(points)


def test_one_bad_picture_of_many_is_told_and_left_out(pipeline: PosePipeline, here: Path) -> None:
    photos(here / "in", "1.png", "3.png")
    (here / "in/2.jpg").write_bytes(b"")
    done, said = ran(pipeline, ["in/*.[pj]*"], Asked("coco", Path("a.json")))
    assert len(done.refused) == 1 and said == [f"left out: {done.refused[0]}"] and "in/2.jpg" in said[0]
    assert [row["image_id"] for row in json.loads(Path("a.json").read_text())] == [1, 3], "numbers are ids"
    Path("a.json").unlink()
    for given in (["in/2.jpg"], ["in/2.jpg", "in/2.jpg"]):
        with pytest.raises(UserError, match=r"^[^\n]*in/2\.jpg[^\n]*$"):
            ran(pipeline, given, Asked("coco", Path("a.json")))
    assert not Path("a.json").exists()


@pytest.mark.parametrize("ended", [KeyboardInterrupt(), Signalled(15)])
def test_an_early_end_leaves_a_playable_video_and_whole_results(
    pipeline: PosePipeline, here: Path, ended: BaseException
) -> None:
    clip(here / "a.mp4")

    def bar(items: Iterable[Any], total: int | None, unit: str) -> Iterable[Any]:
        assert total == len(TIMES)
        for number, item in enumerate(items):
            yield item
            if number == 4:
                raise ended

    with pytest.raises(type(ended)):
        ran(pipeline, ["a.mp4"], Asked("coco", Path("a.json"), Path("drawn.mp4")), bar)
    assert [row["frame"] for row in json.loads(Path("a.json").read_text())] == [*range(5)]
    with Video("drawn.mp4") as video:
        assert len(list(video)) == 5
    assert sorted(path.name for path in here.iterdir()) == ["a.json", "a.mp4", "drawn.mp4"]


def test_an_error_leaves_nothing(pipeline: PosePipeline, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(here / "a.mp4")

    def fail(pixels: np.ndarray, boxes: np.ndarray) -> list[Any]:
        raise UserError("the model gives nonsense")

    monkeypatch.setattr(pipeline, "persons", fail)
    with pytest.raises(UserError, match=r"^the model gives nonsense$"):
        ran(pipeline, ["a.mp4"], Asked("coco", Path("a.json"), Path("drawn.mp4")))
    assert [path.name for path in here.iterdir()] == ["a.mp4"]


def test_what_inputs_are(here: Path) -> None:
    photos(here / "in", "b.png", "a.jpg")
    clip(here / "c.mp4", TIMES[:1])
    (here / "d.jpg").write_bytes(b"\0\0\0\x18ftypheic")
    (here / "e").write_bytes((here / "in/a.jpg").read_bytes())
    kinds = [
        (one.kind[0], one.name) for one in inputs_of(["in", "c.mp4", "d.jpg", "e", "rtsp://host/x", "0"])
    ]
    assert kinds == [
        ("p", "in/a.jpg"), ("p", "in/b.png"), ("v", "c.mp4"), ("p", "d.jpg"), ("p", "e"),
        ("v", "rtsp://host/x"), ("v", "camera:0"),
    ]  # fmt: skip
    assert inputs_of(["in/a.jpg"], video=True) == [Input("video", "in/a.jpg")]
    (here / "none").mkdir()
    for given, reason in (
        ("none", "without pictures"),
        ("*.x", "matches no file"),
        ("y.png", "no such file"),
    ):
        with pytest.raises(UserError, match=reason):
            inputs_of([given])


def test_an_animation_counts_by_its_first_picture_and_that_is_said(
    pipeline: PosePipeline, here: Path
) -> None:
    import av

    with av.open("a.gif", "w") as file:
        stream = file.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for level in (40, 200):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(level), format="rgb24")))
        file.mux(stream.encode(None))
    assert is_animated(Path("a.gif").read_bytes())
    done, said = ran(pipeline, ["a.gif"], Asked("coco", Path("a.json")))
    assert done.pictures == 1 and len(said) == 1 and "the first one counts" in said[0]
    tracked = run(
        pipeline, inputs_of(["a.gif"], video=True), Asked("coco", Path("a.json")), said.append, plain
    )
    assert tracked.pictures == 2


def test_mistakes_are_told_before_anything_is_done(pipeline: PosePipeline, here: Path) -> None:
    photos(here / "in", "b.png", "a.jpg")
    clip(here / "c.mp4", TIMES[:1])
    asked = Asked("coco", Path("a.json"))
    with pytest.raises(UserError, match="boxes are for pictures"):
        ran(pipeline, ["c.mp4"], replace(asked, boxes=[(0, 0, 9, 9)]))
    with pytest.raises(UserError, match=r"--draw x\.png: there are 2 inputs; name a folder"):
        ran(pipeline, ["in"], replace(asked, draw=Path("x.png")))
    with pytest.raises(UserError, match=r"--draw x\.mp4: in/a\.jpg is a picture; end the name in \.png"):
        ran(pipeline, ["in/a.jpg"], replace(asked, draw=Path("x.mp4")))
    with pytest.raises(UserError, match=r"--draw x\.png: c\.mp4 is a video; end the name in \.mp4"):
        ran(pipeline, ["c.mp4"], replace(asked, draw=Path("x.png")))


@pytest.mark.parametrize(
    ("given", "out", "draw"),
    [
        ("in", "a.json", "in"),
        ("c.mp4", "a.json", "c.mp4"),
        ("in/b.png", "in/b.png", None),
        ("in", "in/../in/b.png", None),
    ],
)
def test_nothing_is_written_over_an_input(
    pipeline: PosePipeline, here: Path, given: str, out: str, draw: str | None
) -> None:
    photos(here / "in", "b.png")
    clip(here / "c.mp4", TIMES[:1])
    before = {path: path.read_bytes() for path in here.rglob("*.*")}
    with pytest.raises(UserError, match="would be written over the input"):
        ran(pipeline, [given], Asked("coco", Path(out), None if draw is None else Path(draw)))
    assert {path: path.read_bytes() for path in here.rglob("*.*")} == before


def test_a_folder_with_a_dot_is_a_folder(pipeline: PosePipeline, here: Path) -> None:
    photos(here / "in", "b.png", "a.jpg")
    (here / "run.v2").mkdir()
    ran(pipeline, ["in"], Asked("coco", Path("a.json"), Path("run.v2")))
    assert sorted(path.name for path in Path("run.v2").iterdir()) == ["a.png", "b.png"]


def test_pictures_that_do_not_fit_the_kind_of_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"a\.jpg: 66000x8 px do not fit into such a file; end its name in \.png"
    ):
        encoded(np.zeros((8, 66000, 3), np.uint8), tmp_path / "a.jpg")


def test_every_picture_and_frame_has_an_id_of_its_own(pipeline: PosePipeline, here: Path) -> None:
    photos(here, "7.png")
    clip(here / "c.mp4", TIMES[:3])
    clip(here / "d.mp4", TIMES[:2])
    ran(pipeline, ["7.png", "c.mp4", "d.mp4"], Asked("coco", Path("a.json")))
    ids = [row["image_id"] for row in json.loads(Path("a.json").read_text())]
    assert len({*ids}) == 6 and ids == sorted(ids)


def test_a_line_says_which_picture_it_is_of(pipeline: PosePipeline, here: Path) -> None:
    photos(here / "in", "b.png", "a.jpg")
    ran(pipeline, ["in"], Asked("lines", Path("a.jsonl")))
    lines = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["in/a.jpg", "in/b.png"]


def test_a_full_disk_ends_a_run_and_leaves_nothing(
    pipeline: PosePipeline, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(here / "in", "b.png", "a.jpg")

    def full(self: object, seen: object) -> None:
        raise UserError("a.json: cannot be written: No space left on device; free space there")

    monkeypatch.setattr("rtmpose.inference.outputs.CocoResults.add", full)
    with pytest.raises(UserError, match=r"^a\.json: cannot be written"):
        ran(pipeline, ["in"], Asked("coco", Path("a.json")))
    assert sorted(path.name for path in here.iterdir()) == ["in"]
