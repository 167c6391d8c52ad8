"""How to do the run again: commit, commands, and the parameters that differ from its recipe's."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from rtmpose.config import Params, is_baseline
from rtmpose.files import UserError
from rtmpose.report.blocks import Block, Code, Note, Part, Section, Table, section
from rtmpose.report.folder import UNKNOWN, Choice, Folder
from rtmpose.report.sections.overrides import ABSENT, Composed, composed

SEARCH = "models/search.json"
DEFAULT = "mannequin"  # the recipe that `make repro` runs


def again(run: Folder) -> Section:
    return section("again", "Do it again", lambda: _commands(run), lambda: _searched(run))


def _commands(run: Folder) -> Part:
    params = run.params()
    notes: list[Block] = []
    found: Composed | None = None
    if run.conf is None:
        notes.append(
            Note("No conf/ is beside it, so nothing says what its recipe's parameters are.", "missing")
        )
    else:
        try:
            found = composed(params, run.conf)
        except UserError as error:
            notes.append(Note(f"Not compared with its recipe: {error}.", "missing"))
    commit = run.commit.removesuffix("-dirty")
    lines = ["make venv && . .venv/bin/activate", *_how(params, found)]
    if run.commit == UNKNOWN:
        notes.append(Note("The commit of its code is not known.", "warning"))
    else:
        lines.insert(0, f"git checkout {shlex.quote(commit)}")
    if commit != run.commit:
        notes.append(Note("Its code had changes that no commit holds: it cannot be done again.", "warning"))
    where = [("commit", run.shown_commit), ("run", run.name)]
    blocks: list[Block] = [Table.of("Where it comes from", ("", ""), where), *notes, Code("\n".join(lines))]
    return Part((*blocks, *_differences(params, found)))


def _how(params: Params, found: Composed | None) -> list[str]:
    """The commands that run it: parameters that no command line gives are the run's own file."""
    until = " evaluate" if is_baseline(params) else ""  # the stage that a baseline ends at
    if found is None or found.overrides is None:
        return ["cp RUN/params.yaml .  # the run's own", f"dvc repro{until}"]
    if not found.differences and found.choices == (f"recipe={DEFAULT}",):
        return ["make repro"]
    given = [f"-S {shlex.quote(one)}" for one in (*found.choices, *found.overrides)]
    chosen = len(found.choices)
    return [" \\\n  ".join([f"dvc exp run{until} {' '.join(given[:chosen])}", *given[chosen:]])]


def _differences(params: Params, found: Composed | None) -> Iterator[Block]:
    if found is None:
        return
    recipe = " ".join([f"recipe {params.recipe}", *found.choices[1:]])
    if not found.differences:
        yield Note(f"Its parameters are those of the {recipe}.")
        return
    rows = [(one.key, _shown(one.recipe), _shown(one.run)) for one in found.differences]
    yield Table.of("Parameters that differ from the recipe's", ("parameter", recipe, "this run"), rows)


def _searched(run: Folder) -> Part:
    """What the search has put in the place of parameters."""
    if not run.params().search.enabled:
        return Part(())
    found = run.read(SEARCH, Choice)
    if not found.chosen:
        return Part((Note(f"The search chose nothing: {found.note or 'it gives no reason'}."),))
    rows = [(key, _shown(value)) for key, value in found.chosen.items()]
    return Part((Table.of("What the search chose, in the place of these parameters", ("", ""), rows),))


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
