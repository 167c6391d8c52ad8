"""Files read and written safely, where they lie, and the error that says what to mend."""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import yaml


class UserError(ValueError):
    """A mistake the user can mend: its text is one line that names the file, the key and the fix."""


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write `content` to `path` through a temporary name beside it and one rename; readers never see half a
    file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


BUSY = "another process works on this; wait for it or end it first"


@contextmanager
def locked(path: Path, *, wait: float | None = None, busy: str = BUSY) -> Iterator[None]:
    """Hold the lock file `path` during the block. The lock ends with its holder, however that ends.

    Where another process holds it for longer than `wait` seconds (None: for ever), UserError with the file
    and `busy`, which says what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if wait is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        elif not _lock_within(file, wait):
            raise UserError(f"{path}: {busy}")
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a forked child may hold the file open for longer


def _lock_within(file: TextIO, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)


def data_file(relative: str) -> Path:
    """A file of `datasets/` or `deploy_targets/`: from the checkout, else as shipped inside the installed
    package.
    """
    package = Path(__file__).resolve().parent
    for root in (package.parent, package / "_data"):
        if (root / relative).exists():
            return root / relative
    raise UserError(f"{relative}: no such file in {package.parent} or in the installed package")


def read_yaml(path: Path) -> Any:
    """Parse a YAML file; errors name the file and the line."""
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None


def read_json(path: Path | str, fix: str = "fetch or write it again") -> Any:
    """A JSON file; UserError naming it and the `fix` when it is missing, cut off or not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {fix}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON, perhaps cut off ({error}); {fix}") from None


def home(path: Path | str = ".") -> Path:
    """`path` in the checkout, absolute, also from a DVC experiment that runs in a copy below `.dvc/tmp/exps`.

    Such a copy holds what git tracks and is deleted afterwards: raw data and run stores lie in the checkout
    itself.
    """
    return outside_experiment(Path.cwd()) / path


def outside_experiment(folder: Path) -> Path:
    """The checkout that a folder inside a DVC experiment's copy was made from; any other folder as it is."""
    checkout, inside, _ = folder.as_posix().partition("/.dvc/tmp/exps/")
    return Path(checkout or "/") if inside else folder
