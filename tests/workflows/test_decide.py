"""What was just measured decides: budgets and costs of what each target gets, beside the champion."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci import decide
from rtmpose.files import UserError
from rtmpose.tracking import runs
from tests.promotion import versions
from tests.promotion.test_gathered import row
from tests.support import ROOT
from tests.tracking.conftest import store
from tests.workflows.steps import Runner, stand_in, steps

__all__ = ["store"]
MATRIX = json.dumps([{"target": name, "runner": []} for name in ("cpu-x86", "cpu-arm64")])
KEPT: dict[str, Any] = {"latency": {"ratio": 1.0, "low": 0.98, "high": 1.02}, "memory": {"ratio": 1.0},
                        "size": {"ratio": 1.0}}  # fmt: skip
PICKED = {"precision": "int8", "files": ["rtmpose.int8.onnx"], "p99_ms": 5.0, "beside_rival": KEPT}
RIVAL = {"version": "1", "skipped": [], "runtime": "onnxruntime", "precision": "int8"}


def report(target: str, changes: dict[str, Any], **more: Any) -> None:
    """Of version 2 beside champion 1: onnxruntime's int8, which was picked, with `changes`, and an fp32 row
    that nobody gets, which is quicker and breaks everything.
    """
    refused = {"p50_ms": 0.1, "beside_rival": KEPT | {"size": {"ratio": 9.0}}, "memory_mb": 9999.0}
    rows = [
        row("onnxruntime", threads, 1, **columns)
        for threads in (1, 2)
        for columns in (refused, PICKED | changes)
    ]
    content = {
        "target": target, "machine": {"cpu": "A", "kind": "x", "cores": 2}, "results": rows, "budgets": [],
        "skipped": [], "files": versions.hashes("2"), "rival": RIVAL, "images": "8 held-out persons",
        "measured_at": (datetime.now(UTC) - timedelta(minutes=5)).replace(microsecond=0).isoformat(),
    }  # fmt: skip
    Path(f"metrics/benchmark/{target}.json").write_text(json.dumps(content | more))


@pytest.fixture(autouse=True)
def checkout(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Champion 1 and candidate 2, which both targets get in int8, measured a moment ago and as good."""
    monkeypatch.chdir(store)
    monkeypatch.setattr("rtmpose.deploy.targets.cores", lambda: 2)
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(content))
    Path("metrics/benchmark").mkdir(parents=True)
    picked = {name: {"picked": "onnxruntime_int8"} for name in ("cpu-x86", "cpu-arm64")}
    Path("metrics/pick.json").write_text(json.dumps(picked))
    for name in picked:
        report(name, {})
    run_id = versions.training_run()
    for _ in range(2):
        versions.register(run_id)
    runs.client().set_registered_model_alias(versions.NAME, "champion", "1")
    return store


def failing(matrix: str = MATRIX) -> dict[str, str]:
    """What fails, as `target gate`: found."""
    found = decide.decide(Path("metrics/benchmark"), versions.NAME, "2", decide.targets_of(matrix))
    return {
        f"{gate.target} {gate.name}".strip(): f"{gate.found} {gate.allowed}".strip()
        for gate in found
        if gate.verdict == "fails"
    }


def test_what_is_as_good_as_the_champion_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """The quicker row, which broke everything, was not picked: it decides nothing."""
    decide.main(["metrics/benchmark", versions.NAME, "2", MATRIX])
    told = capsys.readouterr().out
    assert re.search(r"^(\d\d) of \1 hold for pose version 2\.$", told, re.MULTILINE) and "|" not in told


