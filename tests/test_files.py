from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtmpose.files import ATTEMPTS, UserError, locked, one_line, retried, temporary_beside
from tests.support import ROOT


class Failing:
    """An action that fails so many times before it succeeds."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_attempts_pause_for_twice_as_long_each_time(pauses: list[float]) -> None:
    assert retried(Failing(0, OSError()), 1.0) == 1 and pauses == []
    assert retried(Failing(ATTEMPTS - 1, OSError()), 1.0) == ATTEMPTS and pauses == [1.0, 2.0, 4.0, 8.0]


def test_the_last_error_is_raised_as_it_is(pauses: list[float]) -> None:
    action = Failing(99, ConnectionError("reset"))
    with pytest.raises(ConnectionError, match=r"^reset$"):
        retried(action)
    assert action.calls == ATTEMPTS and len(pauses) == ATTEMPTS - 1


def test_what_no_attempt_mends_is_raised_at_once(pauses: list[float]) -> None:
    action = Failing(99, FileNotFoundError("no such bucket"))
    with pytest.raises(FileNotFoundError):
        retried(action, is_final=lambda error: isinstance(error, FileNotFoundError))
    assert action.calls == 1 and pauses == []


def test_errors_without_text_are_named_by_their_class() -> None:
    assert (
        one_line(OSError("two\n  lines")) == "two lines"
        and one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    )


def test_temporary_names_are_hidden_and_new_each_time(tmp_path: Path) -> None:
    one, two = temporary_beside(tmp_path / "best.pt"), temporary_beside(tmp_path / "best.pt")
    assert one != two and one.parent == tmp_path
    assert one.match(".best.pt.*.tmp") and two.match(".best.pt.*.tmp")


def test_a_lock_that_is_held_says_what_to_do(tmp_path: Path) -> None:
    path, fix = tmp_path / "work/lock", "wait until the other one has ended"
    with locked(path, wait=0), pytest.raises(UserError) as caught, locked(path, wait=0, busy=fix):
        pass
    assert str(caught.value) == f"{path}: {fix}"
    with locked(path, wait=0):
        pass


def test_a_lock_ends_with_its_killed_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = "import sys, time; from pathlib import Path; from rtmpose.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(path)]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=dict(os.environ))
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError), locked(path, wait=0):
            pass
    finally:
        holder.kill()
        holder.wait()
    with locked(path, wait=5):
        pass
