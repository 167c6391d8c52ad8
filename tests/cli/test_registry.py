"""`rtmpose promote`, `rollback` and `models`, as a user sees them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rtmpose.cli.app import app
from rtmpose.files import UserError
from rtmpose.tracking import runs
from rtmpose.tracking.models import version_files
from tests.promotion.conftest import store
from tests.promotion.versions import NAME, aliases, register, training_run
from tests.support import ROOT

__all__ = ["store"]


def rtmpose(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_a_candidate_becomes_champion_and_goes(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # its thresholds
    run_id = training_run()
    register(run_id)
    looked = rtmpose("promote", NAME, "candidate", "--dry-run")
    assert looked.exit_code == 0 and "gates hold against no champion" in looked.stdout, looked.output
    assert "champion" not in aliases()
    done = rtmpose("promote", NAME, "1", "--why", "first")
    assert done.exit_code == 0 and done.stdout.splitlines()[-1] == f"champion of {NAME}: version 1"
    again = rtmpose("promote", NAME, "1")
    assert again.exit_code == 0 and "pose version 1 is the champion already" in again.stdout
    register(run_id)  # measured beside nobody
    refused = rtmpose("promote", NAME, "2")
    assert isinstance(refused.exception, UserError) and "gates fail (measured beside the champion" in str(
        refused.exception
    )
    assert rtmpose("promote", NAME, "2", "--dry-run").exit_code != 0
    register(run_id, "1")
    assert (
        rtmpose("promote", NAME, "3").stdout.splitlines()[-1]
        == f"`rtmpose rollback {NAME}` goes back to version 1"
    )
    back = rtmpose("rollback", NAME, "--why", "worse at night", "--who", "bob")
    assert back.stdout == f"champion of {NAME}: version 1 again; version 3 was rolled back\n"
    listed = rtmpose("models", "list").stdout.splitlines()
    assert [line.split() for line in listed[1:]] == [[NAME, "3", "1", "-", "3"]]
    shown = rtmpose("models", "show", NAME).stdout.splitlines()
    assert "rolled back by bob at" in shown[1] and shown[1].endswith("worse at night")
    assert shown[3].split()[:2] == ["1", "champion"] and "champion again by bob" in shown[3]
    assert "promotion.by" in rtmpose("models", "show", NAME, "champion").stdout


def test_no_advice_leads_to_a_deleted_version(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run_id = training_run()
    register(run_id)
    assert rtmpose("promote", NAME, "1").exit_code == 0
    register(run_id, "1")
    assert rtmpose("promote", NAME, "2").exit_code == 0
    runs.client().delete_model_version(NAME, "1")
    done = rtmpose("promote", NAME, "2").stdout.splitlines()
    assert done == ["pose version 2 is the champion already", f"champion of {NAME}: version 2"]
    assert rtmpose("models", "show", NAME).stdout.splitlines()[1].split()[:2] == ["2", "candidate,"]
    runs.client().delete_model_version(NAME, "2")
    told = rtmpose("models", "show", NAME).stdout.splitlines()[-1]
    assert told == (
        "version 2, the champion, was deleted: none before it is left: "
        f"`rtmpose promote {NAME} VERSION --no-champion`"
    )


def test_a_question_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "none/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}")
    monkeypatch.chdir(tmp_path)
    assert rtmpose("models", "list").stdout.split() == [
        "model",
        "versions",
        "champion",
        "previous",
        "candidate",
    ]
    for words in (
        ["models", "show", NAME],
        ["models", "show", NAME, "1"],
        ["report", f"models:/{NAME}@champion"],
        ["promote", NAME, "1", "--params", str(ROOT / "params.yaml")],
        ["rollback", NAME],
    ):
        assert "no such registered model: there is no store at" in str(rtmpose(*words).exception), words
    with pytest.raises(UserError, match="there is no store at"):
        version_files(NAME, 1, tmp_path)
    assert "MLflow has no such run" in str(rtmpose("report", "0" * 32).exception)
    assert not place.parent.exists()
