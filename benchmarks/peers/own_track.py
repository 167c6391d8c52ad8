"""Our pipeline on a video, timed in a process of its own as the peer's is: started by `pipeline.py`.

    python own_track.py

It computes with as many threads as it may use cores. Answers lines of JSON {"what", …}: `time` gives the
`seconds` for at most so many `frames` of a video file, from the file to the drawn picture, with the number of
frames and of `people` in all of them; `points` who is where in each; `memory` this process's resident bytes
after shares of a long video, which is the same file again and again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import cv2
import psutil
from own_step import answer  # type: ignore[import-not-found]

from rtmpose.inference.flow import Picture
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.inference.run import draw_people
from rtmpose.inference.video import Video
from rtmpose.motion.tracker import TrackOptions

CORES = len(os.sched_getaffinity(0))
MARKS = 10  # looks at the memory


def options_of(every: int) -> TrackOptions:
    """Nobody is given up because the model is unsure of the points: the peer never does, and who is given up
    costs no time.
    """
    return TrackOptions(every=every, present=0.0, visible=0.0, confident=0.0)


class Again:
    """A video file from its beginning, again and again, with times that go on."""

    live = False
    dropped = 0

    def __init__(self, video: str) -> None:
        self.video = video

    def __iter__(self) -> Iterator[Picture]:
        index, start = 0, 0.0
        while True:
            with Video(self.video) as file:
                last = start
                for one in file:
                    last = start + one.time
                    yield Picture(index, last, one.pixels)
                    index += 1
                start = last + 1 / file.rate


class Side:
    """Each pipeline once it has been asked for."""

    def __init__(self) -> None:
        self.opened: dict[tuple[str, str], PosePipeline] = {}

    def _open(self, pose: str, detector: str) -> PosePipeline:
        if (pose, detector) not in self.opened:
            self.opened[pose, detector] = PosePipeline.load(pose, detector, threads=CORES)
        return self.opened[pose, detector]

    def time(
        self, video: str, pose: str, detector: str, size: list[int], every: int, frames: int, draw: bool
    ) -> dict[str, Any]:
        pipeline = self._open(pose, detector)
        count = people = 0
        start = time.perf_counter()
        for frame in islice(pipeline.video(video, options=options_of(every)), frames):
            if draw:
                draw_people(frame.pixels, frame.persons, pipeline, 0.5)
            count, people = count + 1, people + len(frame.persons)
        return {"seconds": time.perf_counter() - start, "frames": count, "people": people}

    def points(
        self, video: str, pose: str, detector: str, size: list[int], every: int, frames: int
    ) -> dict[str, Any]:
        found = islice(self._open(pose, detector).video(video, options=options_of(every)), frames)
        return {"seen": [[[p.identity, p.keypoints.tolist()] for p in frame.persons] for frame in found]}

    def memory(self, video: str, pose: str, detector: str, every: int, frames: int) -> dict[str, Any]:
        process, seen = psutil.Process(), []
        poses = self._open(pose, detector).frames(Again(video), options_of(every))
        for number, _ in enumerate(islice(poses, frames), 1):
            if number % max(1, frames // MARKS) == 0:
                seen.append([number, process.memory_info().rss])
        poses.close()
        return {"rss": seen}


def main() -> None:
    cv2.setNumThreads(CORES)
    answer(Side(), ("time", "points", "memory"))


if __name__ == "__main__":
    main()
