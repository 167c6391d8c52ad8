"""Which row of a target's report counts: that of the runtime and precision which the target gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtmpose.config import Record, parse
from rtmpose.deploy.runtimes.base import tried_name
from rtmpose.deploy.targets import Target, load_target
from rtmpose.files import UserError, read_json

PICKS = Path("metrics/pick.json")
AGAIN = "fetch it: python -m ci.fetch VERSION"
Picks = Mapping[str, str | None]


class _Pick(Record):
    picked: str | None


def read_picks(path: Path = PICKS) -> dict[str, str | None]:
    """What the stage `pick` chose when the version was registered: `tried_name` by target, None where nothing
    passed. UserError where the file is missing or says something else.
    """
    content = read_json(path, AGAIN)
    if not isinstance(content, dict):
        raise UserError(f"{path}: names no targets; {AGAIN}")
    return {target: parse(_Pick, one, path).picked for target, one in content.items()}


def picked_for(target: Target, picks: Picks) -> str | None:
    """What a target gets. One that was none of `targets` when the version was registered gets its reference,
    as the champion there does.
    """
    reference = tried_name(target.reference.runtime, target.reference.precision, target.device)
    return picks.get(target.name, reference)


def counted(report: Mapping[str, Any], picks: Picks) -> tuple[str | None, dict[str, Any] | None]:
    """What the target of a report gets, and its row for the target's own calls: the smallest batch on the
    most threads. No row where it was not measured.
    """
    target = load_target(report["target"])
    picked = picked_for(target, picks)
    rows = [
        row
        for row in report["results"]
        if tried_name(row["runtime"], row["precision"], target.device) == picked
    ]
    return picked, min(rows, key=lambda row: (row["batch"], -row["threads"]), default=None)
