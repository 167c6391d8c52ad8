"""How to do the run again: commit, commands, and the parameters that differ from its recipe's."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtmpose.config import Params
from rtmpose.files import UserError, one_line
from rtmpose.report.blocks import Block, Code, Note, Part, Section, Table, section
from rtmpose.report.folder import Choice, Folder

SEARCH = "models/search.json"
DEFAULT = "mannequin"  # the recipe that `make repro` runs


def again(run: Folder) -> Section:
    return section("again", "Do it again", lambda: _commands(run), lambda: _searched(run))


def _commands(run: Folder) -> Part:
    params = run.params()
    notes: list[Block] = []
    rows: list[tuple[str, str, str]] | None = None
    if run.conf is None:
        notes.append(
            Note("No conf/ is beside it, so nothing says what its recipe's parameters are.", "missing")
        )
    else:
        try:
            rows = differences(params, run.conf)
        except UserError as error:
            notes.append(Note(f"Not compared with its recipe: {error}.", "missing"))
    commit = run.commit.removesuffix("-dirty")
    if run.commit == "unknown":
        notes.append(Note("The commit of its code is not known.", "warning"))
    elif commit != run.commit:
        notes.append(Note("Its code had changes that no commit holds: it cannot be done again.", "warning"))
    lines = [f"git checkout {shlex.quote(commit)}", "make venv && . .venv/bin/activate"]
    if rows is None:
        lines += ["cp RUN/params.yaml .  # the run's own", "dvc repro"]
    elif not rows and params.recipe == DEFAULT:
        lines.append("make repro")
    else:
        changed = "".join(f" \\\n  -S {shlex.quote(f'{key}={value}')}" for key, _, value in rows)
        lines.append(f"dvc exp run -S recipe={shlex.quote(params.recipe)}{changed}")
    blocks: list[Block] = [
        Table.of("Where it comes from", ("", ""), [("commit", run.commit), ("run", run.name)])
    ]
    blocks += [*notes, Code("\n".join(lines))]
    if rows:
        head = ("parameter", f"recipe {params.recipe}", "this run")
        blocks.append(Table.of("Parameters that differ from the recipe's", head, rows))
    elif rows is not None:
        blocks.append(Note(f"Its parameters are those of the recipe {params.recipe}."))
    return Part(tuple(blocks))


def _searched(run: Folder) -> Part:
    """What the search has put in the place of parameters."""
    if not run.params().search.enabled:
        return Part(())
    found = run.read(SEARCH, Choice)
    if not found.chosen:
        return Part((Note(f"The search chose nothing: {found.note or 'it gives no reason'}."),))
    rows = [(key, _shown(value)) for key, value in found.chosen.items()]
    return Part((Table.of("What the search chose, in the place of these parameters", ("", ""), rows),))


def differences(params: Params, conf: Path) -> list[tuple[str, str, str]]:
    """Where parameters differ from what `conf` composes their recipe to: (key, the recipe's, theirs).
    UserError where there is no such recipe.
    """
    composed = _flat(_composed(conf, params.recipe))
    ours = _flat(params.model_dump(mode="json"))
    keys = [*ours, *(key for key in composed if key not in ours)]
    return [
        (key, _shown(composed.get(key)), _shown(ours.get(key)))
        for key in keys
        if composed.get(key) != ours.get(key)
    ]


def _composed(conf: Path, recipe: str) -> dict[str, Any]:
    """The recipe's parameters with every default filled in, as the run's are."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf.resolve()), version_base=None):
            found = OmegaConf.to_container(compose("config", [f"recipe={recipe}"]), resolve=True)
        return Params.model_validate(found).model_dump(mode="json")
    except Exception as error:  # Hydra has many classes, and parameters of another version do not fit
        raise UserError(f"{conf}: recipe {recipe!r} cannot be composed ({one_line(error)[:200]})") from None


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def _shown(value: Any) -> str:
    """As a command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
