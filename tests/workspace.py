"""A small copy of the checkout in which the real workflow runs in seconds: few images, few steps, no cache of
ours touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

COPIED = (
    "rtmpose",
    "pipelines",
    "datasets",
    "deploy_targets",
    "dvc.yaml",
    ".dvcignore",
    "params.yaml",
    "pyproject.toml",
)
NOT_A_USERS = ("MLFLOW_", "RAY_", "PYTHONDONTWRITEBYTECODE")


class Workspace:
    """A folder with the workflow in it; `run` starts a command there as a user would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                # with its bytecode, but for files that another process is just writing
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
            else:
                shutil.copy(source, folder / name)
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(NOT_A_USERS)
        } | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
            "DVC_NO_ANALYTICS": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",  # several workspaces are at work at once
        }

    def set(self, **changes: Any) -> None:
        """Change `params.yaml`: keys are dotted paths with `__` for the dots."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *parents, last = key.split("__")
            group = params
            for parent in parents:
                group = group[parent]
            group[last] = value
        path.write_text(yaml.safe_dump(params))

    def small(self) -> Workspace:
        """One small rendered data set, no search, no pretraining, a handful of finetuning steps, a short
        benchmark.
        """
        target = self.folder / "deploy_targets/cpu-x86.yaml"
        content = yaml.safe_load(target.read_text())
        content["budgets"] = [budget for budget in content["budgets"] if budget["threads"] == 1]
        content |= {
            "batch_sizes": [1],
            "threads": [1],
            "warmup": 1,
            "rounds": 1,
            "seconds": 0.02,
            "min_repeats": 2,
            "runtimes": [
                {"name": "pytorch", "precisions": ["fp32"]},
                {"name": "onnxruntime", "precisions": ["fp32", "int8"]},
                {"name": "openvino", "precisions": ["fp32", "int8"]},
            ],
        }
        target.write_text(yaml.safe_dump(content))
        render = {"level": "easy", "images": {"train": 40, "val": 8}, "size": [160, 120], "seed": 3}
        raw = {"descriptor": "coco17", "raw": "data/mannequins/coco17", "render": render}
        data = raw | {"repeat": 1, "train": True, "evaluate": True}
        self.set(
            datasets={"coco17": data}, shard__tune_share=0.2, pretrain__enabled=False, search__enabled=False,
            finetune__epochs=6, finetune__weak_epochs=1, finetune__batch_size=8, finetune__checkpoint_steps=3,
            finetune__log_steps=1, finetune__evaluate_every=3, hardware__loader_workers=0,
            hardware__cpus_per_worker=1,
            quantize__crops=32, quantize__probe_crops=4, quantize__sensitivity_seconds=0,
            promotion__min_ap=0.0, promotion__slice_floors={},
        )  # fmt: skip
        return self

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, *command: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def stage(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m pipelines.NAME …`, as DVC would start it."""
        return self.run(sys.executable, "-m", f"pipelines.{name}", *arguments)
