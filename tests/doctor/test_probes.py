"""What stores, clusters and remotes answer, or do not; nothing is written there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rtmpose.doctor import probes, services
from rtmpose.doctor.finding import Finding
from rtmpose.doctor.fixes import Command

CLOSED = "127.0.0.1:1"  # nobody listens on this port


def mlflow(uri: str) -> Finding:
    (found,) = services.mlflow(uri, probes.mlflow(uri))
    return found


def data_base(path: Path, revision: str) -> str:
    """The address of an SQLite file whose tables say they are of this revision."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    return f"sqlite:///{path}"


def test_a_server_that_does_not_answer() -> None:
    found = mlflow(f"http://user:secret-word@{CLOSED}")
    assert found.state == "lacks" and "does not answer" in found.found and "secret-word" not in found.found
    assert "unset MLFLOW_TRACKING_URI" in found.fix


def test_tables_of_this_version_and_of_another(tmp_path: Path) -> None:
    head = probes._head()
    right, wrong = data_base(tmp_path / "a b.db", head), data_base(tmp_path / "old.db", "0123abcd")
    before = (tmp_path / "old.db").read_bytes()
    assert mlflow(right).state == "ok"
    found = mlflow(wrong)
    assert found.state == "lacks" and "0123abcd" in found.found and found.fix.endswith(f"db upgrade {wrong}")
    assert (tmp_path / "old.db").read_bytes() == before


def test_a_store_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    found = mlflow(f"sqlite:///{tmp_path}/new.db")
    assert found.state == "ok" and "the first run makes" in found.found and not any(tmp_path.iterdir())


def test_a_file_that_is_no_data_base(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is text, and long enough to be looked at")
    found = mlflow(f"sqlite:///{tmp_path}/text.db")
    assert found.state == "lacks" and "not a database" in found.found


@pytest.mark.parametrize("address", [CLOSED, "here:there"])
def test_a_cluster_that_does_not_answer(address: str) -> None:
    (found,) = services.ray(address, probes.ray(address), Command())
    assert (
        found.state == "lacks"
        and f"no cluster at {address}" in found.found
        and "unset RAY_ADDRESS" in found.fix
    )


def test_dvc_without_and_with_a_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = services.dvc(probes.dvc())
    assert found.state == "lacks" and "cannot open this folder" in found.found
    config = tmp_path / ".dvc/config"
    config.parent.mkdir()
    config.write_text("[core]\n    no_scm = true\n")
    (found,) = services.dvc(probes.dvc())
    assert found.state == "note" and "no remote" in found.found and found.fix.startswith("dvc remote add")
    remote = tmp_path / "remote"
    config.write_text(
        f"[core]\n    no_scm = true\n    remote = store\n['remote \"store\"']\n    url = {remote}\n"
    )
    (found,) = services.dvc(probes.dvc())
    assert found.state == "note" and "not there yet" in found.found
    remote.mkdir()
    (found,) = services.dvc(probes.dvc())
    assert found == Finding("DVC", found.found) and "remote store answers" in found.found
