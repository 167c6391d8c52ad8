"""Every command that the documentation shows is one that its program takes: a renamed option is noticed."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from rtmpose.cli.app import app
from tests.docs.commands import INLINE, Command, Wrong, check, commands_of, pages, split
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


def names(group: typer.Typer) -> Iterator[str]:
    """Of the commands and groups directly below one; what a group without a name has is its own."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield command.name or command.callback.__name__.replace("_", "-")
    for inner in group.registered_groups:
        assert isinstance(inner.typer_instance, typer.Typer)
        if isinstance(inner.name, str):
            yield inner.name
        else:
            yield from names(inner.typer_instance)


def test_no_two_commands_have_one_name() -> None:
    groups = [app, *(group.typer_instance for group in app.registered_groups if isinstance(group.name, str))]
    for group in groups:
        assert isinstance(group, typer.Typer)
        twice = {name: count for name, count in Counter(names(group)).items() if count > 1}
        assert not twice, "the one that is registered last would hide the other"


def texts(path: Path) -> Iterator[str]:
    """The texts of a module, docstrings too, in one line each; `X` stands for what is put in."""
    tree = ast.parse(path.read_text())
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield " ".join("".join(parts).split())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield " ".join(node.value.split())


def test_the_program_names_commands_that_exist() -> None:
    """In its messages, its help and its docstrings, between backquotes or as the whole text."""
    found = [
        (path.relative_to(ROOT).as_posix(), words)
        for path in sorted((ROOT / "rtmpose").rglob("*.py"))
        for text in texts(path)
        for shown in [*INLINE.findall(text), *([text] if text.startswith("rtmpose ") else [])]
        for words in split(shown.replace("…", "X").replace(":", " X"))
        if words[0] == "rtmpose" and len(words) > 1
    ]
    wrong = []
    for place, words in found:
        for name in (words[2:3] or ("",))[0].split("|"):
            each = (*words[:2], *filter(None, [name]), *words[3:])
            try:
                check(Command(each, False, place))
            except Wrong as error:
                if "requires an argument" not in str(error):  # running text may leave it out
                    wrong.append(f"{place}: {' '.join(each)}: {error}")
    assert not wrong and len(found) > 30
