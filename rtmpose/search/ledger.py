"""What a search has done so far, as JSON lines that only its driver writes: points given out, reports, ends.

A trial depends on its point and seed, and a suggested point on what the ledger holds. So the ledger is all
that a search needs to go on after its driver was killed. Each line is on the disk before anything follows
from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, ValidationError

from rtmpose.config import Record
from rtmpose.files import UserError, destination, writing

Status = Literal["running", "stopped", "finished"]
Kind = Literal["reference", "searched", "repeat"]
Report = dict[str, Any]  # {"report": from 1 on, "step": updates, and FIGURES on the tuning split}
UNMEASURED = "unmeasured"  # of a report: AP was not a number, 0 stands for it
FIGURES = ("AP", "error")  # the mean keypoint error tells something where AP is still 0


def report_of(entry: Mapping[str, Any]) -> Report:
    """The report within a line of the ledger, or within what Tune makes of it."""
    return {key: entry[key] for key in ("report", "step", *FIGURES) if key in entry}


class _Line(Record):
    """A line of the ledger; which of its keys there are depends on the event."""

    event: Literal["start", "report", "end"]
    trial: NonNegativeInt
    point: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    kind: Kind = "searched"
    report: NonNegativeInt = 0
    step: NonNegativeInt = 0
    AP: float = 0.0
    error: float | None = None
    status: Status = "running"


@dataclass
class TrialRecord:
    """One trial: its point, its seed (an offset to `params.seed`), what it is for, what it has reported, and
    how it ended.
    """

    number: int
    point: dict[str, Any]
    seed: int
    kind: Kind
    reports: list[Report] = field(default_factory=list)
    status: Status = "running"


class Ledger:
    """The trials of a search by number, read from and appended to `path`."""

    def __init__(self, path: Path) -> None:
        self.path = destination(path)
        self.trials: dict[int, TrialRecord] = {}
        self.history: list[tuple[int, Report]] = []  # (trial, report) in the order in which they came
        for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):  # the line a kill cut short: nothing has followed from it
                continue
            try:
                self._apply(_Line.model_validate(entry).model_dump(exclude_unset=True))
            except (ValidationError, KeyError) as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"{path}: line {number} is damaged ({reason}); delete the file to start the search anew"
                ) from None

    def start(self, point: dict[str, Any], *, seed: int, kind: Kind) -> TrialRecord:
        """A new trial under the next number."""
        number = len(self.trials)
        self._append({"event": "start", "trial": number, "point": point, "seed": seed, "kind": kind})
        return self.trials[number]

    def report(self, number: int, report: Report) -> None:
        self._append({"event": "report", "trial": number, **report})

    def end(self, number: int, status: Status) -> None:
        self._append({"event": "end", "trial": number, "status": status})

    def running(self) -> list[TrialRecord]:
        """The trials that were given out and have not ended."""
        return [trial for trial in self.trials.values() if trial.status == "running"]

    def _append(self, entry: dict[str, Any]) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a cut line must not swallow this one
                        file.write(b"\n")
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        number = entry["trial"]
        if entry["event"] == "start":
            self.trials[number] = TrialRecord(number, entry["point"], entry["seed"], entry["kind"])
        elif entry["event"] == "report":
            report = report_of(entry)
            self.trials[number].reports.append(report)
            self.history.append((number, report))
        else:
            self.trials[number].status = entry["status"]
