"""Ray Train within Ray Tune."""

from __future__ import annotations

import pytest

from tests.search.stage import result, search
from tests.workspace import Workspace


@pytest.mark.slow
def test_a_search_of_trials_over_two_workers(prepared: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train within Ray Tune: every trial comes to its end and reports as often as on one worker."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", prepared.environment["MLFLOW_TRACKING_URI"])
    prepared.set(search__workers=2, search__trials=1, search__warmup_steps=0, search__concurrent=2)
    try:
        done = search(prepared)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        prepared.set(search__workers=1, search__trials=2, search__warmup_steps=2, search__concurrent=1)
    found = result(prepared)["trials"]
    assert [(trial["kind"], trial["seed"]) for trial in found] == [
        ("reference", 0),
        ("reference", 1),
        ("searched", 0),
    ]
    assert [[report["step"] for report in trial["reports"]] for trial in found] == [[6], [6], [2, 4, 6]]
    assert all(0 < report["error"] < 3 for trial in found for report in trial["reports"])
