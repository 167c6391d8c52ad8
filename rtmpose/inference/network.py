"""An exported pose model, open for batches of any size, with its cores set on purpose.

A batch is cut into as many parts as there are threads, and each part is computed by one thread. Threads that
share one forward pass wait for each other after every layer; threads with persons of their own wait once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.e2e import CROPS, POINTS, EndToEnd, e2e_path
from rtmpose.deploy.runtimes.base import (
    ModelFiles,
    Placement,
    Precision,
    RuntimeName,
    image_by_image,
)
from rtmpose.deploy.runtimes.onnxruntime import open_file, read_card, through
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.files import UserError, is_there
from rtmpose.geometry import Floats, crop_to_image
from rtmpose.inference.photo import skeleton_of
from rtmpose.skeleton import Skeleton
from rtmpose.topdown import Crops, ThroughArrays, TopDown, crop_boxes

Arrays = tuple[NDArray[np.floating], ...]
Kind = TypeVar("Kind", bound=np.generic)
E2E = ".e2e.onnx"
AT_ONCE = 64  # persons in one batch: what a picture takes of memory does not grow with its people


@dataclass(frozen=True, eq=False)
class PoseNetwork:
    """A model's file and the way from crops to points through it."""

    path: Path
    card: ModelCard
    skeleton: Skeleton
    _points: Callable[[Crops], tuple[Floats, Floats]]

    def __call__(self, image: NDArray[np.uint8], boxes: Floats) -> tuple[Floats, Floats]:
        """Keypoints (N, K, 2) px and raw scores (N, K) of the persons in boxes (N, 4) xywh px of an RGB
        image. UserError for a box without a size, and naming the file where it gives what is not finite.
        """
        count = len(self.card.keypoint_names)
        points, scores = np.empty((len(boxes), count, 2)), np.empty((len(boxes), count))
        udp, size = self.card.codec().udp, self.card.input_size
        for start in range(0, len(boxes), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            points[part], scores[part] = self._points(crop_boxes(image, boxes[part], size, udp=udp))
        if not (np.isfinite(points).all() and np.isfinite(scores).all()):
            raise UserError(
                f"{self.path}: gives points that are not finite; export it again from whole weights"
            )
        return points, scores


def open_network(path: Path, threads: int = 1) -> PoseNetwork:
    """Open an exported file, or an end-to-end one, in ONNX Runtime on the CPU with so many threads.

    Of an exported file the end-to-end form beside it is used, where it was made from this very file: both
    give the same points, and it needs less time around the network. UserError where a file is not ours.
    """
    given = path.name.endswith(E2E)
    whole = path if given else e2e_path(path)
    if given or is_there(whole):
        opened = EndToEnd.open(whole)
        if given or opened.made_from(path):
            return _open_whole(opened, path, threads)
    return _open_plain(path, threads)


def open_in(files: ModelFiles, runtime: RuntimeName, precision: Precision, threads: int = 1) -> PoseNetwork:
    """Open an exported model in a runtime and precision on the CPU: in ONNX Runtime as `open_network` does,
    in others person by person. UserError as there; NotPossible where the runtime cannot run it here.
    """
    if runtime == "onnxruntime":
        return open_network(files.form(precision), threads)
    card = read_card(files.onnx)
    skeleton = skeleton_of(card, files.onnx)
    session = open_session(runtime, files, precision, Placement(threads=threads))
    network = ThroughArrays(partial(image_by_image, session))
    way = TopDown(network, card.codec(), skeleton, mean=card.mean, std=card.std)
    return PoseNetwork(files.onnx, card, skeleton, way.points)


def _open_whole(opened: EndToEnd, path: Path, threads: int) -> PoseNetwork:
    """An end-to-end file: all from pixels to points is one graph."""
    card, size = opened.card, opened.card.input_size

    def run(pixels: NDArray[np.uint8]) -> Arrays:
        return tuple(opened.session.run(POINTS, {CROPS: pixels}))

    spread = Spread(run, threads)

    def points(crops: Crops) -> tuple[Floats, Floats]:
        found, scores = spread(crops.pixels)
        return crop_to_image(found, crops.center, crops.scale, size), scores

    return PoseNetwork(path, card, skeleton_of(card, path), points)


def _open_plain(path: Path, threads: int) -> PoseNetwork:
    """An exported file with everything around it as its card says."""
    card = read_card(path)
    skeleton = skeleton_of(card, path)
    spread = Spread(through(open_file(path, threads=1)), threads)
    way = TopDown(ThroughArrays(spread), card.codec(), skeleton, mean=card.mean, std=card.std)
    return PoseNetwork(path, card, skeleton, torch.inference_mode()(way.points))


class Spread(Generic[Kind]):
    """A function of batches, computed in parts by several threads at once.

    `compute` takes an array (N, …) and gives arrays (N, …); it is called from several threads and must let
    go of Python's lock while it computes.
    """

    def __init__(self, compute: Callable[[NDArray[Kind]], Arrays], threads: int) -> None:
        self.compute, self.threads = compute, threads
        self.pool = ThreadPoolExecutor(threads - 1, "pose") if threads > 1 else None

    def __call__(self, batch: NDArray[Kind]) -> Arrays:
        """The same as `compute(batch)`."""
        parts = min(self.threads, len(batch))
        if self.pool is None or parts < 2:
            return self.compute(batch)
        first, *others = np.array_split(batch, parts)
        waiting = [self.pool.submit(self.compute, part) for part in others]
        results: Sequence[Arrays] = [self.compute(first), *(one.result() for one in waiting)]
        return tuple(np.concatenate(outputs) for outputs in zip(*results, strict=True))
