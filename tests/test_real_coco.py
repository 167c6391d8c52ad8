"""The workflow on real photographs: shards, pretraining, two epochs of finetuning, evaluation and export of a
small COCO. `tests/docs/test_tutorial.py` goes on from there to a registered model.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from rtmpose.config import load_params
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.precision import choose_here
from tests.support import realdata
from tests.workspace import Workspace

pytestmark = pytest.mark.slow


IMAGES = {"train": 80, "val": 24}  # of each split: what is tested takes no longer with more


def some_of(coco: Path, folder: Path) -> Path:
    """A raw folder with the first images of a small COCO that show a person, and what is known of them."""
    for split, count in IMAGES.items():
        path = Path(f"annotations/person_keypoints_{split}2017.json")
        content = json.loads((coco / path).read_text())
        shown = {one["image_id"] for one in content["annotations"] if one["num_keypoints"]}
        content["images"] = [image for image in content["images"] if image["id"] in shown][:count]
        kept = {image["id"]: image["file_name"] for image in content["images"]}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content))
        (folder / f"{split}2017").mkdir()
        for name in kept.values():
            shutil.copy(coco / f"{split}2017" / name, folder / f"{split}2017" / name)
    path = Path("person_detection_results/COCO_val2017_detections_AP_H_56_person.json")
    boxes = [box for box in json.loads((coco / path).read_text()) if box["image_id"] in kept]
    (folder / path).parent.mkdir()
    (folder / path).write_text(json.dumps(boxes))
    return folder


def test_two_epochs_on_photographs(tmp_path: Path) -> None:
    raw = some_of(realdata("coco"), tmp_path / "coco")
    before = sorted(path.name for path in raw.rglob("*"))
    workspace = Workspace(tmp_path / "work").small()
    folder = workspace.folder
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
        finetune__evaluate_every=1, finetune__checkpoint_steps=None, finetune__log_steps=5,
        hardware__loader_workers=1, pretrain__enabled=True, pretrain__epochs=1,
        pretrain__weak_epochs=0, pretrain__evaluate_every=1,
    )  # fmt: skip
    done = workspace.run("dvc", "repro", "export", timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    receipt = json.loads((folder / "models/receipt.json").read_text())
    assert receipt["steps"] == 2 * -(
        -json.loads((folder / "data/mix.json").read_text())["train"][0]["samples"] // 64
    )
    figures = json.loads((folder / "metrics/evaluate.json").read_text())
    assert 0 <= figures["AP"] <= 1 and 0 <= figures["detector_AP"] <= 1 and figures["keypoint_error"] > 0
    shown = workspace.run("dvc", "metrics", "show")
    assert len(shown.stdout.splitlines()) == 2 and not shown.stderr, "one row, and nothing that DVC misses"
    drawn = workspace.run("dvc", "plots", "show")
    assert drawn.returncode == 0 and (folder / "dvc_plots/index.html").is_file(), drawn.stderr
    parity = json.loads((folder / "metrics/export.json").read_text())
    assert parity["max_diff"] < 1e-3
    direct = workspace.run(
        sys.executable, "-m", "pipelines.evaluate", "--raw", str(raw), "--boxes", "ground_truth"
    )
    assert direct.returncode == 0, direct.stderr
    assert json.loads(direct.stdout)["AP"] == pytest.approx(figures["AP"], abs=1e-9)
    check_what_mlflow_shows(folder)
    check_what_precision_is_said(folder, done.stdout, receipt)
    assert sorted(path.name for path in raw.rglob("*")) == before, "raw data is read, never written"


def check_what_precision_is_said(folder: Path, said: str, receipt: dict[str, Any]) -> None:
    """What `auto` became on this machine: in each stage's first line, the receipts, the exported file's card
    and MLflow's runs.
    """
    here = choose_here(load_params(folder / "params.yaml"), on_gpu=False)
    for stage in ("pretrain", "finetune"):
        (first, *_) = (line for line in said.splitlines() if line.startswith(stage))
        assert first == f"{stage:9} {here.line}"
    assert receipt["precision"] == here.precision and receipt["precision_asked"] == "auto"
    assert read_card(folder / "models/rtmpose.onnx").training_precision == here.precision
    with sqlite3.connect(folder / "mlflow.db") as database:
        runs = {row[0] for row in database.execute("select value from tags where key = 'precision'")}
        params = {row[0] for row in database.execute("select value from params where key = 'precision'")}
    assert runs == params == {here.precision}


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
