"""What a result depends on, as a name: other parameters, data or code are another run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import psutil


def fingerprint(**parts: object) -> str:
    """16 hex digits that name a run by everything its result depends on; `parts` must
    be JSON-serialisable.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def code_version(paths: Sequence[str]) -> str:
    """16 hex digits of sha256 over the Python files at `paths` below the package, and over all in its folders."""
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for relative in paths:
        target = package / relative
        for file in sorted(target.rglob("*.py")) if target.is_dir() else [target]:
            digest.update(f"{file.relative_to(package)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def forced_by_dvc() -> bool:
    """Whether a `dvc … -f` is among our parent processes: DVC tells a stage nothing of it, and `-f` means
    anew.
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
