"""One line of the doctor's, and the guard that turns whatever goes wrong into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from rtmpose.files import one_line, unbroken

#: ok: as it should be. note: worth knowing, and nothing that the recipe needs. lacks: the recipe cannot run.
State = Literal["ok", "note", "lacks"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found there, in one line, and where something is missing the command that
    mends it.
    """

    what: str
    found: str
    state: State = "ok"
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def lack(what: str, found: str, fix: str) -> Finding:
    """Something without which the recipe cannot run."""
    return Finding(what, unbroken(found), "lacks", fix)


def note(what: str, found: str, fix: str = "") -> Finding:
    """Something that the recipe does without."""
    return Finding(what, unbroken(found), "note", fix)


def guarded(what: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What `look` finds; a line that names the error where it fails, which is then a defect of ours, or a
    machine that is odder than we know.
    """
    try:
        return list(look())
    except Exception as error:
        return [note(what, f"could not be looked at ({one_line(error)})")]
