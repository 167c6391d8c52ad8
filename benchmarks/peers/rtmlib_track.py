"""rtmlib's PoseTracker on a video, timed: runs in `.peers/rtmlib`, started by `pipeline.py`.

    python rtmlib_track.py

Everything is rtmlib's default, one person a forward pass, but for the number of threads: as many as the
process may use cores (see `rtmlib_pose.py`). Frames come from OpenCV, as in rtmlib's own example. The
questions and answers are described in `own_track.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from rtmlib_pose import limit_onnxruntime  # type: ignore[import-not-found]


class Side:
    """The last model that was asked for."""

    def __init__(self) -> None:
        self.opened: tuple[Any, ...] = ()
        self.solution: Any = None

    def tracker(self, pose: str, detector: str, size: list[int], every: int) -> Any:
        """A tracker that knows nobody yet; its models are opened once."""
        from rtmlib import Custom, PoseTracker  # type: ignore[import-not-found]

        if self.opened != (pose, detector):
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it loads
                opened = partial(
                    Custom, det_class="RTMDet", det=detector, det_input_size=(320, 320),
                    pose_class="RTMPose", pose=pose, pose_input_size=tuple(size),
                )  # fmt: skip
                self.solution = opened(to_openpose=False, backend="onnxruntime", device="cpu")
            self.opened = (pose, detector)
        with contextlib.redirect_stdout(io.StringIO()):
            return PoseTracker(lambda **_: self.solution, det_frequency=every)

    def time(
        self, video: str, pose: str, detector: str, size: list[int], every: int, frames: int, draw: bool
    ) -> dict[str, Any]:
        """Seconds for so many frames of a video, from the file to the drawn picture."""
        from rtmlib import draw_skeleton

        tracker = self.tracker(pose, detector, size, every)
        count = people = 0
        start = time.perf_counter()
        for image in pictures(video, frames):
            points, scores = tracker(image)
            if draw:
                draw_skeleton(image, points, scores, kpt_thr=0.5)
            count, people = count + 1, people + len(points)
        return {"seconds": time.perf_counter() - start, "frames": count, "people": people}

    def points(
        self, video: str, pose: str, detector: str, size: list[int], every: int, frames: int
    ) -> dict[str, Any]:
        """Who is where in each frame: [[identity, [[x, y], …]], …]. The model gets RGB, as ours does."""
        tracker = self.tracker(pose, detector, size, every)
        model = tracker.pose_model
        tracker.pose_model = lambda image, bboxes: model(image[..., ::-1], bboxes=bboxes)
        seen = []
        for image in pictures(video, frames):
            points, _ = tracker(image)
            found = zip(tracker.track_ids_last_frame, points, strict=True)
            seen.append([[int(who), one.tolist()] for who, one in found])
        return {"seen": seen}


def pictures(video: str, most: int) -> Iterator[Any]:
    import cv2

    file = cv2.VideoCapture(video)
    for _ in range(most):
        fine, image = file.read()
        if not fine:
            return
        yield image


def main() -> None:
    import cv2

    threads = len(os.sched_getaffinity(0))
    cv2.setNumThreads(threads)
    limit_onnxruntime(threads)
    side = Side()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        answer = getattr(side, question.pop("what"))(**question)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
