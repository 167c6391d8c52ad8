"""What tests of logging to MLflow share: a look into its data base, and a server that does not answer."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest


def metrics(folder: Path, like: str) -> dict[str, list[int]]:
    """Names of metrics and the steps they have."""
    found: dict[str, list[int]] = {}
    with sqlite3.connect(folder / "mlflow.db") as database:
        for key, step in database.execute(
            "select key, step from metrics where key like ? order by step", (like,)
        ):
            found.setdefault(key, []).append(step)
    return found


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point MLflow at a port where nobody listens."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
