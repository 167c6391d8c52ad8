"""Reports reach MLflow once each, whatever was killed; a job's result is handed over; a lost MLflow id is in
the checkpoint.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

from rtmpose.cluster.submit import point_to, run_of
from rtmpose.config import Params, load_params
from rtmpose.data.stream.mix import Mix
from rtmpose.files import UserError, sha256_of
from rtmpose.models import build_pose_net
from rtmpose.tracking import runs
from rtmpose.training import launch
from rtmpose.training import reporter as reports
from rtmpose.training.checkpoint import Store, Superseded, read_log
from rtmpose.training.job import Job, build_task, finetune_init
from rtmpose.training.reporter import Reporter
from tests.support import ROOT


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return runs.start_or_resume_run("finetune")


def line(step: int, **more: float) -> dict[str, Any]:
    return {"step": step, "steps": 9, "lr": 0.1 / step, "loss": 1.0 / step, **more}


def in_mlflow(folder: Path, key: str) -> list[tuple[int, float]]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute("select step, value from metrics where key = ? order by step", (key,))
        return [(step, value) for step, value in rows]


def test_each_report_is_logged_once_whatever_was_killed(tmp_path: Path, run_id: str) -> None:
    first = Store.open(tmp_path, "run", fresh=False)
    report = Reporter("finetune", run_id, first)
    report(line(1))
    report(line(2))
    report({"step": 2, "AP": 0.5})
    runs.log_metrics(
        run_id, {"finetune/lr": 0.1 / 3, "finetune/loss": 1 / 3}, step=3
    )  # killed before it was in the log
    first.append_log(line(4))  # written while MLflow did not answer, and killed then
    second = Store.open(tmp_path, "run", fresh=False)
    with pytest.raises(Superseded):
        report(line(5))
    report = Reporter("finetune", run_id, second)
    for step in (2, 3, 4, 5):  # on from a checkpoint at step 1
        report(line(step))
    assert in_mlflow(tmp_path, "finetune/loss") == [(step, 1.0 / step) for step in (1, 2, 3, 4, 5)]
    assert in_mlflow(tmp_path, "finetune/AP") == [(2, 0.5)]
    assert [entry["step"] for entry in read_log(second.folder)] == [1, 2, 2, 3, 4, 5]


def test_reports_wait_for_a_server_that_does_not_answer(
    tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Reporter("finetune", run_id, Store.open(tmp_path, "run", fresh=False))
    uri = runs.tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(reports, "RETRY_AFTER", 60.0)
    report(line(1))
    assert (
        "warning: step 1: MLFLOW_TRACKING_URI: http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    )
    assert "does not answer" in (report.store.folder / "warnings.txt").read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    report(line(2))
    assert not in_mlflow(tmp_path, "finetune/loss")  # it is not asked again at once
    report.next_try = 0.0
    report(line(3))
    assert [step for step, _ in in_mlflow(tmp_path, "finetune/loss")] == [1, 2, 3]


def test_result_of_a_job_is_handed_over_from_the_shared_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, weights, receipt = (
        tmp_path / "runs/finetune-abc",
        tmp_path / "models/w.pt",
        tmp_path / "models/r.json",
    )
    asked: list[tuple[str, str, str, bool]] = []
    monkeypatch.setattr(
        launch, "run_job", lambda stage, server, run, *, fresh: asked.append((stage, server, run, fresh))
    )
    with pytest.raises(
        UserError, match=r"hardware\.storage: the job has ended, but .* holds no finished run here"
    ):
        launch.run_elsewhere("finetune", "http://head", folder, False, weights, receipt)
    store = Store.open(folder.parent, folder.name, fresh=False)
    store.save_best({"w": torch.ones(2)})
    store.finish({"sha256": sha256_of(folder / "best.pt"), "steps": 7})
    assert launch.run_elsewhere("finetune", "http://head", folder, False, weights, receipt)["steps"] == 7
    assert (
        weights.read_bytes() == (folder / "best.pt").read_bytes()
        and json.loads(receipt.read_text())["steps"] == 7
    )
    launch.run_elsewhere("finetune", "http://head", folder, True, weights, receipt)
    assert asked == [("finetune", "http://head", "finetune-abc", fresh) for fresh in (False, True)]
    store.save({"step": 1})  # the submitter has not taken the job's store over


def test_a_job_says_which_run_it_made_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The submitter knows `precision: auto` only, the job what its machines have."""
    task, run = tmp_path / "finetune-abc", tmp_path / "finetune-def"
    point_to(task, run)
    assert run_of(task) == task and not list(tmp_path.iterdir()), "outside of a job both are known"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    point_to(task, task)
    assert run_of(task) == task
    point_to(task, run)
    assert run_of(task) == run and run_of(run) == run
    store = Store.open(tmp_path, run.name, fresh=False)
    store.save_best({"w": torch.ones(2)})
    store.finish({"sha256": sha256_of(run / "best.pt"), "steps": 9})
    files = (tmp_path / "models/w.pt", tmp_path / "models/r.json")
    assert launch.run_elsewhere("finetune", "http://head", task, False, *files)["steps"] == 9


def job(tmp_path: Path, params: Params, init: Path) -> Job:
    mix = Mix((), tmp_path, {})
    return Job("finetune", params, "fp32", mix, tmp_path, "", "", "", init, 0.1, None)


def test_finetuning_starts_from_a_backbone_or_from_a_whole_network(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    torch.manual_seed(1)
    given = build_pose_net("t", input_size=params.input_size).state_dict()
    path = tmp_path / "given.pt"
    torch.save(given, path)
    assert finetune_init(params, tmp_path) == tmp_path
    whole = params.model_copy(update={"finetune": params.finetune.model_copy(update={"init": str(path)})})
    assert finetune_init(whole, tmp_path) == path
    lost = params.model_copy(update={"finetune": params.finetune.model_copy(update={"init": "no/such.pt"})})
    with pytest.raises(UserError, match=r"^params.yaml: finetune.init: [^\n]*no/such.pt is missing"):
        finetune_init(lost, tmp_path)
    backbone, all_of_it = (
        build_task(job(tmp_path, each, path)).model.state_dict() for each in (params, whole)
    )
    assert all(torch.equal(value, all_of_it[key]) for key, value in given.items())
    same = {
        key.partition(".")[0]
        for key, value in given.items()
        if "weight" in key and torch.equal(value, backbone[key])
    }
    assert "backbone" in same and not torch.equal(given["head.cls_x.weight"], backbone["head.cls_x.weight"])
