"""The exported file in the runtimes of NVIDIA GPUs, beside PyTorch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import torch

from gpu.scale import LeftOut, Result, Scale, ratio

if TYPE_CHECKING:
    from rtmpose.deploy.runtimes.base import ModelFiles

MOST_DIFF = 0.05  # TF32 on a GPU moves the third digit


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
        torch.save(model.state_dict(), Path(name) / "rtmpose.pt")
        onnx = export_onnx(model, card.input_size, Path(name) / "rtmpose.onnx", card=card)
        return beside_pytorch(runtime, ModelFiles(onnx, Path(name) / "rtmpose.pt"), device, scale)


def beside_pytorch(runtime: str, files: ModelFiles, device: torch.device, scale: Scale) -> Result:
    """p50 at batch 1 and 8 in a runtime and in PyTorch by turns, and how far the outputs are apart."""
    from rtmpose.deploy.export import differences
    from rtmpose.deploy.runtimes.base import NotPossible, Placement
    from rtmpose.deploy.runtimes.onnxruntime import read_card
    from rtmpose.deploy.runtimes.session import open_session
    from rtmpose.deploy.samples import noise

    card, place = read_card(files.onnx), Placement("gpu" if device.type == "cuda" else "cpu")
    found: Result = {}
    for batch in (1, 8):
        images = noise(card.input_size, batch)
        try:
            session = open_session(cast(Any, runtime), files, "fp32", place, batch)
            other = open_session("pytorch", files, "fp32", place, batch)
        except NotPossible as reason:
            raise LeftOut(str(reason)) from None
        compared = differences(session(images), other(images), card.codec())
        if not compared["max_diff"] < MOST_DIFF:
            raise AssertionError(f"{runtime} is off by {compared}")
        times = _by_turns([partial(session, images), partial(other, images)], scale.calls)
        found |= {"version": session.version, "device": session.device}
        found[f"batch{batch}"] = {
            "p50_ms": round(1000 * median(times[0]), 3),
            "pytorch_p50_ms": round(1000 * median(times[1]), 3),
            **ratio(times[1], times[0]),
            **compared,
        }
    return found


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
