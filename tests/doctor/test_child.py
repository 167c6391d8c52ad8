"""A question that hangs, crashes, babbles or fails is an answer in one line, within its time limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtmpose.doctor import child
from rtmpose.doctor.child import ask

PLANTED = {
    "sleeps": (
        "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)",
        "no answer within",
    ),
    "crashes": ("import os; os.abort()", "ended by SIGABRT"),
    "fails": (
        "raise ImportError('libcuda.so.1: cannot open\\nshared object')",
        "libcuda.so.1: cannot open shared",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_goes_wrong_there_is_one_line_here(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, said = PLANTED[name]
    (tmp_path / f"{name}.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    answer = ask("module", name, seconds=2.0 if name == "sleeps" else 60.0)
    assert list(answer) == ["error"] and said in answer["error"] and "\n" not in answer["error"]


@pytest.mark.parametrize(
    ("line", "said", "code", "reason"),
    [
        ("", "", 3, "ended with exit code 3"),
        ("", "no licence", 1, "ended with exit code 1: no licence"),
        ('{"version": "1"}', "", 1, "ended with exit code 1"),
        ("[1]", "", 0, "ended with exit code 0"),
        ("1 of 2 done", "", 0, "ended with exit code 0"),
    ],
)
def test_what_is_no_answer_is_said_by_its_ending(line: str, said: str, code: int, reason: str) -> None:
    assert child._answer(line, said, code) == {"error": reason}


def test_the_answer_is_the_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "babbles.py").write_text("print('welcome', end='')\n__version__ = '1.2'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert ask("module", "babbles") == {"version": "1.2", "details": []}
