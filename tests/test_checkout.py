from __future__ import annotations

from pathlib import Path

import pytest

from rtmpose import checkout
from rtmpose.checkout import JOB_HOME, code_root, home, shared
from rtmpose.files import UserError
from rtmpose.tracking.runs import tracking_uri


def test_an_experiments_copy_stands_for_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "checkout/.dvc/tmp/exps/tmpabc/inner"
    copy.mkdir(parents=True)
    (copy.parent / "pyproject.toml").touch()
    monkeypatch.chdir(copy)
    assert home() == tmp_path / "checkout" and home("data/raw") == tmp_path / "checkout/data/raw"
    assert home("/data/raw") == Path("/data/raw") and shared("runs") == tmp_path / "checkout/runs"
    monkeypatch.setattr(checkout, "__file__", str(copy.parent / "rtmpose/checkout.py"))
    assert code_root() == copy.parent and home(start=code_root()) == tmp_path / "checkout"
    (copy.parent / "pyproject.toml").unlink()
    assert code_root() is None and home(start=code_root()) == tmp_path / "checkout"
    monkeypatch.chdir(tmp_path)
    assert home("data/raw", start=code_root()) == tmp_path / "data/raw"


def test_a_job_finds_the_checkout_that_it_is_a_copy_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shared("runs") == tmp_path / "runs"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(JOB_HOME, raising=False)
    assert shared("/storage/runs") == Path("/storage/runs") and home("data/cache") == tmp_path / "data/cache"
    with pytest.raises(UserError, match=r"^runs: a job runs in a copy.*RTMPOSE_HOME"):
        shared("runs")
    monkeypatch.setenv(JOB_HOME, "/shared/rtmpose")
    assert shared("runs") == Path("/shared/rtmpose/runs")
    assert tracking_uri() == "sqlite:////shared/rtmpose/mlflow.db"
