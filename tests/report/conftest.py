"""A small run's files, written by hand: nothing is trained."""

from __future__ import annotations

import base64
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.evaluation.mistakes.kinds import ERRORS, KINDS
from rtmpose.report.folder import Folder
from tests.support import ROOT

HOSTILE = "<img src=x onerror=alert(1)>&\"'"
JPEG = base64.b64encode(
    cv2.imencode(".jpg", np.full((50, 102, 3), 90, np.uint8))[1].tobytes()
).decode()  # fmt: skip
FIGURE = {"value": 61.3, "low": 59.4, "high": 63.7}
SHA = "ab" * 32


def attempt(runtime: str, precision: str, ms: float | None, *refused: str) -> dict[str, Any]:
    difference = {"value": -0.1, "low": -0.4, "high": 0.2}
    sets = {"coco17": {"images": 8, "ap": FIGURE, "difference": difference}} if ms is not None else {}
    latency = None if ms is None else {"p50_ms": ms, "p95_ms": 2 * ms, "p99_ms": None}
    return {
        "runtime": runtime, "precision": precision, "device": "cpu", "recipe": "as exported",
        "megabytes": 6.0, "sets": sets, "precisions": None, "latency": latency, "refused": list(refused),
    }  # fmt: skip


def mistakes(names: tuple[str, ...]) -> dict[str, Any]:
    row = dict.fromkeys(KINDS, 2) | {"good": 12}
    one = {
        "AP": {"value": 0.638, "low": 0.615, "high": 0.658}, "persons": 20, "without_prediction": 1,
        "points": {kind: count * len(names) for kind, count in row.items()},
        "keypoints": dict.fromkeys(names, row),
        "mended": dict(zip((*ERRORS, "all"), (0.7, 0.66, 0.64, 0.8, 0.99), strict=True)),
    }  # fmt: skip
    worst = {
        "dataset": "coco17", "image": "7", "person": HOSTILE, "oks": 0.1, "kinds": row, "jpeg": JPEG,
    }  # fmt: skip
    return {"sets": {"coco17": one}, "worst": [worst] * 3}


def receipt(stage: str) -> dict[str, Any]:
    return {
        "stage": stage, "sha256": SHA, "run_id": "0" * 32, "steps": 784, "samples": 50176, "best_AP": 0.6,
        "best_epoch": 7, "tau": 0.1, "sigma": [3.4, 4.0], "precision": "fp32", "devices": ["a CPU"],
        "data": [
            {"name": "coco17", "sha256": SHA, "licence": "rendered here", "use": "training"},
            {"name": "old.pt", "sha256": "cd" * 32, "licence": "not known", "use": "initial weights"},
        ],
    }  # fmt: skip


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_rows(path: Path, head: str, *rows: tuple[object, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head.split(), *rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run of the default recipe; one point and one person have names that are markup."""
    root = tmp_path / "run"
    root.mkdir()
    shutil.copy(ROOT / "params.yaml", root / "params.yaml")
    shown = {"dataset": "coco17", "dir": "x", "skeleton": "coco17", "samples": 4048, "manifest_sha256": SHA}
    mix = {"train": [shown | {"repeat": 3, "licence": "rendered here"}], "tune": [shown], "val": [shown]}
    write(root / "data/mix.json", mix)
    for name in ("pretrain", "receipt"):
        write(root / f"models/{name}.json", receipt(name))
    write(root / "models/search.json", {"chosen": {"finetune.tau": 0.12}, "note": None})
    for name in ("pretrain", "finetune"):
        steps = [(10 * k, 0.05 / k, 0.001 * k) for k in range(1, 30)]
        write_rows(root / f"metrics/{name}.csv", "step loss lr", *steps)
    write_rows(root / "metrics/finetune_ap.csv", "step AP", (10, 0.3), (20, 0.6))
    figures = dict.fromkeys(("AP50", "AP75", "APM", "APL", "AR"), 0.7)
    write(root / "metrics/evaluate.json", figures | {"AP": 0.638, "persons": 21, "detector_AP": 0.55})
    write_rows(root / "metrics/per_keypoint.csv", "keypoint count median_error pck oks",
               (HOSTILE, 20, 0.04, 0.9, 0.7), ("left_eye", 20, "", "", ""))  # fmt: skip
    confidence = {"tested_on": 900, "calibration_error_before": 0.17, "calibration_error": 0.027}
    exported = {"exported_at": "2026-11-28T05:48:57+00:00", "megabytes": 12.9, "confidence": confidence}
    write(root / "metrics/export.json", exported)
    write_rows(root / "metrics/confidence.csv", "low high count probability right",
               (0.1, 0.2, 40, 0.15, 0.12), (0.8, 0.9, 300, 0.85, 0.86))  # fmt: skip
    tried = [attempt("onnxruntime", "fp32", 2.1), attempt("onnxruntime", "int8", 1.8),
             attempt("openvino", "int8", 1.9, "may lose 0.5"),
             attempt("pytorch", "bf16", None, "no bf16")]  # fmt: skip
    write(root / "metrics/pick.json", {"cpu-x86": {"picked": "onnxruntime_int8", "attempts": tried}})
    write(root / "reports/mistakes.json", mistakes(("nose", HOSTILE)))
    return root


@pytest.fixture
def run(folder: Path) -> Folder:
    return Folder(folder, f"a run {HOSTILE}", "ab12" * 10, ROOT / "conf")
