from __future__ import annotations

import time
from pathlib import Path

import pytest

from rtmpose.tracking import runs
from rtmpose.training.system_metrics import INTERVAL, system_metrics
from tests.training.tracked import away, metrics


def test_system_metrics_go_on_after_a_kill(
    tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INTERVAL, "0.2")
    with system_metrics(run_id):
        time.sleep(0.7)
    before = metrics(tmp_path, "system/%")
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(before)
    assert all(len(steps) >= 2 for steps in before.values())
    time.sleep(1)
    with pytest.raises(KeyError), system_metrics(run_id):
        raise KeyError  # the last sample is taken however the run ends
    after = metrics(tmp_path, "system/%")
    for name, steps in before.items():
        assert after[name][: len(steps)] == steps and after[name][-1] > steps[-1]


def test_a_server_that_is_away_costs_points_only(
    tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INTERVAL, "0.1")
    uri = runs.tracking_uri()
    away(monkeypatch)
    start = time.monotonic()
    with system_metrics(run_id):
        time.sleep(0.4)
        assert not metrics(tmp_path, "system/%")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        time.sleep(0.8)
    assert metrics(tmp_path, "system/%") and time.monotonic() - start < 8
