from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rtmpose.deploy import benchmark
from rtmpose.deploy.benchmark import run, table
from rtmpose.deploy.runtimes.base import ModelFiles, Placement
from rtmpose.deploy.targets import Budget, Target, load_target
from rtmpose.files import UserError
from tests.support import ROOT, det_input


def text(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "deploy_targets" / "cpu-x86.yaml").read_text())
    return content | {"architecture": os.uname().machine} | changes


def write(folder: Path, **changes: Any) -> str:
    path = folder / "target.yaml"
    path.write_text(yaml.safe_dump(text(**changes)))
    return str(path)


@pytest.mark.parametrize("path", sorted((ROOT / "deploy_targets").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_target_reads_and_is_named_as_its_file(path: Path) -> None:
    assert load_target(path.stem).name == path.stem


def test_cpu_x86_covers_what_it_must() -> None:
    target = load_target("cpu-x86")
    assert {runtime.name for runtime in target.runtimes} == {"pytorch", "onnxruntime", "openvino"}
    assert target.batch_sizes == (1, 8) and target.threads == (1, "all")
    assert target.placements()[-1] == Placement("cpu", len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"batch_sizes": []}, "batch_sizes"),
        ({"batch_sizes": [0]}, "batch_sizes.0"),
        ({"threads": ["some"]}, "threads.0"),
        ({"threads": [0]}, "threads.0"),
        ({"seconds": 0}, "seconds"),
        ({"runtimes": [{"name": "abacus", "precisions": ["fp32"]}]}, r"runtimes.0.name"),
        ({"runtimes": [{"name": "openvino", "precisions": ["fp3"]}]}, r"runtimes.0.precisions.0"),
    ],
)
def test_a_bad_target_is_one_line(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"target\.yaml: {key}") as caught:
        load_target(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_an_unknown_target_is_one_line() -> None:
    with pytest.raises(UserError, match=r"deploy_targets/abacus\.yaml: no such file"):
        load_target("abacus")


def tiny(**changes: Any) -> Target:
    fast: dict[str, Any] = {
        "batch_sizes": [1, 2],
        "threads": [1],
        "warmup": 1,
        "rounds": 2,
        "seconds": 0.002,
        "min_repeats": 4,
    }
    return Target.model_validate(text(**(fast | changes)))


def test_a_run_measures_every_configuration(files: ModelFiles) -> None:
    budget = Budget(runtime="onnxruntime", precision="fp32", batch=1, threads=1, p50_ms=0.0001)
    specs = [{"name": "onnxruntime", "precisions": ["fp32", "bf16"]}]
    target = tiny(runtimes=specs, budgets=[budget.model_dump()])
    report = run(target, files, det_input((3, 3, 128, 96)))
    assert [(r["runtime"], r["precision"], r["threads"], r["batch"]) for r in report["results"]] == [
        ("onnxruntime", "fp32", 1, 1),
        ("onnxruntime", "fp32", 1, 2),
    ]
    for result in report["results"]:
        assert 0 < result["min_ms"] <= result["p50_ms"] <= result["p95_ms"] < 60_000
        assert result["images_per_s"] > 0 and result["repeats"] >= 4 and 0 <= result["cores_used"] < 1.5
        assert 0 < result["max_diff"] <= 1e-4 and result["keypoints_px_max"] == 0
    assert len(report["skipped"]) == 2 and all("bf16" in reason for reason in report["skipped"])
    assert report["budgets"] == [
        {
            "configuration": "onnxruntime_fp32_threads1_batch1",
            "p50_ms": 0.0001,
            "measured_ms": report["results"][0]["p50_ms"],
            "kept": False,
        }
    ]
    assert report["machine"]["cpu"] and report["machine"]["versions"]["onnxruntime"]
    assert set(report["p50_ms"]) == {f"onnxruntime_fp32_threads1_batch{batch}" for batch in (1, 2)}
    assert report["protocol"]["omp_wait_policy"] == os.environ["OMP_WAIT_POLICY"]
    json.dumps(report, allow_nan=False)
    assert "BROKEN" in table(report) and "skipped: onnxruntime bf16" in table(report)


def test_without_weights_pytorch_is_skipped_and_nothing_is_compared(files: ModelFiles) -> None:
    specs = [{"name": "pytorch", "precisions": ["fp32"]}, {"name": "onnxruntime", "precisions": ["fp32"]}]
    report = run(tiny(runtimes=specs, batch_sizes=[1]), ModelFiles(files.onnx), det_input((1, 3, 128, 96)))
    assert report["skipped"] == [
        "pytorch fp32 threads=1 batch=1: PyTorch needs the weights that the model was exported from"
    ]
    assert report["reference"] is None and report["results"][0]["max_diff"] is None
    assert " - " in table(report)


def test_another_architecture_and_a_damaged_file_are_refused(files: ModelFiles, tmp_path: Path) -> None:
    other = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
    with pytest.raises(UserError, match=f"is for {other}"):
        run(tiny(architecture=other), files, det_input((1, 3, 128, 96)))
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(files.onnx.read_bytes()[:50_000])
    with pytest.raises(UserError, match="not a complete ONNX model"):
        run(tiny(), ModelFiles(cut), det_input((1, 3, 128, 96)))


def test_a_worker_that_dies_is_named_as_the_reason(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "_work", _die)
    with pytest.raises(UserError, match="onnxruntime fp32 threads=1 batch=1: its process died"):
        run(
            tiny(runtimes=[{"name": "onnxruntime", "precisions": ["fp32"]}], batch_sizes=[1]),
            files,
            det_input((1, 3, 128, 96)),
        )


def _die(*_: object) -> None:
    os._exit(3)


def test_the_stage_writes_its_report(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.benchmark import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    shutil.copy(files.onnx, tmp_path / "models" / "rtmpose.onnx")
    fast = {"threads": [1], "rounds": 1, "seconds": 0.001, "min_repeats": 2, "warmup": 0, "batch_sizes": [1]}
    path = write(tmp_path, runtimes=[{"name": "onnxruntime", "precisions": ["fp32"]}], name="mine", **fast)
    with pytest.raises(UserError, match="give one target"):
        main([])
    main([path])
    report = json.loads((tmp_path / "metrics" / "benchmark" / "mine.json").read_text())
    assert np.isfinite(report["results"][0]["p50_ms"]) and report["images"] == "noise"
    assert "onnxruntime fp32" in capsys.readouterr().out
