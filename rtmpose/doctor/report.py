"""The doctor's findings as text and as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rtmpose.doctor.finding import Finding

NARROWEST = 72  # characters of a line


@dataclass(frozen=True)
class Report:
    """All that was found: of the machine, and of a recipe on it where one was chosen ("": none was)."""

    machine: Sequence[Finding]
    recipe: str = ""
    wanted: Sequence[Finding] = ()

    @property
    def lacks(self) -> list[Finding]:
        """What keeps the recipe from running, or without one any recipe."""
        return [each for each in (*self.machine, *self.wanted) if each.state == "lacks"]

    def to_json(self) -> str:
        """`{"can_run", "machine", "recipe", "wanted"}`; findings are `{"what", "found", "state", "fix"}`."""
        content = {
            "can_run": not self.lacks,
            "machine": [each.to_dict() for each in self.machine],
            "recipe": self.recipe or None,
            "wanted": [each.to_dict() for each in self.wanted],
        }
        return json.dumps(content, indent=2, ensure_ascii=False)

    def lines(self) -> Iterator[str]:
        """The findings as a person reads them, wrapped to the terminal."""
        parts = [("this machine", self.machine)]
        if self.recipe:
            parts.append((f"recipe {self.recipe}", self.wanted))
        width = max((len(each.what) for _, found in parts for each in found), default=0)
        for title, found in parts:
            yield title
            for each in found:
                yield from _shown(each, width)


def _shown(finding: Finding, width: int) -> Iterator[str]:
    state = finding.state.upper() if finding.state == "lacks" else finding.state
    start, indent = f"  {state:<5}  {finding.what:<{width}}  ", " " * (11 + width)
    columns = max(shutil.get_terminal_size((110, 24)).columns, NARROWEST)
    # Paths and commands are to be copied: they are never cut in two.
    yield from textwrap.wrap(
        finding.found, columns, initial_indent=start, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    if finding.fix:
        yield f"{indent}→ {finding.fix}"
