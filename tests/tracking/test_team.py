"""Registering on what a team has, `mlflow server` on PostgreSQL with files in S3, and what is said when it
fails.

Passwords are planted in every place that has one. Afterwards neither the stores nor what was printed may hold
them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from pipelines.register import main
from rtmpose.files import UserError
from rtmpose.tracking import models, runs
from tests.support import ROOT
from tests.tracking.servers import ARTIFACTS, POSTGRES, mlflow_server, needs_postgres, postgres, s3
from tests.tracking.test_models import stage_files

Refusal = Callable[[Callable[[], object]], str]
pytestmark = [pytest.mark.slow, needs_postgres]

SECRETS = {
    "data base": "hush-data-base",
    "server": "hush-server",
    "S3": "hush-s3-secret",
    "variable": "hush-variable",
}


@dataclass(frozen=True)
class Team:
    """A server, the data base behind it, and the folder of a checkout in which the workflow has run."""

    url: str
    database: str
    folder: Path


@pytest.fixture(scope="module")
def team(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    stage_files(folder, model_file)
    with postgres(folder, SECRETS["data base"]) as database, s3(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["S3"])
        with mlflow_server(folder, database, ARTIFACTS) as url:
            yield Team(url, database, folder)


@pytest.fixture(autouse=True)
def member(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a member of the team, in the checkout."""
    monkeypatch.chdir(team.folder)
    monkeypatch.setenv("RTMPOSE_PLANTED_TOKEN", SECRETS["variable"])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", member_of(team.url))


def member_of(url: str) -> str:
    return url.replace("://", f"://member:{SECRETS['server']}@")


@pytest.fixture
def refusal(capfd: pytest.CaptureFixture[str]) -> Refusal:
    """The one line in which a mistake is told; nothing else is printed, and it holds no secret."""

    def told(action: Callable[[], object]) -> str:
        with pytest.raises(UserError) as caught:
            action()
        line = str(caught.value)
        assert capfd.readouterr() == ("", "") and len(line.splitlines()) == 1
        assert not [name for name, secret in SECRETS.items() if secret in line], line
        return line

    return told


def test_a_version_is_registered_and_no_secret_is_anywhere(team: Team) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.register"], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("register  rtmpose-mannequin version 1 is 'candidate'")
    receipt = json.loads(Path("metrics/register.json").read_text())
    assert receipt["tracking_uri"] == team.url and models.still_registered(receipt)
    stored = fsspec.filesystem("s3").find(ARTIFACTS)
    assert any(path.endswith("/artifacts/artifacts/rtmpose.onnx") for path in stored), stored
    dump = subprocess.run(
        [POSTGRES / "pg_dump", "--inserts", team.database], capture_output=True, text=True, check=True
    ).stdout
    assert receipt["sha256"] in dump
    places = {"stdout": done.stdout, "stderr": done.stderr, "data base": dump}
    places |= {path: fsspec.filesystem("s3").cat(path).decode(errors="replace") for path in stored}
    places |= {
        str(path): path.read_text(errors="replace")
        for path in team.folder.rglob("*")
        if path.is_file() and path.name != "postgres.password"
    }
    for name, secret in SECRETS.items():
        assert not [where for where, text in places.items() if secret in text], name
    assert [*models.version_files("rtmpose-mannequin", 1, Path("fetched"))] == ["rtmpose.onnx"]


def test_a_password_that_is_refused_is_one_line(
    team: Team, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    wrong = team.database.replace(SECRETS["data base"], SECRETS["variable"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong)
    assert "password authentication failed" in refusal(lambda: main([]))


def test_a_data_base_that_is_only_read_is_one_line(
    team: Team, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    only_read = f"{team.database}?options=-c%20default_transaction_read_only%3Don"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", only_read)
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", ARTIFACTS)
    assert "(cannot execute INSERT in a read-only transaction)" in refusal(lambda: main([]))


def test_files_that_s3_refuses_are_one_line(
    team: Team, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    """Without a server the client writes the files itself, here to a bucket that is not there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", team.database)
    store = runs.client()
    made = store.create_experiment("refused", artifact_location="s3://no-such-bucket/mlflow")
    run_id = store.create_run(made).info.run_id
    assert "NoSuchBucket" in refusal(lambda: runs.log_file(run_id, Path("params.yaml")))


def test_a_server_that_is_down_is_one_line(monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", member_of("http://127.0.0.1:9"))
    line = refusal(lambda: main([]))
    assert line.startswith("MLFLOW_TRACKING_URI: http://127.0.0.1:9 does not answer")
