"""Threads with bounded queues: order, errors from any of them, an early end, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from rtmpose.files import UserError
from rtmpose.inference.flow import Ahead, Picture, poses_of
from rtmpose.motion.tracker import TrackOptions
from tests.inference.clips import Still, picture


class Shown:
    """Pictures at 25 per second; what is None could not be decoded, an error is raised."""

    def __init__(self, levels: list[int | Exception | None], live: bool = False) -> None:
        self.levels, self.live, self.dropped = levels, live, 0

    def __iter__(self) -> Iterator[Picture]:
        for index, level in enumerate(self.levels):
            if isinstance(level, Exception):
                raise level
            yield Picture(index, index / 25, None if level is None else picture(level))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize(("every", "expected"), [(1, range(11)), (3, (0, 3, 6, 9)), (5, (0, 5, 10))])
def test_frames_come_in_order_and_detection_runs_on_every_kth(every: int, expected: range) -> None:
    poses = Still()
    frames = list(poses_of(poses, Shown([*range(11)]), TrackOptions(every=every)))
    assert [frame.index for frame in frames] == [*range(11)]
    assert [frame.time for frame in frames] == [index / 25 for index in range(11)]
    assert [int(frame.pixels[-1, -1, 0]) for frame in frames] == [*range(11)]
    assert poses.detections == [*expected], "each once, although some were begun early"
    assert {frame.persons[0].identity for frame in frames[2:]} == {frames[2].persons[0].identity}


def test_what_could_not_be_decoded_is_passed_over() -> None:
    poses = Still()
    frames = list(poses_of(poses, Shown([0, 1, None, 3, None, None, 6, 7]), TrackOptions(every=3)))
    assert [frame.index for frame in frames] == [0, 1, 3, 6, 7]
    assert poses.detections == [0, 3, 6]


@pytest.mark.parametrize("place", ["read", "detected", "persons"])
def test_an_error_in_any_thread_is_raised_after_the_frames_before_it(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[int | Exception | None] = [0, 1, 2, 3, 4]
    poses = Still()

    def fail(pixels: np.ndarray, *rest: object) -> object:
        if pixels[-1, -1, 0] == 3:
            raise UserError("three")
        return getattr(Still, place)(poses, pixels, *rest)

    if place == "read":
        levels[3] = UserError("three")
    else:
        monkeypatch.setattr(poses, place, fail)
    seen = []
    with pytest.raises(UserError, match=r"^three$"):
        for frame in poses_of(poses, Shown(levels), TrackOptions(every=1)):
            seen.append(frame.index)
    assert seen == [0, 1, 2]


def test_closing_early_ends_every_thread_also_those_that_wait() -> None:
    frames = poses_of(Still(), Shown([1] * 10_000), TrackOptions())
    assert next(frames).index == 0
    frames.close()


def test_live_pictures_give_way_to_newer_ones_and_files_to_none() -> None:
    went = threading.Event()

    def numbers() -> Iterator[int]:
        yield from range(50)
        went.set()

    live = Ahead(numbers(), 2, newest=True)
    assert went.wait(20), "a live source never waits for anybody"
    assert [*live] == [48, 49] and live.dropped == 48
    waiting = Ahead(iter(range(50)), 2)
    assert [*waiting] == [*range(50)] and waiting.dropped == 0
    shown = Shown([1] * 30, live=True)
    seen = len(list(poses_of(Still(), shown, TrackOptions())))
    assert seen + shown.dropped == 30


def test_the_source_is_closed_in_its_thread() -> None:
    closed: list[str] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    items = Ahead(endless(), 3)
    next(items)
    items.close()
    assert closed == ["ahead"] and threading.current_thread().name != "ahead"
