"""A checkout in which no stage has run, and an MLflow with a champion and a candidate of a small model."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtmpose.deploy.export import export_onnx
from rtmpose.tracking import models, runs
from tests.deploy.support import SIZE, card, formula_net, save_weights
from tests.support import ROOT
from tests.workspace import Workspace

PROGRAM = ROOT / "rtmpose/inference/served_program.py"
COPIES = (
    "rtmpose.fp16.onnx",
    "rtmpose.e2e.onnx",
    "rtmpose.int8.onnx",
    "rtmpose.int8.xml",
    "rtmpose.int8.bin",
)
NAME = "rtmpose-mannequin"
METRICS: dict[str, Any] = {
    "quantize.json": {"ap_loss": {}, "attempts": [], "machine": {"architecture": platform.machine()}},
    "pick.json": {"cpu-x86": {"picked": "onnxruntime_fp32", "for": {}, "attempts": []}},
}


def prepare(folder: Path) -> Workspace:
    """The checkout in `folder`/checkout; its target cpu-x86 measures one runtime for moments."""
    (folder / "checkout").mkdir()
    workspace = Workspace(folder / "checkout").small()
    shutil.copytree(ROOT / "ci", workspace.folder / "ci", ignore=shutil.ignore_patterns("__pycache__"))
    target = workspace.folder / "deploy_targets/cpu-x86.yaml"
    content = yaml.safe_load(target.read_text())
    content["runtimes"], content["budgets"] = [{"name": "onnxruntime", "precisions": ["fp32"]}], []
    target.write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", workspace.environment["MLFLOW_TRACKING_URI"])
        register(folder / "models")
    return workspace


def register(folder: Path) -> None:
    """Two versions of the same files: the champion and the candidate."""
    onnx = export_onnx(formula_net(), SIZE, folder / "rtmpose.onnx", card=card())
    files = [onnx, save_weights(folder), *(Path(shutil.copy(onnx, folder / name)) for name in COPIES)]
    run_id = runs.start_or_resume_run("training")
    for name, content in METRICS.items():
        path = folder / name
        path.write_text(json.dumps(content))
        runs.log_file(run_id, path, "metrics")
    for _ in range(2):
        receipt = models.register(
            files, program=PROGRAM, name=NAME, run_id=run_id, tags={}, requirements=["onnxruntime==1.31.1"]
        )
    runs.end_run(run_id)
    runs.client().set_registered_model_alias(NAME, "champion", str(receipt["version"] - 1))
