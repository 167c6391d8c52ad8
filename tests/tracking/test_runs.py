from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rtmpose.files import UserError
from rtmpose.tracking import models, runs
from rtmpose.tracking.answers import no_answer, without_password
from tests.support import ROOT


def test_an_unreachable_server_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        UserError, match=r"MLFLOW_TRACKING_URI: http://127\.0\.0\.1:9 does not answer"
    ) as caught:
        runs.start_or_resume_run("training")
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match="does not answer"):
        models.still_registered({"name": "pose", "version": 1, "sha256": ""})


def test_a_run_is_resumed_where_it_is_and_begun_anew_elsewhere(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = runs.start_or_resume_run("training", tags={"fingerprint": "f"})
    runs.end_run(run_id)
    assert runs.start_or_resume_run("training", run_id) == run_id
    assert runs.client().get_run(run_id).info.status == "RUNNING"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/two/mlflow.db")
    assert runs.start_or_resume_run("training", run_id) != run_id


def test_a_run_ends_as_its_block_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def status() -> str:
        return str(runs.client().get_run(run_id).info.status)

    run_id = runs.start_or_resume_run("training")
    with runs.finished(run_id):
        assert status() == "RUNNING"
    assert status() == "FINISHED"
    with pytest.raises(KeyboardInterrupt), runs.finished(run_id):
        raise KeyboardInterrupt
    assert status() == "FAILED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///relative.db")
    with pytest.raises(ZeroDivisionError), runs.finished(run_id):
        raise ZeroDivisionError


def test_metrics_that_a_store_does_not_take_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise MlflowException("503, try again")

    run_id = runs.start_or_resume_run("training")
    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    for log in (runs.log_metrics, runs.log_params_flat):
        with pytest.raises(UserError, match="does not answer \\(503, try again\\)"):
            log(run_id, {"AP": 0.5})


def test_parameters_metrics_and_files_are_logged(store: Path) -> None:
    run_id = runs.start_or_resume_run("training")
    runs.log_params_flat(run_id, {"optim": {"lr": 0.1}, "size": [96, 128]} | {f"p{i}": i for i in range(150)})
    runs.log_params_flat(run_id, {"optim": {"lr": 0.2, "beta": 0.9}})
    runs.log_metrics(run_id, {"AP": 0.5, "loss": {"kl": 2}, "name": "x", "bad": float("nan")}, step=3)
    (store / "table.csv").write_text("a\n1\n")
    runs.log_file(run_id, store / "table.csv", "tables")
    client = runs.client()
    data = client.get_run(run_id).data
    assert len(data.params) == 153 and data.params["optim.lr"] == "0.1" and data.params["optim.beta"] == "0.9"
    assert data.metrics == {"AP": 0.5, "loss.kl": 2.0}
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "AP")] == [(3, 0.5)]
    assert [f.path for f in client.list_artifacts(run_id, "tables")] == ["tables/table.csv"]
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        runs.log_file(run_id, store / "none.csv")


def test_relative_stores_are_refused_and_passwords_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(UserError, match="is relative"):
        runs.tracking_uri()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert runs.tracking_uri() == f"sqlite:///{ROOT}/mlflow.db"
    assert without_password("https://me:secret@host:5000/path") == "https://host:5000/path"
    for uri, shown in {
        "sqlite:////a/b.db": "sqlite:////a/b.db",
        "postgresql://:secret@host/db": "postgresql://host/db",
        "postgresql://host/db?user=me&password=secret&sslmode=require": "postgresql://host/db?user=me&sslmode=require",
    }.items():
        assert without_password(uri) == shown


def test_errors_and_parameters_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted/key")
    monkeypatch.setenv("PWD", "postgresql://host")  # the current folder is no secret
    uri = "postgresql://me:pass%2Fword@host/db"
    said = str(no_answer(uri, ValueError(f"{uri} pass/word planted/key planted%2Fkey\nmore")))
    shown = "postgresql://host/db"
    assert said == f"MLFLOW_TRACKING_URI: {shown} does not answer ({shown} *** *** ***)"
    run_id = runs.start_or_resume_run("training")
    runs.log_params_flat(run_id, {"url": "s3://key:planted@bucket/a@b", "many": ["ftp://me@host/x"]})
    logged = runs.client().get_run(run_id).data.params
    assert logged == {"url": "s3://bucket/a@b", "many": "['ftp://host/x']"}


def test_a_data_base_without_a_place_for_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rtmpose.tracking.runs import _artifacts

    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI: postgresql://h/d says not where files go"):
        _artifacts("postgresql://me:secret@h/d")
    assert _artifacts("https://host") is None and _artifacts("sqlite:////a/b.db") == "file:///a/mlruns"
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://bucket/mlflow")
    assert _artifacts("postgresql://me:secret@h/d") == "s3://bucket/mlflow"


def test_a_missing_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://me:secret@127.0.0.1:9/db")
    with pytest.raises(UserError, match=r"mysql\+pymysql://127\.0\.0\.1:9/db needs the package pymysql"):
        runs.start_or_resume_run("training")


KILLED = """
import os, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from rtmpose.tracking.runs import client

@event.listens_for(Engine, "before_cursor_execute")
def note(connection, cursor, statement, *rest):
    if "_alembic_tmp" in statement:  # in the middle of a table that is made anew
        os._exit(9)

client()
"""


def test_a_data_base_is_whole_though_its_maker_was_killed(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store / "killed/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, check=False, capture_output=True)
    assert killed.returncode == 9 and not path.exists()
    assert runs.start_or_resume_run("training") and path.exists()
