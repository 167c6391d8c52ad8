from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from rtmpose.deploy import workers
from rtmpose.deploy.benchmark import COMPARED, _take_turns, _times, calls_for_p99, run
from rtmpose.deploy.meters import energy_counters, peak_memory_mb
from rtmpose.deploy.report import check_budgets, picture, table
from rtmpose.deploy.runtimes.base import ModelFiles, Placement
from rtmpose.deploy.sizes import file_mb
from rtmpose.deploy.targets import Budget, Target
from rtmpose.deploy.workers import Turn
from rtmpose.files import UserError
from tests.deploy.test_targets import text, write
from tests.support import ROOT, det_input

HERE = {"architecture": os.uname().machine, "budgets": []}
ONNX = {"runtimes": [{"name": "onnxruntime", "precisions": ["fp32"]}]}


def tiny(**changes: Any) -> Target:
    fast: dict[str, Any] = {
        "batch_sizes": [1, 2],
        "threads": [1],
        "warmup": 1,
        "rounds": 6,
        "seconds": 0.006,
        "min_repeats": 24,
    }
    return Target.model_validate(text(**(HERE | fast | changes)))


def test_a_run_measures_every_configuration(files: ModelFiles) -> None:
    budgets = [
        {"runtime": "onnxruntime", "precision": "fp32", "p50_ms": 0.0001, "file_mb": 100, "ap_loss": 0.1},
        {"batch": 2, "p95_ms": 60_000, "images_per_s": 0.01, "memory_mb": 4000},
    ]
    specs = [{"name": "onnxruntime", "precisions": ["fp32", "bf16"]}]
    target = tiny(runtimes=specs, budgets=budgets)
    report = run(target, files, det_input((3, 3, 128, 96)), {"onnxruntime_fp32": 0.02})
    assert [(r["runtime"], r["precision"], r["threads"], r["batch"]) for r in report["results"]] == [
        ("onnxruntime", "fp32", 1, 1),
        ("onnxruntime", "fp32", 1, 2),
    ]
    for result in report["results"]:
        assert 0 < result["min_ms"] <= result["p50_ms"] <= result["p95_ms"] < 60_000
        assert result["p99_ms"] is None  # too few calls
        low, high = result["p50_interval"]
        assert result["min_ms"] <= low <= high
        assert result["images_per_s"] > 0 and result["repeats"] >= 24 and 0 <= result["cores_used"] < 1.5
        assert 0 < result["max_diff"] <= 1e-4 and result["keypoints_px_max"] == 0
        assert result["ratio"] == 1 and result["ratio_interval"] == [1, 1]  # it is the reference itself
        assert 0 < result["open_s"] < result["startup_s"] < 300 and 20 < result["memory_mb"] < 4000
        assert result["version"] == report["machine"]["versions"]["onnxruntime"]
        assert result["device"] == "CPUExecutionProvider"
        assert result["file_mb"] == pytest.approx(files.onnx.stat().st_size / 1e6, abs=1e-3)
    assert len(report["skipped"]) == 2 and all("bf16" in reason for reason in report["skipped"])
    assert [(b["key"], b["kept"], b["by"]) for b in report["budgets"]] == [
        ("p50_ms", False, "onnxruntime_fp32_threads1_batch1"),
        ("file_mb", True, "onnxruntime_fp32_threads1_batch1"),
        ("ap_loss", True, "onnxruntime_fp32_threads1_batch1"),
        ("p95_ms", True, "onnxruntime_fp32_threads1_batch2"),
        ("images_per_s", True, "onnxruntime_fp32_threads1_batch2"),
        ("memory_mb", True, "onnxruntime_fp32_threads1_batch2"),
    ]
    assert report["machine"]["cpu"]
    for figure in ("p50_ms", "ratio", "startup_s", "memory_mb", "file_mb"):
        assert set(report[figure]) == {f"onnxruntime_fp32_threads1_batch{batch}" for batch in (1, 2)}
    assert report["protocol"]["omp_wait_policy"] == os.environ["OMP_WAIT_POLICY"]
    assert report["energy"].startswith("not told: ") == (report["results"][0]["joules_per_image"] is None)
    json.dumps(report, allow_nan=False)
    shown = table(report)
    assert "BROKEN: onnxruntime fp32 threads=1 batch=1: p50_ms" in shown
    assert "skipped: onnxruntime bf16" in shown
    assert "ratio: p50 to onnxruntime fp32 at the same threads and batch" in shown
    assert picture(report).startswith(b"\x89PNG")