def test_each_cost_of_the_picked_row_decides() -> None:
    for columns, name, found in (
        ({"latency": {"ratio": 2.0, "low": 1.9, "high": 2.1}}, "latency / champion", "2.10 ×"),
        ({"memory": {"ratio": 1.4}}, "memory / champion", "1.40 ×"),
        ({"size": {"ratio": 1.5}}, "size / champion", "1.50 ×"),
    ):
        report("cpu-arm64", {"beside_rival": KEPT | columns})
        (told,) = failing().items()
        assert told[0] == f"cpu-arm64 {name}" and told[1].startswith(found), told
    report("cpu-arm64", {"p95_ms": 140.0})
    assert failing() == {"cpu-arm64 budget": "any runtime threads=all batch=1: p95_ms 140.0 of 100"}
    report("cpu-arm64", {"ap_loss": 0.9})
    assert list(failing()) == ["cpu-arm64 budget"]
    report("cpu-arm64", {"ap_loss": None})
    assert failing() == {}, "a machine without images measures no AP, which the registered version has"
    report("cpu-arm64", {"keypoints_px_mean": 3.0})
    assert failing() == {"cpu-arm64 parity with PyTorch": "3.000 px ≤ 1.000 px"}
    report("cpu-arm64", {"keypoints_px_mean": 3.0}, images="noise")
    assert failing() == {}, "on noise it says nothing"


def test_what_is_not_there_decides_too() -> None:
    Path("metrics/benchmark/cpu-arm64.json").unlink()
    assert failing() == {"cpu-arm64 costs": "no report: its job failed"}
    report("cpu-arm64", {}, rival=RIVAL | {"version": "7"})
    assert list(failing()) == ["measured beside the champion"]
    report("cpu-arm64", {}, files=versions.hashes("1"))
    assert list(failing()) == ["evidence of these files"]
    report("cpu-arm64", {"precision": "fp16"})
    assert "onnxruntime_int8 was picked and is not among" in failing()["cpu-arm64 costs"]
    Path("metrics/pick.json").write_text('{"cpu-x86": {"picked": null}, "cpu-arm64": {"picked": null}}')
    assert failing() == {f"{name} picked": "nothing passed" for name in ("cpu-x86", "cpu-arm64")}
    Path("metrics/pick.json").write_text('{"cpu-x86": {"picked": "onnxruntime_int8"}}')
    assert "cpu-arm64 budget" in failing(), "a target without a pick gets its reference, here the broken row"
    for content, told in (("[]", "names no targets"), ('{"cpu-x86": {}}', "picked: Field required")):
        Path("metrics/pick.json").write_text(content)
        with pytest.raises(UserError, match=told):
            failing()
    with pytest.raises(UserError, match="is no list of targets"):
        failing("cpu-x86")


def test_the_step_fails_with_a_table(checkout: Path) -> None:
    """The shell step itself: a slower target is red, and the table of the comment says why."""
    report("cpu-arm64", {"beside_rival": KEPT | {"latency": {"ratio": 2.0, "low": 1.9, "high": 2.1}}})
    path = stand_in(checkout / "bin")
    runner = Runner(checkout, environment={"PATH": path, "PYTHONPATH": str(ROOT)})
    runner.values |= {f"secrets.MLFLOW_TRACKING_{name}": "" for name in ("USERNAME", "PASSWORD")}
    runner.values |= {
        "secrets.MLFLOW_TRACKING_URI": f"sqlite:///{checkout}/one/mlflow.db",
        "needs.plan.outputs.name": versions.NAME, "needs.plan.outputs.version": "2",
        "needs.plan.outputs.targets": MATRIX,
    }  # fmt: skip
    (step,) = (step for step in steps("benchmark.yml") if step.name == "Gates of what was just measured")
    done = runner.run(step)
    summary = (checkout / ".github_step_summary").read_text()
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "what was just measured fails latency / champion; nothing was changed" in done.stderr
    row_of_it = "| latency / champion | cpu-arm64 | 2.10 × at worst, 2.00 ×, 2.00 ms | ≤ 1.10 × |"
    assert row_of_it in summary.splitlines() and summary.count("\n| ") == 2, summary
    assert (checkout / "table.md").read_text() == summary
