"""`rtmpose quantize`, and the stage that picks for each target."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.deploy.e2e import EndToEnd
from rtmpose.deploy.quantize import run
from rtmpose.deploy.quantize.gate import Judge, judged
from rtmpose.deploy.quantize.sensitivity import Sensitivity
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.onnx_form import onnx_form
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import UserError, sha256_of, write_atomic
from tests.deploy.quantize.test_gate import TIMES, attempt, figures, passing
from tests.deploy.test_benchmark import tiny
from tests.support import ROOT


def test_the_command_writes_a_file_and_says_that_it_is_not_judged(
    files: ModelFiles, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "measure", lambda *_: Sensitivity(all_px=0.0, without_px={}))
    model = tmp_path / "m.onnx"
    model.write_bytes(files.onnx.read_bytes())
    options = ["--calibration", str(shards / "train"), "--crops", "32", "--no-openvino"]
    options += ["--also", "tensorrt"]
    done = CliRunner().invoke(app, ["quantize", str(model), *options])
    assert done.exit_code == 0, done.output
    assert "onnxruntime int8" in done.output and "not judged" in done.output
    assert "AP was not measured: give --evaluate" in done.output
    record = json.loads((tmp_path / "m.quantize.json").read_text())
    assert [one["runtime"] for one in record["attempts"]] == ["onnxruntime", "tensorrt"]
    assert record["reference"] == {}
    assert record["attempts"][0]["precisions"]["int8"] and record["attempts"][0]["megabytes"] > 0
    assert read_card(tmp_path / "m.int8.onnx").precision == "int8"
    assert "tensorrt int8 on the GPU" in done.output
    assert onnx_form(ModelFiles(model), "int8", "tensorrt") == tmp_path / "m.int8.symmetric.onnx"
    assert EndToEnd.open(tmp_path / "m.int8.e2e.onnx").made_from(tmp_path / "m.int8.onnx")


def test_the_command_fails_where_nothing_passes(
    files: ModelFiles, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = judged(attempt(), figures(-3.0, -4.0))
    monkeypatch.setattr(
        run, "quantize_for_onnxruntime", lambda *_: ([lost], Sensitivity(all_px=0.0, without_px={}))
    )
    model = tmp_path / "m.onnx"
    model.write_bytes(files.onnx.read_bytes())
    options = ["--calibration", str(shards / "train"), "--evaluate", str(shards / "val"), "--crops", "32"]
    done = CliRunner().invoke(app, ["quantize", str(model), *options, "--no-openvino"])
    assert isinstance(done.exception, UserError) and "no int8 file of it passes" in str(done.exception)
    record = json.loads((tmp_path / "m.quantize.json").read_text())
    assert "may lose 4.00 points" in record["attempts"][0]["refused"][0] and record["reference"]


def test_the_stage_picks_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.pick import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "metrics" / "benchmark").mkdir(parents=True)
    attempts = [one.model_dump(mode="json") for one in passing()]
    figure = {"value": 60.0, "low": 50.0, "high": 70.0}
    machine = {"architecture": "x86_64"}
    judged = {"attempts": attempts, "reference": {"easy": figure}, "machine": machine}
    (tmp_path / "metrics" / "quantize.json").write_text(json.dumps(judged))
    results: list[dict[str, Any]] = [
        dict(zip(("runtime", "precision"), name.split("_"), strict=True))
        | {"threads": threads, "batch": 1, "ap_loss": 0.1}
        | {"images_per_s": 300.0, "file_mb": 6.0, "memory_mb": 100.0}
        | {key: value / threads for key, value in time.model_dump(exclude_none=True).items()}
        for name, time in TIMES.items()
        for threads in (1, 2)
    ]
    path = tmp_path / "metrics" / "benchmark" / "cpu-x86.json"
    timed = {"target": "rpi5", "results": results, "machine": machine, "files": {"rtmpose.onnx": "0a"}}
    path.write_text(json.dumps(timed))
    with pytest.raises(UserError, match=r"cpu-x86\.json: target: is rpi5, not cpu-x86; run the benchmark"):
        main([])
    path.write_text(json.dumps(timed | {"target": "cpu-x86", "machine": {"architecture": "aarch64"}}))
    main([])
    found = json.loads((tmp_path / "metrics" / "pick.json").read_text())["cpu-x86"]
    refused = {one["runtime"]: one["refused"] for one in found["attempts"] if one["precision"] == "int8"}
    assert found["picked"] == "openvino_fp32"
    assert "its AP was measured on x86_64, not on aarch64" in refused["onnxruntime"][0]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mix.json").write_text(json.dumps({"train": [], "tune": [], "val": []}))
    mix = sha256_of(tmp_path / "data" / "mix.json")
    own = {"attempts": attempts, "reference": {"easy": figure}, "mix_sha256": mix}  # AP was measured there
    there = {"target": "cpu-x86", "machine": {"architecture": "aarch64"}, "judged": own}
    for more in ({"target": "cpu-x86"}, there):
        path.write_text(json.dumps(timed | more))
        main([])
        found = json.loads((tmp_path / "metrics" / "pick.json").read_text())["cpu-x86"]
        assert found["picked"] == "onnxruntime_int8"
    path.write_text(json.dumps(timed | there | {"judged": own | {"mix_sha256": "0b"}}))
    with pytest.raises(UserError, match=r"cpu-x86\.json: judged: AP was measured with another data/mix"):
        main([])
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "rtmpose.onnx").write_bytes(b"of another version")
    path.write_text(json.dumps(timed | there))
    with pytest.raises(UserError, match=r"with another rtmpose\.onnx than the one here; run the stage"):
        main([])
    assert found["for"] == {"threads2_batch1": "onnxruntime_int8", "threads1_batch1": "onnxruntime_int8"}
    assert [bool(one["refused"]) for one in found["attempts"]] == [False, False, False, True]
    assert (tmp_path / "reports" / "quantize.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "metrics" / "quantize.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * len(TIMES) and table[0].startswith("target,batch,threads,runtime")


def write_mix(folder: Path, shards: Path) -> None:
    train = {"train": [{"dir": str(shards / "train"), "repeat": 1}], "tune": [{"dir": str(shards / "val")}]}
    mix = train | {"val": [{"dataset": "easy", "dir": str(shards / "val")}]}
    write_atomic(folder / "data" / "mix.json", json.dumps(mix))


def test_a_benchmark_elsewhere_measures_what_low_precision_costs_there(
    files: ModelFiles, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AP that was measured on another architecture counts in float32 alone, unless there are shards."""
    from pipelines.benchmark import lost_ap

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    own = read_card(files.onnx)
    target = tiny(runtimes=[{"name": "onnxruntime", "precisions": ["fp32", "int8"]}])
    assert lost_ap(target, files, own) == ({}, None)  # nothing was quantised
    lost = {"onnxruntime_fp32": 0.0, "onnxruntime_int8": 0.2}
    made = [one.model_dump(mode="json") for one in passing()]

    def quantized_on(machine: str) -> None:
        record = {"ap_loss": lost, "attempts": made, "machine": {"architecture": machine}}
        write_atomic(tmp_path / "metrics" / "quantize.json", json.dumps(record))

    for machine, expected in ((platform.machine(), lost), ("m68k", {"onnxruntime_fp32": 0.0})):
        quantized_on(machine)
        assert lost_ap(target, files, own) == (expected, None)
    write_mix(tmp_path, shards)
    here, judged = lost_ap(target, files, own)
    assert judged is not None and here == {"onnxruntime_fp32": 0.0}
    float32, int8 = judged["attempts"]
    assert float32["sets"]["easy"]["images"] == 12 and not float32["refused"]
    assert "not run here" in int8["refused"][0] and "rtmpose quantize" in int8["refused"][0]
    told = next(one for one in made if (one["runtime"], one["precision"]) == ("onnxruntime", "int8"))
    assert (int8["recipe"], int8["precisions"]) == (told["recipe"], told["precisions"])
    assert judged["mix_sha256"] == sha256_of(tmp_path / "data" / "mix.json")