class Quick:
    """Stands for a worker whose calls take some ms."""

    def __init__(self, batch: int, milliseconds: float) -> None:
        self.one = workers.Configuration("onnxruntime", "fp32", Placement(), batch)
        self.milliseconds = milliseconds

    def turn(self, seconds: float, calls: int) -> Turn:
        count = max(calls, math.ceil(1000 * seconds / self.milliseconds))
        return Turn([self.milliseconds] * count, seconds, seconds, None)

    def memory(self) -> workers.Memory:
        return workers.Memory(100.0, None)


@pytest.mark.parametrize(("duel", "milliseconds", "enough"), [(1, 20, True), (1, 40, False), (4, 40, True)])
def test_the_targets_own_calls_are_enough_for_a_p99(duel: int, milliseconds: float, enough: bool) -> None:
    """Where they are quick; batches of two are not what the target is judged by."""
    target = tiny(rounds=12, seconds=1.2, min_repeats=12)
    ready = {cast(workers.Worker, Quick(batch, milliseconds)): workers.Opened((), "1", "CPU", 1, 1)
             for batch in (1, 2)}  # fmt: skip
    own, other = _take_turns(target, ready, duel).values()
    times = _times(own, 1)
    assert (times["repeats"] >= 100) == (times["p99_ms"] is not None) == enough
    assert times["repeats"] * milliseconds < 3_500 * duel
    assert _times(other, 2)["p99_ms"] is None
    assert "p99_ms" in COMPARED


def test_how_many_calls_a_turn_takes_for_a_p99() -> None:
    turn = Turn([20.0, 20.0], 0.1, 0.1, None)
    assert calls_for_p99([], 12, 0.1) == 0  # how long a call takes is not known yet
    assert calls_for_p99([turn], 11, 0.1) == 9  # 98 calls in 11 turns, of 180 ms each
    assert calls_for_p99([turn], 11, 0.05) == 0  # too long for a turn of 50 ms
    assert calls_for_p99([turn] * 50, 1, 0.1) == 0  # there are enough


def test_without_weights_pytorch_is_skipped_and_nothing_is_compared(files: ModelFiles) -> None:
    specs = [{"name": "pytorch", "precisions": ["fp32"]}, {"name": "onnxruntime", "precisions": ["fp32"]}]
    target = tiny(runtimes=specs, batch_sizes=[1], rounds=2, min_repeats=2, reference={"precision": "int8"})
    report = run(target, ModelFiles(files.onnx), det_input((1, 3, 128, 96)))
    assert report["skipped"] == [
        "pytorch fp32 threads=1 batch=1: PyTorch needs the weights that the model was exported from"
    ]
    (row,) = report["results"]
    assert report["reference"] is None and row["max_diff"] is None
    assert row["ratio"] is None and report["ratio"] == {}  # the reference was not measured
    assert row["p50_interval"] is None and row["p99_ms"] is None  # too few rounds and calls
    assert " - " in table(report) and picture(report)


def test_another_architecture_and_a_damaged_file_are_refused(files: ModelFiles, tmp_path: Path) -> None:
    other = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    with pytest.raises(UserError, match=f"is for Linux on {other}"):
        run(tiny(architecture=other), files, det_input((1, 3, 128, 96)))
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(files.onnx.read_bytes()[:50_000])
    with pytest.raises(UserError, match="not a complete ONNX model"):
        run(tiny(), ModelFiles(cut), det_input((1, 3, 128, 96)))


def test_a_worker_that_dies_is_named_as_the_reason(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "work", _die)
    with pytest.raises(UserError, match="onnxruntime fp32 threads=1 batch=1: its process died"):
        run(tiny(**ONNX, batch_sizes=[1]), files, det_input((1, 3, 128, 96)))


def test_a_worker_that_dies_during_the_measurement_is_named(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "work", _die_later)
    with pytest.raises(UserError, match=r"onnxruntime fp32 .*: stopped during the measurement: its process"):
        run(tiny(**ONNX, batch_sizes=[1]), files, det_input((1, 3, 128, 96)))


def _die(*_: object) -> None:
    os._exit(3)


def _die_later(pipe: Any, *_: object) -> None:
    pipe.send(workers.Opened((), "1", "CPU", 1.0, 1.0))
    os._exit(3)


def row(name: str, p50: float, **figures: float | None) -> dict[str, Any]:
    none: dict[str, Any] = dict.fromkeys(("p95_ms", "images_per_s", "file_mb", "memory_mb", "ap_loss"))
    who = {"runtime": name, "precision": "fp32", "threads": 1, "batch": 1}
    return none | who | {"p50_ms": p50} | figures


