"""Every command that the documentation shows is one that its program takes: a renamed option is noticed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.docs.commands import Command, Wrong, check, commands_of, pages, split
from tests.support import ROOT


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page(page: Path) -> None:
    wrong = []
    for command in commands_of(page):
        try:
            check(command)
        except Wrong as error:
            wrong.append(f"{command}: {error}")
    assert not wrong


def test_commands_are_found() -> None:
    found = [command for page in pages() for command in commands_of(page)]
    programs = Counter(command.words[0] for command in found if command.whole)
    assert programs["rtmpose"] > 40 and programs["dvc"] > 10 and programs["python"] > 3
    assert {"make", "mlflow", "ray", "pip"} <= set(programs)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("A=1 B='2 3' dvc repro finetune  # follows", [("dvc", "repro", "finetune")]),
        ("make venv && rtmpose models list | head", [("make", "venv"), ("rtmpose", "models", "list")]),
        ('ln -s "$(rtmpose weights pull a.pth)" b.pth', [("rtmpose", "weights", "pull", "a.pth")]),
        ("rtmpose-own version 1: 3 of 3 gates hold", []),
        ("it isn't one", []),
        ("curl http://127.0.0.1/x", []),
        ("tests.faults.resume --kills 20", [("tests.faults.resume", "--kills", "20")]),
    ],
)
def test_lines_are_split(line: str, found: list[tuple[str, ...]]) -> None:
    assert list(split(line)) == found


@pytest.mark.parametrize(
    "line",
    [
        "rtmpose predict photo.jpg --model m.onnx --bocks 1,2,3,4",
        "rtmpose predicts photo.jpg",
        "rtmpose dataset check",
        "rtmpose serve --port seven",
        "dvc repro finetunes",
        "dvc exp runs -S a=b",
        "python -m pipelines.evaluates",
        "python -m tests.faults.resume --kill 20",
        "benchmarks/inference.py --with-pear",
        "make reproduce",
        "pip install 'rtmpose[pages]'",
        "mlflow models serves -m x",
        "ray start --heads",
    ],
)
def test_what_a_program_would_refuse_is_found(line: str) -> None:
    ((words),) = split(line)
    with pytest.raises(Wrong):
        check(Command(words, True, "here"))


def test_running_text_may_leave_arguments_out() -> None:
    check(Command(("rtmpose", "dataset", "check"), False, "here"))
    with pytest.raises(Wrong):
        check(Command(("rtmpose", "dataset", "check", "--bocks", "1"), False, "here"))
