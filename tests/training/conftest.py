from __future__ import annotations

from pathlib import Path

import pytest

from rtmpose.tracking import runs


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run in an MLflow store of its own, `mlflow.db` in the test's folder."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return runs.start_or_resume_run("finetune")
