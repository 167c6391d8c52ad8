"""What a result depends on, as a name for a run, and where it comes from, as tags of its lineage."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from rtmpose.checkout import code_root
from rtmpose.files import sha256_of

NOT_CODE = (":(exclude,glob)**/dvc.lock", ":(exclude,glob)**/params.yaml")  # for git


def fingerprint(**parts: object) -> str:
    """16 hex digits that name a run by everything its result depends on; `parts` must
    be JSON-serialisable.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def code_version(paths: Sequence[str]) -> str:
    """16 hex digits of sha256 over Python files. `paths` name files below the package, or folders, of which
    every Python file counts.
    """
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for relative in paths:
        target = package / relative
        for file in sorted(target.rglob("*.py")) if target.is_dir() else [target]:
            digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def git_commit(root: Path | None = None) -> str:
    """The commit of the code: `RTMPOSE_GIT_COMMIT` (cluster jobs carry no .git), else git's HEAD (`-dirty`:
    edited). Edits of parameters are none of the code, and stand in `dvc.lock`, which DVC writes as it goes.
    With `root`, that of the checkout there, by git alone.
    """
    if root is None and (commit := os.environ.get("RTMPOSE_GIT_COMMIT")):
        return commit
    where = root or code_root() or Path.cwd()
    head = _git(where, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    edits = _git(where, "status", "--porcelain", "--untracked-files=no", "--", ".", *NOT_CODE)
    return f"{head}-dirty" if edits else head


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def lineage_tags(dvc_lock: Path, data_manifest: Path, fingerprint: str) -> dict[str, str]:
    """The tags by which a run or a model version is traced back to its code, stages, data and
    training store.
    """
    return {
        "git_commit": git_commit(),
        "dvc_lock_sha256": sha256_of(dvc_lock) if dvc_lock.exists() else "none",
        "data_manifest_sha256": sha256_of(data_manifest) if data_manifest.exists() else "none",
        "fingerprint": fingerprint,
    }


def forced_by_dvc() -> bool:
    """Whether a `dvc repro -f` (or `exp run -f`) is among our parent processes.

    `-f` means to start anew, and DVC does not tell its stages of it.
    """
    for process in psutil.Process().parents():
        try:
            words = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(Path(word).name == "dvc" for word in words[:3]) and {"repro", "exp"} & set(words):
            return any(
                word == "--force" or re.fullmatch(r"-[a-zA-Z]{0,3}f[a-zA-Z]{0,3}", word) for word in words
            )
    return False