def test_a_targets_budget_is_kept_by_one_configuration_as_a_whole() -> None:
    quick = row("openvino", 1.0, memory_mb=500.0, images_per_s=900.0)
    small = row("mnn", 4.0, memory_mb=90.0, images_per_s=200.0)
    budget = Budget(memory_mb=100, images_per_s=150)
    # The quickest has too much memory, so it is the other that keeps it.
    checked = check_budgets([budget], [quick, small])
    assert [(c["by"], c["measured"], c["kept"]) for c in checked] == [
        ("mnn_fp32_threads1_batch1", 200.0, True),
        ("mnn_fp32_threads1_batch1", 90.0, True),
    ]
    # None keeps all of it: the quickest is shown, with what it does not keep.
    stricter = Budget(memory_mb=100, images_per_s=300)
    assert [(c["by"], c["kept"]) for c in check_budgets([stricter], [quick, small])] == [
        ("openvino_fp32_threads1_batch1", True),
        ("openvino_fp32_threads1_batch1", False),
    ]
    # What was not measured has not been kept.
    (lost,) = check_budgets([Budget(ap_loss=0.5)], [quick])
    assert lost["measured"] is None and not lost["kept"] and lost["by"]
    (absent,) = check_budgets([Budget(runtime="rknn", p95_ms=9)], [quick])
    assert absent["by"] is None and not absent["kept"]


def test_energy_is_counted_over_a_new_start_or_its_absence_has_a_reason(tmp_path: Path) -> None:
    counters, reason = energy_counters(tmp_path)
    if not counters:  # no GPU here
        assert reason == f"{tmp_path} has no counter of a processor, and NVML names no GPU"
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "energy_uj").write_text("900000000\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")
    (package,) = [one for one in energy_counters(tmp_path)[0] if "rapl" in one.name]  # its part is in it
    before = package.read()
    assert before == 900.0
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("950000000")
    assert package.since(before) == pytest.approx(50.0)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("20000000")
    assert package.since(before) == pytest.approx(120.0)


def test_peak_memory_is_the_kernels_or_the_systems(tmp_path: Path) -> None:
    assert 10 < peak_memory_mb() < 100_000
    assert peak_memory_mb(tmp_path / "none") == pytest.approx(peak_memory_mb(), rel=0.2)
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  2000 kB\n")
    assert peak_memory_mb(status) == pytest.approx(2.048)


def test_the_size_is_that_of_what_the_runtime_loads(tmp_path: Path) -> None:
    files = ModelFiles(tmp_path / "rtmpose.onnx", tmp_path / "rtmpose.pt")
    for name, size in {
        "rtmpose.onnx": 5, "rtmpose.pt": 6, "rtmpose.int8.onnx": 2, "rtmpose.int8.xml": 1,
        "rtmpose.int8.bin": 3, "rtmpose.mlpackage/Data/weights.bin": 4,
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size * 1_000_000))
    assert file_mb(files, "pytorch-compiled", "bf16") == 6
    assert file_mb(files, "onnxruntime", "fp32") == file_mb(files, "openvino", "bf16") == 5
    assert file_mb(files, "onnxruntime", "int8") == 2
    assert file_mb(files, "openvino", "int8") == 4
    assert file_mb(files, "coreml", "fp32") == 4


def test_the_stage_writes_its_report(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.benchmark import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    shutil.copy(files.onnx, tmp_path / "models" / "rtmpose.onnx")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    fast = {"threads": [1], "rounds": 1, "seconds": 0.001, "min_repeats": 2, "warmup": 0, "batch_sizes": [1]}
    budgets = [{"runtime": "onnxruntime", "precision": "fp32", "ap_loss": 0.1}]
    path = write(tmp_path, **(HERE | ONNX | fast | {"budgets": budgets}), name="mine")
    with pytest.raises(UserError, match="give one target"):
        main([])
    main([path])
    report = json.loads((tmp_path / "metrics" / "benchmark" / "mine.json").read_text())
    assert np.isfinite(report["results"][0]["p50_ms"]) and report["images"] == "noise"
    assert report["rival"] is None and not (tmp_path / "mlflow.db").exists()  # nor is a store made to ask it
    assert (tmp_path / "metrics" / "benchmark" / "mine.png").read_bytes().startswith(b"\x89PNG")
    printed = " ".join(capsys.readouterr().out.split())
    assert "onnxruntime fp32" in printed and "ap_loss not measured of at most 0.1" in printed
    # Accuracy comes from the stage that measured it.
    judged = {"attempts": [], "machine": {"architecture": os.uname().machine}}
    quantized = tmp_path / "metrics" / "quantize.json"
    quantized.write_text(json.dumps(judged | {"ap_loss": {"onnxruntime_fp32": 0.3}}))
    main([path])
    assert "BROKEN: onnxruntime fp32 threads=1 batch=1: ap_loss 0.3 of" in capsys.readouterr().out
    quantized.write_text(json.dumps(judged | {"ap_loss": {"onnxruntime_fp32": "x"}}))
    with pytest.raises(UserError, match=r"metrics/quantize\.json: ap_loss\.onnxruntime_fp32: "):
        main([path])
