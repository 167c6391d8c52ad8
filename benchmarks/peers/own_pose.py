"""Our ways from boxes to points, timed in a process of its own as the peer's is: started by `inference.py`.

    python own_pose.py FOLDER

A way is a runtime and precision, opened as `PosePipeline` opens it: with as many threads as the process may
use cores. FOLDER holds `inputs.npz`: `count` photographs `image0` … uint8 RGB and `boxes` (count, 8, 4) xywh
px. Answers lines of JSON {"what", …}: `open` says why a way cannot run here, or nothing; `time` gives seconds
of each call (`wall`), and of as many in which the threads do nothing but compute the network (`network`);
`points` keypoints of one photograph; `peak` what a large matrix product or convolution reaches here; `macs` a
network's multiply-adds.
"""

from __future__ import annotations

import os
import sys
import time
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

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.base import TOGETHER, ModelFiles, NotPossible, tried_parts
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.inference.network import Points, PoseNetwork, Spread, open_in, opening_in
from rtmpose.topdown import crop_boxes, planes_of

CORES = len(os.sched_getaffinity(0))


class Side:
    """The inputs of a folder, and each way once it has been asked for: as the product opens it, and the plain
    file's network without what surrounds it, which is handed to the same threads in the same parts.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "inputs.npz") as file:
            self.images = [file[f"image{i}"] for i in range(int(file["count"]))]
            self.boxes = file["boxes"]
        self.ways: dict[tuple[str, str], tuple[PoseNetwork, Spread]] = {}

    def way(self, way: str, onnx: str) -> tuple[PoseNetwork, Spread]:
        key = (way, onnx)
        if key not in self.ways:
            runtime, precision, _ = tried_parts(way)
            asked = ModelFiles(Path(onnx)), runtime, precision, CORES
            opening = opening_in(*asked)
            card = read_card(Path(onnx))
            inputs = planes_of(self._crops(card), card.mean, card.std)

            def alone(count: int) -> Points:
                infer = opening(count)
                return lambda image, boxes: infer(inputs[: len(boxes)])

            passes_of = TOGETHER if runtime == "openvino" else 1
            self.ways[key] = open_in(*asked), Spread(alone, CORES, passes_of)
        return self.ways[key]

    def _crops(self, card: ModelCard) -> NDArray[np.uint8]:
        """Of the persons of the first photograph."""
        return crop_boxes(self.images[0], self.boxes[0], card.input_size, udp=card.codec().udp).pixels

    def open(self, way: str, onnx: str, persons: int) -> dict[str, Any]:
        try:
            self.way(way, onnx)
        except NotPossible as reason:
            return {"reason": str(reason)}
        return {"reason": None}

    def points(self, way: str, onnx: str, persons: int, number: int) -> dict[str, Any]:
        whole, _ = self.way(way, onnx)
        return {"points": whole(self.images[number], self.boxes[number][:persons])[0].tolist()}

    def time(self, way: str, onnx: str, persons: int, calls: int) -> dict[str, Any]:
        whole, alone = self.way(way, onnx)
        wall: list[float] = []
        network: list[float] = []
        for call in range(calls):
            number = call % len(self.images)
            image, boxes = self.images[number], self.boxes[number][:persons]
            for run, seconds in ((whole, wall), (alone, network)):
                start = time.perf_counter()
                run(image, boxes)
                seconds.append(time.perf_counter() - start)
        return {"wall": wall, "network": network}

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


def main() -> None:
    cv2.setNumThreads(CORES)
    torch.set_num_threads(CORES)
    answer(Side(Path(sys.argv[1])), ("open", "time", "points", "peak", "macs"))


if __name__ == "__main__":
    main()
