from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rtmpose import fingerprint
from rtmpose.files import sha256_of
from rtmpose.fingerprint import code_version, git_commit, lineage_tags


def test_git_commit_comes_from_the_environment_or_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTMPOSE_GIT_COMMIT", "abc")
    assert git_commit() == "abc"
    monkeypatch.delenv("RTMPOSE_GIT_COMMIT")
    monkeypatch.setattr(fingerprint, "code_root", lambda: tmp_path)
    assert git_commit() == "unknown"
    for name in ("code.py", "params.yaml", "ladder/dvc.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "--no-verify", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = git_commit()
    assert len(clean) == 40
    for name in ("params.yaml", "ladder/dvc.lock"):
        (tmp_path / name).write_text("2")
    assert git_commit() == clean
    (tmp_path / "code.py").write_text("2")
    assert git_commit() == f"{clean}-dirty"


def test_lineage_names_code_stages_data_and_training(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("lock")
    tags = lineage_tags(tmp_path / "dvc.lock", tmp_path / "mix.json", "f1")
    assert set(tags) == {"git_commit", "dvc_lock_sha256", "data_manifest_sha256", "fingerprint"}
    assert tags["dvc_lock_sha256"] == sha256_of(tmp_path / "dvc.lock")
    assert (tags["data_manifest_sha256"], tags["fingerprint"]) == ("none", "f1")


def test_bytecode_and_other_files_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "__file__", str(tmp_path / "fingerprint.py"))
    (tmp_path / "models/__pycache__").mkdir(parents=True)
    (tmp_path / "models/net.py").write_text("x = 1\n")
    before = code_version(["models"])
    (tmp_path / "models/__pycache__/net.cpython-311.pyc").write_bytes(b"bytecode")
    (tmp_path / "models/notes.txt").write_text("no code")
    assert code_version(["models"]) == before
    (tmp_path / "models/head.py").write_text("y = 1\n")
    assert code_version(["models"]) != before
