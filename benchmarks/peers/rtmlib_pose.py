"""rtmlib's own class on photographs and boxes, timed: runs in `.peers/rtmlib`, started by `inference.py`.

    python rtmlib_pose.py FOLDER

Everything is rtmlib's default, ONNX Runtime and one person a forward pass, but for the number of threads: as
many as the process may use cores. ONNX Runtime's default is one for each core of the machine, and it moves
them there even where the process may use fewer. FOLDER, the questions and the answers are described in
`own_pose.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class Side:
    """The inputs of a folder, and each size's model once it has been asked for."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        with np.load(folder / "inputs.npz") as file:
            self.images = [file[f"image{i}"] for i in range(int(file["count"]))]
            self.boxes = file["boxes"]  # (images, persons, 4) xywh px
        self.models: dict[str, Any] = {}

    def model(self, size: str, onnx: str) -> Any:
        from rtmlib import RTMPose  # type: ignore[import-not-found]

        if size not in self.models:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it loads
                self.models[size] = RTMPose(onnx, (192, 256), backend="onnxruntime", device="cpu")
        return self.models[size]

    def points(self, size: str, onnx: str, persons: int, number: int) -> Any:
        """Keypoints (persons, K, 2) px of one photograph."""
        boxes = self.boxes[number][:persons].copy()
        boxes[:, 2:] += boxes[:, :2]
        return self.model(size, onnx)(self.images[number], boxes.tolist())[0]

    def time(self, size: str, onnx: str, persons: int, calls: int) -> dict[str, Any]:
        """Seconds of each call, one photograph after the other."""
        wall = []
        for call in range(calls):
            start = time.perf_counter()
            self.points(size, onnx, persons, call % len(self.images))
            wall.append(time.perf_counter() - start)
        return {"wall": wall}


def limit_onnxruntime(threads: int) -> None:
    """Sessions opened from now on compute with so many threads."""
    import onnxruntime as ort

    opened = ort.InferenceSession

    def limited(*arguments: Any, **options: Any) -> Any:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        return opened(*arguments, sess_options=settings, **options)

    ort.InferenceSession = limited


def main() -> None:
    import cv2

    threads = len(os.sched_getaffinity(0))
    cv2.setNumThreads(threads)
    limit_onnxruntime(threads)
    side = Side(Path(sys.argv[1]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if question.pop("what") == "time":
            answer = side.time(**question)
        else:
            answer = {"points": side.points(**question).tolist()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
