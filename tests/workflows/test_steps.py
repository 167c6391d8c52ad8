"""Each step's program: what it gives, and what it says when something is missing."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci import fetch, history, report, targets
from rtmpose.config import load_params
from rtmpose.files import UserError, sha256_of
from rtmpose.tracking import models, runs
from tests.support import ROOT
from tests.tracking.conftest import model_file, store
from tests.tracking.test_models import PROGRAM
from tests.workflows.steps import GH, PYTHON, Runner, Step, stand_in, steps

__all__ = ["model_file", "store"]
ROW = {
    "runtime": "onnxruntime", "precision": "fp32", "threads": 1, "batch": 1, "p50_ms": 4.25,
    "images_per_s": 235.3, "memory_mb": 120.4,
    "beside_rival": {"latency": {"ratio": 1.5, "low": 1.4, "high": 1.6}},
}  # fmt: skip
REPORT: dict[str, Any] = {
    "target": "cpu-x86",
    "machine": {"cpu": "A CPU | of some kind", "cores": 2},
    "results": [
        ROW | {"batch": 8, "p50_ms": 1.0, "beside_rival": None},
        ROW | {"precision": "int8", "p50_ms": 5.0},
        ROW,
    ],
    "budgets": [{"budget": "any runtime", "key": "p95_ms", "limit": 3, "kept": False}],
    "skipped": ["mnn: is not installed"],
}
PICK = {"cpu-x86": {"picked": "onnxruntime_int8", "for": {}}}  # which is not the quickest


@pytest.fixture(autouse=True)
def checkout(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the parameters and the reports of one target, which this process is in."""
    monkeypatch.chdir(store)
    (store / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (store / "metrics/benchmark").mkdir(parents=True)
    (store / "metrics/benchmark/cpu-x86.json").write_text(json.dumps(REPORT))
    (store / "metrics/pick.json").write_text(json.dumps(PICK))
    return store


def test_the_matrix_is_what_the_targets_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "deploy_targets").glob("*.yaml")}
    everything = {entry["target"]: entry for entry in targets.matrix("all")}
    assert {name: entry["runner"] for name, entry in everything.items()} == {
        name: content["runner"] for name, content in files.items()
    }
    hosted = [entry["target"] for entry in targets.matrix("hosted")]
    assert hosted == sorted(name for name, content in files.items() if "self-hosted" not in content["runner"])
    projects = {name: entry["project"] for name, entry in everything.items()}
    assert projects["cpu-x86"] == ".[mnn,ncnn]" and projects["gpu-nvidia"] == ".[gpu,tensorrt]"
    assert projects["jetson"] == ".", "pip takes no empty list of extras, and JetPack has its own TensorRT"
    apart = {name: entry["apart"] for name, entry in everything.items() if entry["apart"]}
    assert apart == {"android": "executorch litert", "rk3588": "rknn", "rpi5": "executorch litert"}
    assert [name for name, entry in everything.items() if entry["onnxruntime_gpu"]] == ["gpu-nvidia"]
    assert targets.matrix("jetson, cpu-x86") == [everything["jetson"], everything["cpu-x86"]]
    for wanted, reason in (
        ("", "names no target"),
        ("no-such", "no such file"),
        ("../x", "no name of a file"),
    ):
        with pytest.raises(UserError, match=reason):
            targets.matrix(wanted)


def table(**picked: str | None) -> list[str]:
    found = {name.replace("_", "-"): value for name, value in picked.items()}
    return report.markdown(report.reports(Path("metrics/benchmark")), found).splitlines()


def test_the_table_shows_the_picked_and_everything() -> None:
    lines = table(cpu_x86="onnxruntime_int8")
    start = "| cpu-x86 | A CPU / of some kind, 2 cores |"
    assert lines[4] == f"{start} onnxruntime int8 | 5.00 | 1.500× [1.400, 1.600] | 1 of 1 broken |"
    assert table(cpu_x86=None)[4] == f"{start} nothing passed | – | – | 1 of 1 broken |"
    assert table(cpu_x86="mnn_fp16")[4] == f"{start} mnn_fp16: not measured | – | – | 1 of 1 broken |"
    assert table()[4].startswith(f"{start} onnxruntime fp32 | 4.25 |"), "not known then: its reference"
    rows = [line for line in lines if line.startswith("| onnxruntime")]
    assert rows == [
        "| onnxruntime fp32 | 1 | 1 | 4.25 | 235.3 | 120 | 1.500× [1.400, 1.600] |",
        "| onnxruntime int8 | 1 | 1 | 5.00 | 235.3 | 120 | 1.500× [1.400, 1.600] |",
        "| onnxruntime fp32 | 1 | 8 | 1.00 | 235.3 | 120 | – |",
    ]
    assert "- broken: any runtime: p95_ms at 3" in lines and "- skipped: mnn: is not installed" in lines
    Path("metrics/benchmark/cpu-x86.json").write_text("{}")
    with pytest.raises(UserError, match=r"cpu-x86\.json"):
        report.reports(Path("metrics/benchmark"))
    with pytest.raises(UserError, match="holds no report of a target"):
        report.reports(Path("metrics/none"))


