"""The exported file in the runtimes of NVIDIA GPUs, beside PyTorch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from gpu.scale import LeftOut, Result, Scale, ratio

if TYPE_CHECKING:
    import numpy as np

    from rtmpose.deploy.runtimes.base import ModelFiles

PRECISIONS: tuple[Literal["fp32", "fp16"], ...] = ("fp32", "fp16")
MOST_OFF = {"fp32": 0.001, "fp16": 0.05}  # of the largest output


def onnxruntime_cuda(device: torch.device, scale: Scale) -> Result:
    return _exported("onnxruntime-cuda" if device.type == "cuda" else "onnxruntime", device, scale)


def tensorrt(device: torch.device, scale: Scale) -> Result:
    return _exported("tensorrt", device, scale)


def _exported(runtime: str, device: torch.device, scale: Scale) -> Result:
    """A network with random weights, exported and compared."""
    from rtmpose.config import Architecture
    from rtmpose.deploy.card import ModelCard
    from rtmpose.deploy.export import export_onnx
    from rtmpose.deploy.runtimes.base import ModelFiles

    torch.manual_seed(0)
    card = ModelCard.of(Architecture.model_validate({"size": scale.size}), scale.input_size, "coco17")
    model = card.network()
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name, "rtmpose.pt")
        torch.save(model.state_dict(), weights)
        files = ModelFiles(weights.with_suffix(".onnx"), weights)
        for precision in PRECISIONS:
            beside = None if precision == "fp32" else files.onnx
            path = files.form(precision)
            export_onnx(model, card.input_size, path, card=card, precision=precision, exported=beside)
        return beside_pytorch(runtime, files, device, scale)


def beside_pytorch(runtime: str, files: ModelFiles, device: torch.device, scale: Scale) -> Result:
    """p50 at batch 1 and 8 in a runtime and in PyTorch by turns, and how far both are from PyTorch in fp32;
    also in fp16 on a GPU.
    """
    from rtmpose.deploy.runtimes.base import NotPossible, Placement
    from rtmpose.deploy.runtimes.onnxruntime import read_card
    from rtmpose.deploy.runtimes.session import open_session
    from rtmpose.deploy.samples import noise

    card, place = read_card(files.onnx), Placement("gpu" if device.type == "cuda" else "cpu")
    found: Result = {}
    for precision, batch in product(PRECISIONS if device.type == "cuda" else PRECISIONS[:1], (1, 8)):
        images = noise(card.input_size, batch)
        try:
            session = open_session(cast(Any, runtime), files, precision, place, batch)
            other = open_session("pytorch", files, precision, place, batch)
            exact = open_session("pytorch", files, "fp32", Placement("cpu"), batch)(images)
        except NotPossible as reason:
            raise LeftOut(str(reason)) from None
        off = {name: _off(one(images), exact) for name, one in ((runtime, session), ("pytorch", other))}
        if not off[runtime] < MOST_OFF[precision]:
            raise AssertionError(f"{runtime} in {precision} is off by {off[runtime]} of the largest output")
        times = _by_turns([partial(session, images), partial(other, images)], scale.calls)
        found |= {"version": session.version, "device": session.device}
        found[f"{precision}_batch{batch}"] = {
            "p50_ms": round(1000 * median(times[0]), 3),
            "pytorch_p50_ms": round(1000 * median(times[1]), 3),
            **ratio(times[1], times[0]),
            "off": off[runtime],
            "pytorch_off": off["pytorch"],
        }
    return found


def _off(outputs: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> float:
    """The largest difference from PyTorch in fp32, over the largest output there."""
    off = [float(abs(a - b).max() / abs(b).max()) for a, b in zip(outputs, exact, strict=True)]
    return max(off) if all(value == value for value in off) else float("nan")  # max may drop NaN


def _by_turns(calls: Sequence[Callable[[], object]], number: int) -> list[list[float]]:
    """Seconds of each call, after a tenth of them as warm-up."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(number + number // 10):
        for call, seconds in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            if turn >= number // 10:
                seconds.append(time.perf_counter() - began)
    return times
