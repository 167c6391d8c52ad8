"""What a search hands on: the values that it has chosen, and parameters with those values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtmpose.config import Params, with_values
from rtmpose.files import UserError, read_json


@dataclass(frozen=True)
class Choice:
    """What the search hands to finetuning: values that replace the recipe's, by path, and one line that says
    why.
    """

    values: dict[str, Any]
    note: str


def read_choice(path: Path) -> Choice:
    """The search's output file."""
    fix = "run the search stage again"
    content = read_json(path, fix)
    try:
        return Choice(dict(content["chosen"]), str(content["note"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a search result ({error}); {fix}") from None


def chosen_params(params: Params, path: Path) -> Params:
    """`params` with the values that the search at `path` has chosen."""
    values = read_choice(path).values
    try:
        return with_values(params, values)
    except ValueError as error:
        raise UserError(f"{path}: chosen: {error}; run the search stage again") from None
