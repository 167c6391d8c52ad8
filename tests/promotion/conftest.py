"""An empty MLflow store for tests that ask for one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tracking.conftest import empty_store

__all__ = ["empty_store"]


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path
