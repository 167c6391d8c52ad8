"""Our ways from boxes to points, timed in a process of its own as the peer's is: started by `inference.py`.

    python own_pose.py FOLDER

It computes with as many threads as it may use cores. FOLDER holds `inputs.npz`: `count` photographs `image0`
… uint8 RGB and `boxes` (count, 8, 4) xywh px. Answers lines of JSON {"what", …}: `open` says why a way cannot
run here, or nothing; `time` gives seconds of each call (`wall`) and of the network in it (`network`);
`points` keypoints of one photograph; `peak` what a large matrix product or convolution reaches here; `macs` a
network's multiply-adds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from own_step import answer, best_seconds  # type: ignore[import-not-found]
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rtmpose.deploy.e2e import EndToEnd, e2e_path
from rtmpose.deploy.runtimes.base import Infer, ModelFiles, NotPossible, Placement, Precision, RuntimeName
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.descriptors import load_skeleton
from rtmpose.topdown import ThroughArrays, TopDown

CORES = len(os.sched_getaffinity(0))
WAYS: dict[str, tuple[RuntimeName, Precision]] = {
    "onnxruntime": ("onnxruntime", "fp32"),
    "openvino": ("openvino", "fp32"),
    "openvino bf16": ("openvino", "bf16"),
    "onnxruntime int8": ("onnxruntime", "int8"),
    "openvino int8": ("openvino", "int8"),
}
Way = Callable[[NDArray[np.uint8], NDArray[np.float64]], Any]


class Timed:
    """A runtime that remembers how long it computed."""

    def __init__(self, infer: Infer) -> None:
        self.infer, self.seconds = infer, 0.0

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        start = time.perf_counter()
        outputs = self.infer(images)
        self.seconds += time.perf_counter() - start
        return outputs


class Side:
    """The inputs of a folder, and each way of each size once it has been asked for."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "inputs.npz") as file:
            self.images = [file[f"image{i}"] for i in range(int(file["count"]))]
            self.boxes = file["boxes"]
        self.ways: dict[tuple[str, str, int], tuple[Way, Timed | None]] = {}

    def way(self, way: str, onnx: str, persons: int) -> tuple[Way, Timed | None]:
        key = (way, onnx, persons)
        if key not in self.ways:
            files = ModelFiles(Path(onnx))
            self.ways[key] = _end_to_end(files, way) if "e2e" in way else _top_down(files, way, persons)
        return self.ways[key]

    def open(self, way: str, onnx: str, persons: int) -> dict[str, Any]:
        try:
            self.way(way, onnx, persons)
        except NotPossible as reason:
            return {"reason": str(reason)}
        return {"reason": None}

    def points(self, way: str, onnx: str, persons: int, number: int) -> dict[str, Any]:
        run, _ = self.way(way, onnx, persons)
        return {"points": np.asarray(run(self.images[number], self.boxes[number][:persons])[0]).tolist()}

    def time(self, way: str, onnx: str, persons: int, calls: int) -> dict[str, Any]:
        run, network = self.way(way, onnx, persons)
        wall, inside = [], []
        for call in range(calls):
            number = call % len(self.images)
            before = network.seconds if network else 0.0
            start = time.perf_counter()
            run(self.images[number], self.boxes[number][:persons])
            wall.append(time.perf_counter() - start)
            inside.append(network.seconds - before if network else 0.0)
        return {"wall": wall, "network": inside}

    def peak(self, rounds: int) -> dict[str, float]:
        """Multiply-adds per second in float32, the best of some rounds."""
        left, right = torch.randn(2, 1536, 1536).unbind()
        images = torch.randn(8, 128, 32, 24).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(128, 128, 3, 3)
        clock, wait = time.perf_counter, lambda: None
        product = best_seconds(partial(torch.matmul, left, right), clock, wait, rounds)
        conv = best_seconds(partial(nn.functional.conv2d, images, weight, padding=1), clock, wait, rounds)
        return {"peak": max(1536**3 / product, 8 * 32 * 24 * weight.numel() / conv)}

    def macs(self, onnx: str) -> dict[str, float]:
        """Multiply-adds of one person's forward pass."""
        card = read_card(Path(onnx))
        width, height = card.input_size
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            card.network()(torch.zeros(1, 3, height, width))
        return {"macs": counter.get_total_flops() / 2}


def _top_down(files: ModelFiles, way: str, persons: int) -> tuple[Way, Timed]:
    runtime, precision = WAYS[way]
    card = read_card(files.onnx)
    session = open_session(runtime, files, precision, Placement(threads=CORES), persons)
    network = Timed(session)
    skeleton = load_skeleton(card.skeleton)
    top = TopDown(ThroughArrays(network), card.codec(), skeleton, mean=card.mean, std=card.std)
    return lambda image, boxes: top.points(top.crops(image, boxes)), network


def _end_to_end(files: ModelFiles, way: str) -> tuple[Way, None]:
    path = e2e_path(files.form("int8" if way == "e2e int8" else "fp32"))
    if not path.exists():
        raise NotPossible(f"there is no {path.name}")
    return EndToEnd.open(path, CORES).points, None


def main() -> None:
    cv2.setNumThreads(CORES)
    torch.set_num_threads(CORES)
    answer(Side(Path(sys.argv[1])), ("open", "time", "points", "peak", "macs"))


if __name__ == "__main__":
    main()
