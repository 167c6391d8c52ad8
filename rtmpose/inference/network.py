"""An exported pose model, open for batches of any size, with its cores set on purpose.

Persons are handed out in small parts to as many threads as asked for; each part is computed by one thread.
Threads that share one forward pass wait for each other after every layer; these wait once, and one that is
held up, by the reading of the next frame for example, takes fewer parts. Where there are fewer persons than
threads, all threads share one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.e2e import CROPS, POINTS, EndToEnd, e2e_path
from rtmpose.deploy.runtimes.base import (
    TOGETHER,
    Infer,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    RuntimeName,
)
from rtmpose.deploy.runtimes.onnx_form import own_form
from rtmpose.deploy.runtimes.onnxruntime import open_file, read_card, refuse_saturation, through
from rtmpose.deploy.runtimes.session import open_any_number
from rtmpose.files import UserError, is_there
from rtmpose.geometry import Floats, crop_to_image
from rtmpose.inference.photo import AT_ONCE, skeleton_of
from rtmpose.skeleton import Skeleton
from rtmpose.topdown import ThroughArrays, ThroughCrops, TopDown, crop_boxes

Arrays = tuple[NDArray[np.floating], ...]
# From an image and boxes (N, 4) xywh px of it to keypoints (N, K, 2) px and scores (N, K).
Points = Callable[[NDArray[np.uint8], Floats], Arrays]
E2E = ".e2e.onnx"


@dataclass(frozen=True, eq=False)
class PoseNetwork:
    """A model's file and the way from boxes to points through it."""

    path: Path
    card: ModelCard
    skeleton: Skeleton
    _points: Points

    def __call__(self, image: NDArray[np.uint8], boxes: Floats) -> tuple[Floats, Floats]:
        """Keypoints (N, K, 2) px and raw scores (N, K) of the persons in boxes (N, 4) xywh px of an RGB
        image. UserError for a box without a size, and naming the file where it gives what is not finite.
        """
        count = len(self.card.keypoint_names)
        points, scores = np.empty((len(boxes), count, 2)), np.empty((len(boxes), count))
        for start in range(0, len(boxes), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            points[part], scores[part] = self._points(image, boxes[part])
        if not (np.isfinite(points).all() and np.isfinite(scores).all()):
            raise UserError(
                f"{self.path}: gives points that are not finite; export it again from whole weights"
            )
        return points, scores


def open_network(path: Path, threads: int = 1) -> PoseNetwork:
    """Open an exported file, or an end-to-end one, in ONNX Runtime on the CPU with so many threads.

    Of an exported file the end-to-end form beside it is used, where it was made from this very file: both
    give the same points, and it needs less time around the network. Not of an int8 file, whose form takes
    longer: its mean and deviation cannot go into rounded weights. UserError where a file is not ours, or
    has int8 weights that this CPU cannot compute with.
    """
    try:
        return _open(path, threads)
    except NotPossible as reason:
        raise UserError(str(reason)) from None


def open_in(files: ModelFiles, runtime: RuntimeName, precision: Precision, threads: int = 1) -> PoseNetwork:
    """Open an exported model in a runtime and precision on the CPU: in ONNX Runtime as `open_network` does,
    in OpenVINO several persons in a pass, in others person by person. UserError as there; NotPossible where
    the runtime cannot run it here, or the file of that precision was made from another exported file.
    """
    if runtime == "onnxruntime":
        return _open(_onnx(files, precision), threads)
    card = read_card(files.onnx)
    skeleton = skeleton_of(card, files.onnx)
    if runtime == "openvino":
        opening = opening_in(files, runtime, precision, threads, crops=True)
        way = _around(card, skeleton, opening, ThroughCrops)
        return PoseNetwork(files.onnx, card, skeleton, Spread(way, threads, TOGETHER))
    way = _around(card, skeleton, opening_in(files, runtime, precision, threads))
    return PoseNetwork(files.onnx, card, skeleton, way(threads))


def opening_in(
    files: ModelFiles, runtime: RuntimeName, precision: Precision, threads: int, *, crops: bool = False
) -> Callable[[int], Infer]:
    """What opens the network alone in a runtime and precision, for forward passes on so many of the threads
    each. `open_in` puts crops and points around it, unless it finds an end-to-end file. `crops`: see
    `open_any_number`.
    """
    if runtime == "onnxruntime":
        return _opening(_onnx(files, precision))

    def opening(count: int) -> Infer:
        place = Placement(threads=threads, streams=threads // count)
        return open_any_number(runtime, files, precision, place, crops=crops)

    return opening


def _onnx(files: ModelFiles, precision: Precision) -> Path:
    return files.onnx if precision == "fp32" else own_form(files, precision)[0]


def _opening(path: Path) -> Callable[[int], Infer]:
    return lambda count: through(open_file(path, count, spinning=False))


def _open(path: Path, threads: int) -> PoseNetwork:
    """As `open_network`; NotPossible for int8 weights that this CPU cannot compute with."""
    given = path.name.endswith(E2E)
    whole = path if given else e2e_path(path)
    if given or is_there(whole):
        opened = EndToEnd.open(whole)
        if given or (opened.card.precision != "int8" and opened.made_from(path)):
            return _open_whole(opened, whole, path, threads)
    return _open_plain(path, threads)


def _open_whole(opened: EndToEnd, whole: Path, path: Path, threads: int) -> PoseNetwork:
    """An end-to-end file: all from pixels to points is one graph."""
    card, size = opened.card, opened.card.input_size
    refuse_saturation(card, whole)
    udp = card.codec().udp

    def opening(count: int) -> Points:
        session = opened.session if count == 1 else open_file(whole, count, spinning=False)

        def points(image: NDArray[np.uint8], boxes: Floats) -> Arrays:
            crops = crop_boxes(image, boxes, size, udp=udp)
            found, scores = session.run(POINTS, {CROPS: crops.pixels})
            return crop_to_image(found, crops.center, crops.scale, size), scores

        return points

    return PoseNetwork(path, card, skeleton_of(card, path), Spread(opening, threads))


def _open_plain(path: Path, threads: int) -> PoseNetwork:
    """An exported file with everything around it as its card says."""
    card = read_card(path)
    refuse_saturation(card, path)
    skeleton = skeleton_of(card, path)
    return PoseNetwork(path, card, skeleton, Spread(_around(card, skeleton, _opening(path)), threads))


def _around(
    card: ModelCard,
    skeleton: Skeleton,
    opening: Callable[[int], Infer],
    taking: type[ThroughArrays] = ThroughArrays,
) -> Callable[[int], Points]:
    """What opens the way from an image and boxes to points, through a network that takes arrays."""

    def way(count: int) -> Points:
        network = taking(opening(count))
        found = TopDown(network, card.codec(), skeleton, mean=card.mean, std=card.std)
        return lambda image, boxes: found.points(found.crops(image, boxes))

    return way


class Spread:
    """The persons of an image, computed in parts by several threads at once: crops, network and points.

    `opening(n)` opens the network for n threads. What it gives is called from several threads, and must let
    go of Python's lock in its forward pass. `passes_of`: how many persons a forward pass computes sooner
    than one after the other.
    """

    def __init__(self, opening: Callable[[int], Points], threads: int, passes_of: int = 1) -> None:
        self.opening, self.threads, self.passes_of = opening, threads, passes_of
        self.alone = opening(1)
        # A thread asks for PyTorch's number of threads when it first computes, and may then find the one that
        # another has set for a moment (`one_thread`).
        number = (torch.get_num_threads(),)
        some = threads > 1
        self.pool = ThreadPoolExecutor(threads - 1, "pose", torch.set_num_threads, number) if some else None

    @cached_property
    def together(self) -> Points:
        """The network whose threads share a forward pass; opened when there are first too few persons."""
        return self.opening(self.threads)

    def __call__(self, image: NDArray[np.uint8], boxes: Floats) -> Arrays:
        """What the network gives for all boxes, in their order."""
        if self.pool is None:
            return self.alone(image, boxes)
        if len(boxes) < self.threads:
            return self.together(image, boxes)
        waiting, lock = parts_of(len(boxes), self.threads, self.passes_of), Lock()
        found: dict[int, Arrays] = {}
        failed: dict[int, Exception] = {}

        def work() -> None:
            while not failed:
                with lock:
                    part = next(waiting, None)
                if part is None:
                    return
                try:
                    found[part.start] = self.alone(image, boxes[part])
                except Exception as error:
                    failed[part.start] = error

        others = [self.pool.submit(work) for _ in range(self.threads - 1)]
        try:
            work()
        finally:
            with lock:
                waiting.close()
            wait(others)
        if failed:
            raise failed[min(failed)]  # parts before it are computed, so it is the first box that fails
        return tuple(np.concatenate(one) for one in zip(*(found[at] for at in sorted(found)), strict=True))


def parts_of(count: int, threads: int, passes_of: int = 1) -> Generator[slice]:
    """Slices that cover `count` persons: large ones first, as they cost less a person, and single persons at
    the end, so that all threads end together. Passes of `passes_of` persons come before them, as many as can
    be shared out alike.
    """
    start = 0
    if passes_of > 1:
        for _ in range(count // (passes_of * threads) * threads):
            yield slice(start, start + passes_of)
            start += passes_of
    while start < count:
        size = max(1, (count - start) // (2 * threads))
        yield slice(start, start + size)
        start += size
