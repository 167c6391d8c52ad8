"""The workflow on real photographs: shards, two epochs of training, evaluation, export and benchmark of a
small COCO.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.support import realdata
from tests.workspace import Workspace

pytestmark = pytest.mark.slow


def test_two_epochs_on_photographs(tmp_path: Path) -> None:
    raw = realdata("coco")
    before = sorted(path.name for path in raw.rglob("*"))
    workspace = Workspace(tmp_path).small()
    data = {
        "descriptor": "coco17",
        "raw": str(raw),
        "repeat": 1,
        "train": True,
        "evaluate": True,
        "render": None,
    }
    workspace.set(
        datasets={"coco17": data}, shard__tune_share=0.02, finetune__epochs=2, finetune__batch_size=64,
        finetune__evaluate_every=1, finetune__checkpoint_steps=None, finetune__log_steps=20,
        hardware__loader_workers=1, pretrain__enabled=True, pretrain__epochs=1,
        pretrain__weak_epochs=0, pretrain__evaluate_every=1,
    )  # fmt: skip
    done = workspace.run("dvc", "repro", "register", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    receipt = json.loads((tmp_path / "models/receipt.json").read_text())
    assert receipt["steps"] == 2 * -(
        -json.loads((tmp_path / "data/mix.json").read_text())["train"][0]["samples"] // 64
    )
    figures = json.loads((tmp_path / "metrics/evaluate.json").read_text())
    assert 0 <= figures["AP"] <= 1 and 0 <= figures["detector_AP"] <= 1
    parity = json.loads((tmp_path / "metrics/export.json").read_text())
    assert parity["max_diff"] < 1e-3
    timed = json.loads((tmp_path / "metrics/benchmark/cpu-x86.json").read_text())
    assert {row["runtime"] for row in timed["results"]} == {"pytorch", "onnxruntime", "openvino"}
    assert json.loads((tmp_path / "metrics/register.json").read_text())["version"] == 1
    direct = workspace.run(
        sys.executable, "-m", "pipelines.evaluate", "--raw", str(raw), "--boxes", "ground_truth"
    )
    assert direct.returncode == 0, direct.stderr
    assert json.loads(direct.stdout)["AP"] == pytest.approx(figures["AP"], abs=1e-9)
    check_what_mlflow_shows(tmp_path)
    assert sorted(path.name for path in raw.rglob("*")) == before, "raw data is read, never written"


def check_what_mlflow_shows(folder: Path) -> None:
    """Every figure to watch as a curve of both stages, the machine's load, and a picture of predictions."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        curves = {key for (key,) in database.execute("select distinct key from metrics")}
    watched = [
        "loss",
        "AP",
        "lr",
        "grad_norm",
        "samples_per_s",
        "data_wait",
        "memory_gb",
        "error",
        "mean_pose_error",
    ]
    assert {f"{stage}/{name}" for stage in ("pretrain", "finetune") for name in watched} <= curves
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= curves
    images = [path.name.partition("+")[0] for path in (folder / "mlruns").glob("*/artifacts/images/*.png")]
    assert sorted(images) == ["finetune~predictions", "pretrain~predictions"]
