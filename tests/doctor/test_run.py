"""The whole examination, slow questions answered by a table; the command, its JSON and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.config import load_params
from rtmpose.doctor import child, machine, recipe, run, runtimes, services
from rtmpose.doctor.finding import Finding, guarded, lack, note
from rtmpose.doctor.fixes import Command
from rtmpose.doctor.report import Report
from rtmpose.files import UserError
from tests.support import ROOT

WELL: dict[str, dict[str, Any]] = {
    "torch": {
        "version": "9.9",
        "build": "CUDA 13.0",
        "gpus": [],
        "why": "the driver is too old",
        "driver": "",
    },
    "module": {"version": "1.0", "details": ["CPU"]},
    "ray": {"version": "2.60.0"},
    "mlflow": {"version": "3.17", "absent": "mlflow.db"},
    "dvc": {"version": "3.67", "remote": ""},
}


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What every process would answer, to be changed by a test; the current folder is empty."""
    table = dict(WELL)
    for module in (run, runtimes, recipe):
        monkeypatch.setattr(module, "ask", lambda probe, *_, **__: table[probe])
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(services, "git", lambda: [Finding("git", "at commit 1234567")])
    monkeypatch.chdir(tmp_path)
    return table


def lacking(report: Report) -> dict[str, str]:
    return {each.what: each.fix for each in report.lacks}


def test_without_parameters_the_machine_is_looked_at(answers: dict[str, Any]) -> None:
    report = run.examine()
    assert lacking(report) == {} and not report.recipe
    found = {each.what: each.found for each in report.machine}
    assert found["GPU"] == "none: the driver is too old" and found["OpenVINO"] == "1.0 (CPU)"
    assert {"CPU", "memory", "disk", "Ray", "MLflow", "DVC", "LiteRT"} <= set(found)


def test_the_default_recipe_can_run(answers: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    report = run.examine()
    assert (lacking(report), report.recipe) == ({}, "mannequin")
    assert "data coco17" in {each.what for each in report.wanted}


@pytest.mark.parametrize(
    ("probe", "answer", "what"),
    [
        ("torch", {"error": "libtorch.so is missing"}, "PyTorch"),
        ("module", {"error": "no answer within 45 s"}, "ONNX Runtime"),
        ("ray", {"error": "ended by SIGSEGV"}, "Ray"),
        ("mlflow", {"error": "no answer within 45 s"}, "MLflow"),
        ("dvc", {"version": "3", "broken": "not a git repository"}, "DVC"),
    ],
)
def test_a_lack_of_the_machine_is_named(
    answers: dict[str, Any], probe: str, answer: dict[str, Any], what: str
) -> None:
    answers[probe] = answer
    assert lacking(run.examine())[what]


def test_addresses_that_cannot_be_used(answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    answers["ray"] = {"version": "2.60.0", "unreachable": "refused"}
    found = lacking(run.examine())
    assert "unset MLFLOW_TRACKING_URI" in found["MLflow"] and "unset RAY_ADDRESS" in found["Ray"]


def test_a_recipe_that_does_not_compose(answers: dict[str, Any], tmp_path: Path) -> None:
    report = run.examine(["recipe=coco17"])
    assert lacking(report) and "run it in the checkout" in report.lacks[0].found
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").touch()
    (tmp_path / "conf/recipe").mkdir()
    (tmp_path / "conf/recipe/birds.yaml").touch()
    answers["compose"] = {"error": "Could not find 'model/q'"}
    report = run.examine(["recipe=birds", "model=q"])
    assert report.recipe == "birds" and "recipe=birds model=q: Could not find" in report.lacks[0].found


def test_the_command_ends_by_what_is_missing(answers: dict[str, Any], tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["doctor", "--json"])
    assert ended.exit_code == 0 and json.loads(ended.stdout)["can_run"] is True
    (tmp_path / "params.yaml").write_text("recipe: mine\n")
    ended = CliRunner().invoke(app, ["doctor", "--json"])
    assert isinstance(ended.exception, UserError) and "parameters" in str(ended.exception)
    told = json.loads(ended.stdout)
    assert told["can_run"] is False and told["wanted"][0]["state"] == "lacks"


def test_targets_and_their_runtimes() -> None:
    params = load_params(ROOT / "params.yaml")
    known = [
        lack("ONNX Runtime", "not installed", "make venv"),
        note("ncnn", "not installed", "pip install x"),
    ]
    found = list(runtimes.tried_by(params, known, Command()))
    assert [(each.state, each.fix) for each in found] == [("lacks", "make venv"), ("note", "pip install x")]
    (other,) = runtimes.tried_by(params.model_copy(update={"targets": ["rk3588"]}), [], Command())
    assert other.state == "lacks" and "is for" in other.found
    assert other.fix == "dvc exp run -S 'targets=[cpu-x86]'"
    (well,) = runtimes.tried_by(params, [], Command())
    assert well.state == "ok"


def test_packages_other_than_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["numpy==0.1", "pydantic", "ray[default]==1.0", "no-such-package==3.0"]
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = {json.dumps(listed)}\n")
    assert machine.pins(tmp_path / "pyproject.toml") == {
        "numpy": "0.1",
        "ray": "1.0",
        "no-such-package": "3.0",
    }
    monkeypatch.setattr(machine, "code_root", lambda: tmp_path)
    _, missing, others = machine.python_and_packages()
    assert (missing.state, others.state) == ("lacks", "note")
    assert "no-such-package==3.0" in missing.found and "instead of 0.1" in others.found


def test_the_memory_of_a_container(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    assert machine.container_limit(limit) is None
    limit.write_text("max\n")
    assert machine.container_limit(limit) is None
    limit.write_text("4000000000\n")
    assert machine.container_limit(limit) == 4.0


def test_a_question_that_fails_is_a_line() -> None:
    (found,) = guarded("disk", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert found.state == "note" and "division by zero" in found.found


def test_own_messages_are_whole_and_those_of_other_programs_are_cut() -> None:
    assert lack("data", "word " * 200, "").found == "word " * 200
    assert len(child.shortened("word " * 200)) == child.MOST_TEXT


def test_lines_keep_commands_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    fix = f"-S datasets.own.raw=/{'long/' * 30}"
    lines = list(Report([Finding("a", "word " * 40)], "mine", [lack("data", "missing", fix)]).lines())
    assert f"→ {fix}" in lines[-1] and max(map(len, lines[:-1])) <= 80
    assert any(line.startswith("  LACKS  data") for line in lines)
