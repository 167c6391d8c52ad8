"""A champion that takes its turns in a candidate's benchmark."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rtmpose.deploy.benchmark import run
from rtmpose.deploy.rival import Rival
from rtmpose.deploy.runtimes.base import ModelFiles, Placement, Precision, RuntimeName
from rtmpose.deploy.sizes import sources
from rtmpose.deploy.workers import Configuration, Measurement, Memory, Opened, Turn
from rtmpose.files import sha256_of
from tests.deploy.test_benchmark import ONNX, tiny
from tests.support import det_input

FACTS = {"name": "pose", "version": "3", "sha256": "c" * 64}


def test_the_rival_is_measured_beside_and_reported_apart(files: ModelFiles) -> None:
    """Also one that cannot run here, of another input size: the candidate's own figures do not suffer."""
    images, target = det_input((2, 3, 128, 96)), tiny(**ONNX, batch_sizes=[1])
    rival = Rival(ModelFiles(files.onnx), "onnxruntime", "fp32", images, FACTS)
    report = run(target, files, images, rival=rival)
    (row,) = report["results"]
    beside = row["beside_rival"]
    assert 0 < beside["latency"]["low"] <= beside["latency"]["ratio"] <= beside["latency"]["high"]
    assert beside["size"] == {"ratio": 1.0} and beside["memory"]["ratio"] > 0
    assert report["rival"]["version"] == "3" and report["rival"]["skipped"] == []
    assert list(report["rival"]["p50_ms"]) == ["champion onnxruntime fp32 threads=1 batch=1"]
    assert report["protocol"]["rounds_of_own_calls"] == 4 * target.rounds
    assert row["repeats"] >= 4 * 24  # min_repeats of the target, for the calls that are compared
    assert row["files"] == ["rtmpose.onnx"] and report["files"] == {"rtmpose.onnx": sha256_of(files.onnx)}
    assert list(report["p50_ms"]) == ["onnxruntime_fp32_threads1_batch1"]
    json.dumps(report, allow_nan=False)

    other = replace(rival, precision="bf16", images=det_input((1, 3, 256, 192)))
    report = run(target, files, images, rival=other)
    assert report["results"][0]["beside_rival"] is None and report["skipped"] == report["rival"]["skipped"]
    assert report["skipped"][0].startswith("champion onnxruntime bf16 threads=1 batch=1: ")


@pytest.mark.parametrize(("ours", "theirs"), [(600.0, 400.0), (None, 400.0), (600.0, None)])
def test_memory_of_a_gpu_is_compared_where_both_tell_it(ours: float | None, theirs: float | None) -> None:
    model = ModelFiles(Path("m.onnx"))
    rival = Rival(model, "mnn", "fp32", det_input((1, 3, 128, 96)), FACTS)
    one = Configuration("onnxruntime", "fp32", Placement("gpu", 1), 1)
    turns = [Turn([2.0, 2.0], 0.1, 0.1, None)]
    opened = Opened((), "1", "gpu", 1.0, 1.0)
    measured = {
        one: Measurement(opened, turns, Memory(100.0, ours)),
        rival.beside(one): Measurement(opened, turns, Memory(100.0, theirs)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rtmpose.deploy.rival.file_mb", lambda *_: 6.0)
        found = rival.costs(one, measured, 6.0)
    assert found is not None and found["memory"] == {"ratio": 1.0}
    assert found.get("gpu_memory") == ({"ratio": 1.5} if ours and theirs else None)


@pytest.mark.parametrize(
    ("runtime", "precision", "expected"),
    [
        ("onnxruntime", "fp32", {"m.onnx"}),
        ("onnxruntime", "int8", {"m.onnx", "m.int8.onnx"}),
        ("onnxruntime", "fp16", {"m.onnx"}),  # there is no file of its own
        ("tensorrt", "int8", {"m.onnx", "m.int8.symmetric.onnx"}),
        ("openvino", "int8", {"m.onnx", "m.int8.xml", "m.int8.bin"}),
        ("pytorch", "fp32", {"m.onnx", "m.pt"}),
        ("litert", "int8", {"m.onnx", "m.int8.tflite", "m.int8.litert.json"}),
        ("executorch", "int8", {"m.onnx", "m.int8.pte", "m.int8.executorch.json"}),
        ("litert", "fp32", {"m.onnx", "m.pt"}),
        ("ncnn", "fp32", {"m.onnx", "m.pt"}),  # what it was converted to lies beside, and is not registered
    ],
)
def test_what_a_runtime_was_opened_from(
    tmp_path: Path, runtime: RuntimeName, precision: Precision, expected: set[str]
) -> None:
    for name in (
        *("m.onnx", "m.int8.onnx", "m.int8.xml", "m.int8.bin", "m.pt", "m.ncnn.param", "m.ncnn.bin"),
        *("m.int8.tflite", "m.int8.litert.json", "m.int8.pte", "m.int8.executorch.json", "m.tflite"),
        "m.int8.symmetric.onnx",
    ):
        (tmp_path / name).write_text(name)
    model = ModelFiles(tmp_path / "m.onnx", tmp_path / "m.pt")
    found = sources(model, runtime, precision)
    assert {path.name for path in found} == expected
