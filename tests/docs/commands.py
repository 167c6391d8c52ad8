"""The commands that the documentation shows, and whether the programs that they name would take them."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL = ("", "sh")
ASSIGNMENT = re.compile(r"^\w+=")
MODULE = re.compile(r"^(?:tests|pipelines|ci|benchmarks)\.[a-z_][\w.]*$")
SCRIPT = re.compile(r"^benchmarks/[\w/]+\.py$")
NESTED = re.compile(r"\$\(([^()]+)\)")
JOINS = {"&&", "||", "|", ";", ">", ">>", "2>", "2>&1", "<"}
OURS = ("rtmpose", "dvc", "python", "make", "mlflow", "ray", "pip")


class Wrong(ValueError):
    """A command that its program would refuse."""


@dataclass(frozen=True)
class Command:
    """A command as the documentation shows it; `whole` where it stands in a block, so that all of its
    arguments are there; in running text only its beginning may be.
    """

    words: tuple[str, ...]
    whole: bool
    place: str

    def __str__(self) -> str:
        return " ".join(self.words)


def pages() -> list[Path]:
    """The files of the documentation: README, CONTRIBUTING and the guides."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_of(path: Path) -> Iterator[Command]:
    """Every command of one of our programs in a page, those in blocks first."""
    text, place = path.read_text(), path.name
    for language, block in FENCE.findall(text):
        if language in SHELL:
            for line in block.replace("\\\n", " ").splitlines():
                for words in split(line.strip().removeprefix("$ ")):
                    yield Command(words, True, place)
    for inline in INLINE.findall(FENCE.sub("", text)):
        for words in split(inline):
            if len(words) > 1 or MODULE.match(words[0]) or SCRIPT.match(words[0]):
                yield Command(words, False, place)


def split(line: str) -> Iterator[tuple[str, ...]]:
    """The simple commands of a line that are ours, those whose output it takes first; assignments before them
    are dropped.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a line of output with a lone quotation mark
        return
    for inner in (found for word in words for found in NESTED.findall(word)):
        yield from split(inner)
    part: list[str] = []
    for word in [*words, ";"]:
        if word in JOINS:
            while part and ASSIGNMENT.match(part[0]):
                part = part[1:]
            if part and (part[0] in OURS or MODULE.match(part[0]) or SCRIPT.match(part[0])):
                yield tuple(part)
            part = []
        else:
            part.append(word)


def check(command: Command) -> None:
    """Wrong where the program would refuse this command; nothing is run."""
    program, *rest = command.words
    if MODULE.match(program) or SCRIPT.match(program):
        _python([program, *rest])
    elif program == "python":
        _python(rest[1:] if rest[:1] == ["-m"] else rest)
    else:
        CHECKS[program](rest, command.whole)


def _clicked(load: Callable[[], Any]) -> Callable[[list[str], bool], None]:
    """A check by a command line that Click has parsed; `load` gives its root."""

    def checked(rest: list[str], whole: bool) -> None:
        command, words = load(), list(rest)
        while hasattr(command, "commands"):
            if not words:
                return
            name = words.pop(0)
            if name.startswith("-") or name.isupper():  # an option of the group; a placeholder
                return
            if name not in command.commands:
                raise Wrong(f"{name}: no such command")
            command = command.commands[name]
        context = command.context_class(command)
        try:
            if whole:
                command.parse_args(context, words)
            else:
                command.make_parser(context).parse_args(words)
        except Exception as error:  # Click's, which Typer may bring along under a name of its own
            raise Wrong(f"{type(error).__name__}: {getattr(error, 'message', error)}") from None

    return checked


@cache
def _rtmpose() -> Any:
    import typer.main

    from rtmpose.cli.app import app

    return typer.main.get_command(app)


@cache
def _mlflow() -> Any:
    from mlflow.cli import cli

    return cli


@cache
def _ray() -> Any:
    from ray.scripts.scripts import cli

    return cli


@cache
def _dvc_parser() -> Any:
    from dvc.cli.parser import get_main_parser

    return get_main_parser()


def _dvc(rest: list[str], whole: bool) -> None:
    """DVC's own parser; stages have to be in a dvc.yaml. Keys after -S are composed in `test_workflow`."""
    if not whole and "…" in rest:
        return
    try:
        found = _dvc_parser().parse_args(rest)
    except (SystemExit, Exception) as error:  # DVC's parser raises an error of its own
        if not whole:
            return
        raise Wrong(f"dvc refuses it ({error!r})") from None
    if rest[:1] == ["repro"]:
        for target in found.targets:
            if not target.endswith(".yaml") and target.partition("@")[0] not in stages():
                raise Wrong(f"{target}: no such stage")


@cache
def stages() -> frozenset[str]:
    """The names of all stages, without what `foreach` adds."""
    files = (ROOT / "dvc.yaml", ROOT / "ladder/dvc.yaml")
    return frozenset(name for file in files for name in yaml.safe_load(file.read_text())["stages"])


def _python(rest: list[str]) -> None:
    """A module or script of the checkout, whose file or folder names each of the options."""
    name, *options = rest
    path = ROOT / (name if name.endswith(".py") else f"{name.replace('.', '/')}.py")
    if not path.is_file():
        if (ROOT / name.replace(".", "/")).is_dir():
            return
        raise Wrong(f"{name}: no such module")
    own = path.read_text()
    beside = "".join(file.read_text() for file in path.parent.glob("*.py"))
    for option in (word.partition("=")[0] for word in options if word.startswith("--")):
        # A script may make its options of names.
        if f'"{option}"' not in beside and f'"{option.removeprefix("--")}"' not in own:
            raise Wrong(f"{option}: is in no file beside {path.relative_to(ROOT)}")


def _make(rest: list[str], whole: bool) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in rest:
        if not ASSIGNMENT.match(target) and target not in targets:
            raise Wrong(f"{target}: no target of the Makefile")


def _pip(rest: list[str], whole: bool) -> None:
    """The extras that are asked for; of what pip itself takes, nothing."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in rest:
        match = re.match(r"^(?:\.|rtmpose)\[([\w,-]+)\]$", word)
        if match and (unknown := set(match[1].split(",")) - set(known)):
            raise Wrong(f"{min(unknown)}: no extra of pyproject.toml")


CHECKS: dict[str, Callable[[list[str], bool], None]] = {
    "rtmpose": _clicked(_rtmpose),
    "mlflow": _clicked(_mlflow),
    "ray": _clicked(_ray),
    "dvc": _dvc,
    "make": _make,
    "pip": _pip,
}