def test_the_history_grows_by_a_line_and_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("41", "42"):
        monkeypatch.setenv("GITHUB_RUN_NUMBER", number)
        history.main(["metrics/benchmark", "7"])
    run_id = history.run_of_history()
    kept = [Path(file.path).name for file in runs.client().list_artifacts(run_id, "history")]
    assert [name.rpartition("-")[2] for name in kept] == ["41.jsonl", "42.jsonl"]
    assert runs.logged_steps(run_id, "cpu-x86.p50_ms") == {41, 42}
    found, when = report.reports(Path("metrics/benchmark")), datetime(2026, 1, 2, tzinfo=UTC)
    assert history.line_of(found, {"cpu-x86": None}, "7", when)["targets"]["cpu-x86"] == {
        "configuration": None, "p50_ms": None, "champion_ratio": None, "cpu": "A CPU | of some kind",
    }  # fmt: skip
    line = history.line_of(found, {"cpu-x86": "onnxruntime_int8"}, "7", when)
    assert line | {"commit": ""} == {
        "time": "2026-01-02T00:00:00+00:00", "version": "7", "commit": "",
        "targets": {"cpu-x86": {"configuration": "onnxruntime_int8_threads1", "p50_ms": 5.0,
                                "champion_ratio": 1.5, "cpu": "A CPU | of some kind"}},
    }  # fmt: skip


def test_the_candidate_is_fetched_to_be_measured(
    checkout: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="has no 'candidate'; run the stage register first"):
        fetch.main([])
    run_id = runs.start_or_resume_run("training")
    (checkout / "quantize.json").write_text('{"ap_loss": {}}')
    runs.log_file(run_id, checkout / "quantize.json", "metrics")
    models.register(
        [model_file],
        program=PROGRAM,
        name="rtmpose-mannequin",
        run_id=run_id,
        tags={},
        requirements=["numpy"],
    )
    capsys.readouterr()
    fetch.main([])
    assert capsys.readouterr().out == "name=rtmpose-mannequin\nversion=1\n"
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    asked = params | {"promotion": params["promotion"] | {"targets": ["cpu-x86"], "min_ap": 61.0}}
    Path("params.yaml").write_text(yaml.safe_dump(asked))
    fetch.main(["cpu-arm64", "1"])
    assert sha256_of("models/rtmpose.onnx") == sha256_of(model_file)
    for arguments in ([], ["1"]):  # as `fetch` left it, and by itself
        if arguments:
            Path("metrics/quantize.json").unlink()
            fetch.main(arguments)
        assert json.loads(Path("metrics/quantize.json").read_text()) == {"ap_loss": {}}
    found = load_params()
    assert (found.targets, found.promotion.targets, found.promotion.min_ap) == (["cpu-arm64"], None, 61.0)
    rest = yaml.safe_load(Path("params.yaml").read_text()) | {"targets": params["targets"]}
    assert rest == params | {"promotion": params["promotion"] | {"min_ap": 61.0}}
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI: is not set; make it a secret"):
        fetch.main([])


@pytest.fixture
def runner(checkout: Path) -> Runner:
    path = stand_in(checkout / "bin", python3=PYTHON, gh=GH)
    made = Runner(checkout, environment={"PATH": path, "PYTHONPATH": str(ROOT), "GITHUB_SHA": "0ab"})
    (checkout / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return made


def named(start: str) -> list[Step]:
    return [step for step in steps("benchmark.yml") if step.name.startswith(start)]


def test_the_product_is_installed_with_its_own_pins(runner: Runner) -> None:
    runner.values |= {"matrix.project": ".[mnn,ncnn]", "matrix.target": "cpu-x86"}
    for step in named("Install"):
        done = runner.run(step)
        torch, product = done.stdout.splitlines()
        assert done.returncode == 0 and torch.startswith("pip install --quiet torch==2."), done.stderr
        assert product.startswith("pip install --quiet --editable .")
        assert ("mnn,ncnn" in product) == (step.job == "measure")


def test_a_gpu_gets_onnx_runtime_s_build_for_it(runner: Runner) -> None:
    runner.values["matrix.target"] = "gpu-nvidia"
    stand_in(runner.folder / ".venv/bin", pip='#!/bin/sh\necho "pip $*"\n')
    (step,) = named("Put ONNX Runtime's build for GPUs")
    removed, installed = runner.run(step).stdout.splitlines()
    assert removed == "pip uninstall --quiet --yes onnxruntime"
    (pinned,) = re.findall(r'"onnxruntime==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert installed == f"pip install --quiet onnxruntime-gpu=={pinned}"


def test_runtimes_apart_are_set_up_and_stay(runner: Runner) -> None:
    """One that cannot be is a warning: the other runtimes are measured all the same."""
    program = """#!/bin/sh
        [ "$2" != litert ] && touch ".runtimes/$2"
    """
    runner.environment["PATH"] = stand_in(runner.folder / "programs", rtmpose=program)
    runner.environment["RUNNER_TOOL_CACHE"] = str(runner.folder / "tools")
    runner.values |= {"matrix.apart": "executorch litert rknn", "matrix.target": "rpi5"}
    (step,) = named("Set up the runtimes")
    for _ in range(2):  # the checkout is cleaned in between, the tool cache is not
        done = runner.run(step)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "::warning::rpi5: litert could not be set up, and is skipped\n"
        assert {path.name for path in (runner.folder / "tools").rglob("*")} == {
            "rtmpose-runtimes", "executorch", "rknn",
        }  # fmt: skip
        (runner.folder / ".runtimes").unlink()


def test_the_table_becomes_the_summary_and_a_comment(runner: Runner) -> None:
    (table,), (comment,) = named("Table"), named("Comment")
    assert runner.run(table).returncode == 0
    summary = (runner.folder / ".github_step_summary").read_text()
    assert summary == (runner.folder / "table.md").read_text() and "cpu-x86" in summary
    runner.values |= {"github.token": "t", "github.repository": "o/r"}
    for pull, said in (("", "gh api --silent repos/o/r/commits/0ab/comments "), ("7", "gh pr comment 7 ")):
        runner.values["github.event.pull_request.number"] = pull
        assert runner.run(comment).stdout.startswith(said)
    (runner.folder / "metrics/benchmark/cpu-x86.json").unlink()
    assert runner.run(table).returncode != 0, "a failure before the pipe has to end the step"
