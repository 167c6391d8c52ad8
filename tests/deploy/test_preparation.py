"""What runtimes make of a model is made before anything is timed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rtmpose.deploy import preparation, workers
from rtmpose.deploy.preparation import Preparation
from rtmpose.deploy.runtimes.base import ModelFiles, Placement
from rtmpose.deploy.workers import Configuration, Worker, started
from tests.support import det_input

Made = list[tuple[object, ...]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """What was asked to be made; RKNN cannot be."""
    found: Made = []

    def prepared(
        runtime: str, files: ModelFiles, precision: str, placement: Placement, batch: int
    ) -> str | None:
        found.append((runtime, precision, placement.device, batch))
        return "not run here" if runtime == "rknn" else None

    monkeypatch.setattr(preparation, "_prepared", prepared)
    return found


def test_each_is_made_once(made: Made) -> None:
    """A converted network serves all threads and batches; an engine is of one batch size."""
    files, own = ModelFiles(Path("m.onnx")), Preparation()
    for batch in (1, 8):
        for threads in (1, 4):
            place = Placement("cpu", threads)
            assert own.reason("ncnn", files, "fp16", place, batch) is None
            assert own.reason("onnxruntime", files, "fp32", place, batch) is None
            assert own.reason("rknn", files, "fp16", place, batch) == "not run here"
            assert own.reason("tensorrt", files, "fp16", Placement("gpu", threads), batch) is None
    assert made == [
        ("ncnn", "fp16", "cpu", 1),
        ("rknn", "fp16", "cpu", 1),
        ("tensorrt", "fp16", "gpu", 1),
        ("tensorrt", "fp16", "gpu", 8),
    ]
    own.reason("ncnn", ModelFiles(Path("champion.onnx")), "fp16", Placement(), 1)
    assert len(made) == 5


def test_what_cannot_be_made_starts_no_worker(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "Worker", None)
    one = Configuration("rknn", "fp16", Placement(), 1)
    with started({one: (ModelFiles(Path("m.onnx")), det_input((1, 3, 8, 4)))}, 0) as (ready, skipped):
        assert not ready and skipped == ["rknn fp16 threads=1 batch=1: not run here"]


def test_the_conversion_is_in_no_start_up(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies there when the worker starts."""
    os.link(files.onnx, tmp_path / "rtmpose.onnx")
    copy = ModelFiles(tmp_path / "rtmpose.onnx", files.weights)
    found: list[bool] = []

    class Watched(Worker):
        def __init__(self, *arguments: Any) -> None:
            found.append((tmp_path / "rtmpose.ncnn.json").is_file())
            super().__init__(*arguments)

    monkeypatch.setattr(workers, "Worker", Watched)
    asked = {Configuration("ncnn", "fp32", Placement(), 1): (copy, det_input((1, 3, 128, 96)))}
    with started(asked, 0) as (ready, skipped):
        ((_, opened),) = ready.items()
    assert found == [True] and not skipped and 0 < opened.open_s < opened.startup_s


def test_why_it_cannot_be_made_is_told(files: ModelFiles, tmp_path: Path) -> None:
    os.link(files.onnx, tmp_path / "rtmpose.onnx")
    copy = ModelFiles(tmp_path / "rtmpose.onnx")
    reason = Preparation().reason("ncnn", copy, "fp32", Placement(), 1)
    assert reason is not None and "give the weights that the file was exported from" in reason
