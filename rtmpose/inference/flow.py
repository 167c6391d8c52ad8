"""Frames through reading, detection and poses, each in a thread of its own, with bounded queues between.

`Ahead` runs an iterator in a thread; a chain of them is a pipeline. What goes wrong in one is raised where
its items are taken, so an error anywhere ends the whole chain, and closing the last one ends all of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rtmpose.geometry import Floats
from rtmpose.motion.person import Person
from rtmpose.motion.tracker import PoseTracker, TrackOptions
from rtmpose.skeleton import Skeleton

Pixels = NDArray[np.uint8]
Item = TypeVar("Item")
WAITING = 3  # items that wait between two threads: enough to even out, few enough for the memory


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame as it was read; `pixels` RGB (H, W, 3) are None where it could not be decoded."""

    index: int
    time: float  # s, from the video's own time stamps
    pixels: Pixels | None


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame with its people; `index` counts from 0 all frames that were read."""

    index: int
    time: float  # s
    persons: list[Person]
    pixels: Pixels  # RGB (H, W, 3)


class Pictures(Protocol):
    """Where pictures come from. `live` ones cannot wait; `dropped` counts those that did not."""

    live: bool
    dropped: int

    def __iter__(self) -> Iterator[Picture]: ...


class Poses(Protocol):
    """What is needed of a pipeline for single pictures."""

    @property
    def skeleton(self) -> Skeleton: ...
    def detected(self, pixels: Pixels) -> Floats: ...
    def persons(self, pixels: Pixels, boxes: Floats) -> list[Person]: ...


def poses_of(poses: Poses, pictures: Pictures, options: TrackOptions) -> Generator[Frame]:
    """Frames with their people, in order. Of live pictures old ones give way to new ones, and none is looked
    at before its turn.
    """
    waiting = 1 if pictures.live else WAITING
    tracker = PoseTracker(poses.skeleton, options)
    read = Ahead(iter(pictures), waiting, newest=pictures.live)
    tracked = _tracked(poses, read, tracker, options.every, early=not pictures.live)
    try:
        with closing(Ahead(tracked, waiting)) as frames:
            yield from frames
    finally:
        pictures.dropped += read.dropped


def _tracked(
    poses: Poses, pictures: Ahead[Picture], tracker: PoseTracker, every: int, *, early: bool
) -> Iterator[Frame]:
    """Each picture's people. With `early` the detector works on the next picture, where its turn is certain,
    while the poses of this one are computed.
    """
    since = every  # frames since the detector ran
    with closing(pictures), closing(_Early(poses.detected)) as detections:
        for picture, following in _with_next(pictures, early):
            if picture.pixels is None:
                tracker.skipped(picture.time)
                since += 1
                continue
            height, width = picture.pixels.shape[:2]
            boxes = tracker.boxes(picture.time, (width, height))
            detected = boxes is None
            since = 0 if detected else since + 1
            found = detections.of(picture) if boxes is None else boxes
            if following is not None and since + 1 >= every:
                detections.begin(following)
            people = poses.persons(picture.pixels, found)
            people = tracker.update(people, picture.time, (width, height), detected)
            yield Frame(picture.index, picture.time, people, picture.pixels)


def _with_next(pictures: Iterable[Picture], early: bool) -> Iterator[tuple[Picture, Picture | None]]:
    """Each picture with the next one; with None where there is none, or without `early`."""
    source = iter(pictures)
    if not early:
        yield from ((picture, None) for picture in source)
        return
    last = next(source, None)
    failed: Exception | None = None
    while last is not None:
        try:
            following = next(source, None)
        except Exception as error:  # raised after the last picture has had its turn
            following, failed = None, error
        yield last, following
        last = following
    if failed is not None:
        raise failed


class _Early:
    """Detections that were begun before they are asked for, one at a time."""

    def __init__(self, detect: Callable[[Pixels], Floats]) -> None:
        self.detect = detect
        self.pool = ThreadPoolExecutor(1, "detection")
        self.begun: tuple[int, Future[Floats]] | None = None

    def begin(self, picture: Picture) -> None:
        if picture.pixels is not None:
            self.begun = picture.index, self.pool.submit(self.detect, picture.pixels)

    def of(self, picture: Picture) -> Floats:
        """The boxes in a picture, whether they were begun or not."""
        assert picture.pixels is not None
        begun, self.begun = self.begun, None
        if begun is not None and begun[0] == picture.index:
            return begun[1].result()
        return self.detect(picture.pixels)

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


class Ahead(Generic[Item]):
    """The items of an iterator, made in a thread before they are asked for.

    At most `size` of them wait. With `newest` the iterator never does: where `size` items wait the oldest of
    them is dropped. What the iterator raises is raised here after the items before it. `close`, or the end of
    the items, ends the thread; the iterator's own `close` is called in it.
    """

    def __init__(self, source: Iterator[Item], size: int = WAITING, *, newest: bool = False) -> None:
        self.source, self.size, self.newest = source, size, newest
        self.dropped = 0
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            while not self._items and not self._ended:
                self._changed.wait()
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
        self.close()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the thread, and wait for it; items that wait are dropped."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._fill()
        except BaseException as error:  # raised again where the items are taken
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _fill(self) -> None:
        close: Callable[[], Any] = getattr(self.source, "close", lambda: None)
        try:
            for item in self.source:
                if not self._put(item):
                    return
        finally:
            close()

    def _put(self, item: Item) -> bool:
        """Whether anybody still wants items."""
        with self._changed:
            while len(self._items) >= self.size and not self._stopped:
                if self.newest:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if not self._stopped:
                self._items.append(item)
                self._changed.notify_all()
            return not self._stopped
