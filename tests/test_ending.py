"""How a command ends: one line and an exit code for mistakes, refusing disks and signals at bad moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rtmpose.ending import UNREAD
from tests.support import ROOT

HEAD = """
import errno, os, signal, sys, time
from rtmpose.ending import run_command, signals_later
from rtmpose.files import UserError

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background

def kill(number):
    os.kill(os.getpid(), number)
    time.sleep(0.1)

class Dropping:
    def __init__(self, number): self.number = number
    def __del__(self): kill(self.number)

def mistake(): raise UserError("a.json: is damaged\\nmend it")
def full(): raise OSError(errno.ENOSPC, "No space left on device", "/full/a.json")
def defect(): raise OSError(errno.ENOENT, "No such file", "a.json")
def term(): kill(signal.SIGTERM)
def interrupt(): kill(signal.SIGINT)
def dropped_term(): Dropping(signal.SIGTERM); time.sleep(9)
def dropped_interrupt(): Dropping(signal.SIGINT); time.sleep(9)
def twice():
    try: kill(signal.SIGTERM)
    finally: kill(signal.SIGTERM); print("cleared away", flush=True)
def seldom():
    import gc
    print(gc.get_threshold())
def later():
    with signals_later(): kill(signal.SIGTERM); print("the whole block", flush=True)
    time.sleep(9)
"""


def ended(name: str) -> subprocess.CompletedProcess[str]:
    code = f"{HEAD}\nrun_command({name})"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("name", "code", "word", "printed"),
    [
        ("mistake", 2, "a.json: is damaged mend it", ""),
        ("full", 2, "/full/a.json: no space left on device; free space there", ""),
        ("term", 128 + signal.SIGTERM, "SIGTERM", ""),
        ("interrupt", 128 + signal.SIGINT, "SIGINT", ""),
        ("dropped_term", 128 + signal.SIGTERM, "SIGTERM", ""),
        ("dropped_interrupt", 128 + signal.SIGINT, "SIGINT", ""),
        ("twice", 128 + signal.SIGTERM, "SIGTERM", "cleared away\n"),
        ("later", 128 + signal.SIGTERM, "SIGTERM", "the whole block\n"),
    ],
)
def test_one_line_and_an_exit_code(name: str, code: int, word: str, printed: str) -> None:
    done = ended(name)
    [line] = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, printed)
    assert line.startswith("error: ") and word in line


def test_a_command_seldom_looks_through_everything() -> None:
    assert ended("seldom").stdout == "(700, 10, 200)\n"


def test_a_defect_is_a_traceback() -> None:
    done = ended("defect")
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('a' * 100)", UNREAD),
        ("print('a' * 100_000, flush=True)", UNREAD),
        ("sys.exit(0) if print('a') is None else 1", UNREAD),
        ("print('a', flush=True, file=sys.stderr)", UNREAD),
        ("print('a') or mistake()", 2),
        ("typer.run(lambda: print('a', flush=True))", UNREAD),
        ("typer.run(lambda: print('a'))", UNREAD),
        ("None", 0),
        ("sys.exit(3)", 3),
    ],
)
def test_where_nobody_reads_on_it_ends_without_a_word(code: str, expected: int) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with open(theirs, "wb") as closed:
        script = f"{HEAD}\nimport typer\nrun_command(lambda: {code})"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, text=True, stdout=closed, timeout=60, check=False,
            env=buffered, stderr=closed if "stderr" in code else subprocess.PIPE,
        )  # fmt: skip
    told = (done.stderr or "").splitlines()
    assert done.returncode == expected and len(told) == (expected == 2), told


def test_another_broken_pipe_is_a_defect() -> None:
    done = ended("lambda: (_ for _ in ()).throw(BrokenPipeError(errno.EPIPE, 'Broken pipe'))")
    assert done.returncode == 1 and "BrokenPipeError" in done.stderr
