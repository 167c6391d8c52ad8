"""Commands that mend what a recipe lacks, whole: with the overrides that it was asked for with."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtmpose.config import Params
from rtmpose.files import UserError

CONF = Path("conf")


@dataclass(frozen=True)
class Command:
    """`dvc exp run` with these overrides, as the shell reads it."""

    overrides: tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Params, overrides: Sequence[str]) -> Command:
        """With the overrides given, or those that make a params.yaml: DVC composes it anew at each run. Where
        none make it, its recipe alone.
        """
        if overrides:
            return cls(tuple(overrides))
        from rtmpose.report.sections.overrides import composed

        try:
            found = composed(params, CONF)
        except UserError:  # no recipes here, or others
            return cls((f"recipe={params.recipe}",))
        return cls((*found.choices, *(found.overrides or ())))

    def to(self, *more: str, stage: str = "") -> str:
        """The command with more overrides, which take the place of those with the same key; up to a stage, or
        through all. `$(…)` is left to the shell.
        """
        replaced = {_key(text) for text in more}
        kept = [f"-S {shlex.quote(text)}" for text in self.overrides if _key(text) not in replaced]
        return " ".join(["dvc exp run", *kept, *map(_option, more), *([stage] if stage else [])])


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _option(override: str) -> str:
    key, _, value = override.partition("=")
    return f'-S {key}="{value}"' if value.startswith("$(") else f"-S {shlex.quote(override)}"