@pytest.mark.parametrize("judged_on_a_gpu", [False, True])
def test_a_benchmark_on_a_gpu_measures_there_what_nobody_has(
    files: ModelFiles, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged_on_a_gpu: bool
) -> None:
    from pipelines import benchmark

    monkeypatch.chdir(tmp_path)
    target = tiny(runtimes=[{"name": "onnxruntime", "precisions": ["fp32", "int8"]}])
    on_gpu = target.model_copy(update={"device": "gpu"})
    made = [one.model_copy(update={"device": "gpu"} if judged_on_a_gpu else {}) for one in passing()]
    record = {
        "ap_loss": {"onnxruntime_fp32": 0.0, "onnxruntime_int8": 0.2},
        "attempts": [one.model_dump(mode="json") for one in made],
        "machine": {"architecture": platform.machine()},
    }
    write_atomic(tmp_path / "metrics" / "quantize.json", json.dumps(record))
    asked: list[str] = []
    monkeypatch.setattr(benchmark, "judged_here", lambda *_: asked.append("judged"))
    lost, _ = benchmark.lost_ap(on_gpu, files, read_card(files.onnx))
    assert (bool(asked), len(lost)) == ((False, 2) if judged_on_a_gpu else (True, 1))


def test_nothing_is_measured_for_a_gpu_that_is_not_there(
    files: ModelFiles, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.benchmark import judged_here

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    write_mix(tmp_path, shards)
    monkeypatch.setattr("rtmpose.deploy.machine.gpu_name", lambda: "")
    monkeypatch.setattr(Judge, "reference", lambda *_: pytest.fail("it takes long on many images"))
    on_gpu = tiny().model_copy(update={"device": "gpu"})
    assert judged_here(on_gpu, files, read_card(files.onnx), []) is None
