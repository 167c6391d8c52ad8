"""The one store of a training run: checkpoints that are complete or absent, and a pointer that moves last.

<root>/<fingerprint>/step-00000120.pt   model, EMA, optimizer, position, best, RNG, run id; loads with
                                        weights_only=True
                     latest.json        which files exist, newest first, with sha256: written after them
                     best.pt            EMA weights with the best AP so far
                     train.log          one JSON line per report
                     damaged.txt        the damaged samples that were skipped, if any, by step
                     warnings.txt       what went wrong without ending the run
                     finished.json      the receipt, written last
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeInt

from rtmpose.config import Record, read_record
from rtmpose.files import UserError, append, destination, sha256_of, write_atomic, writing
from rtmpose.models import save_tensors

KEPT_CHECKPOINTS = 2
TOKEN, LOG, DAMAGED, WARNINGS, BEST = "token", "train.log", "damaged.txt", "warnings.txt", "best.pt"
START_ANEW = "delete the run's folder to start anew"


class _Entry(Record):
    file: str = Field(pattern=r"^step-[0-9]+\.pt$")
    sha256: str
    step: NonNegativeInt


class _Pointer(Record):
    checkpoints: list[_Entry]


class _Receipt(Record):
    sha256: str


class Superseded(RuntimeError):
    """Another process has taken the store over; the one that meets this must stop."""


class Store:
    """A run's folder. The driver opens it and hands its `token` to the workers, who save, load and log.

    Opening it again writes another token: a worker that outlived its killed driver then stops at its next
    write instead of writing into the new run. What `stamp` holds goes into every checkpoint, such as the id
    of the MLflow run; what `meta` holds, such as the note of its data, into the best weights too.
    """

    def __init__(
        self,
        folder: Path,
        token: str,
        stamp: Mapping[str, str] | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.token = folder, token
        self.meta = {} if meta is None else {"meta": dict(meta)}
        self.stamp = dict(stamp or {}) | self.meta

    @classmethod
    def open(cls, root: Path, name: str, *, fresh: bool) -> Store:
        """The store of run `name`, taken over; emptied first when `fresh`."""
        store = cls((root / name).resolve(), uuid.uuid4().hex)
        if fresh:
            shutil.rmtree(store.folder, ignore_errors=True)
        write_atomic(store.folder / TOKEN, store.token)
        for left in store.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        return store

    def refuse_if_superseded(self) -> None:
        """Raise Superseded when another process has opened the store since."""
        path = self.folder / TOKEN
        if not path.exists() or path.read_text() != self.token:
            raise Superseded(f"{self.folder}: another run has taken this store over")

    def finished(self) -> dict[str, Any] | None:
        """The receipt of a finished run whose best weights are still whole."""
        path = self.folder / "finished.json"
        receipt = read_record(_Receipt, path, START_ANEW) if path.exists() else None
        return receipt if receipt and self.best_is(receipt["sha256"]) else None

    def _pointer(self) -> dict[str, Any]:
        path = self.folder / "latest.json"
        return read_record(_Pointer, path, START_ANEW) if path.exists() else {"checkpoints": []}

    def _write(self, name: str, content: Mapping[str, Any]) -> str:
        self.refuse_if_superseded()
        return save_tensors(self.folder / name, content)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint of `state` (with an int `step`), then move the pointer, then drop all but the
        last two.
        """
        name = f"step-{state['step']:08d}.pt"
        entry = {"file": name, "sha256": self._write(name, {**self.stamp, **state}), "step": state["step"]}
        # A later one is damaged (the run fell back from it): kept, it would take the place of the one that
        # can be loaded.
        kept = [entry, *(old for old in self._pointer()["checkpoints"] if old["step"] < state["step"])][
            :KEPT_CHECKPOINTS
        ]
        write_atomic(self.folder / "latest.json", json.dumps({"checkpoints": kept}, indent=1))
        for path in self.folder.glob("step-*.pt"):
            if path.name not in {old["file"] for old in kept}:
                path.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest undamaged checkpoint, or None before the first; a damaged one is named on stderr and
        passed over.
        """
        entries = self._pointer()["checkpoints"]
        for entry in entries:
            path = self.folder / entry["file"]
            if path.exists() and sha256_of(path) == entry["sha256"]:
                return torch.load(path, map_location="cpu", weights_only=True)
            self.warn(f"checkpoint {path} is missing or damaged; falling back to the one before")
        if entries:
            raise UserError(f"{self.folder}: every checkpoint is damaged; delete the folder to start anew")
        return None

    def save_best(self, weights: Mapping[str, Any]) -> str:
        """Write the best weights so far; their sha256."""
        return self._write(BEST, self.meta | {"state_dict": dict(weights)} if self.meta else weights)

    def best_is(self, sha256: str) -> bool:
        """Whether the best weights are there and have this sha256."""
        path = self.folder / BEST
        return path.exists() and sha256_of(path) == sha256

    def warn(self, text: str) -> None:
        """A warning on stderr and for whoever follows the run: workers' own output stays in Ray's logs."""
        print(f"warning: {text}", file=sys.stderr, flush=True)
        append(self.folder / WARNINGS, " ".join(text.split()) + "\n")

    def append_log(self, line: Mapping[str, Any]) -> None:
        self.refuse_if_superseded()
        with writing(self.folder / LOG), destination(self.folder / LOG).open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill cut the last line short; it must not swallow this one
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")

    def note_damaged(self, step: int, samples: Sequence[str]) -> None:
        """Remember damaged samples that this rank skipped in update `step`; every rank appends to the one
        list.
        """
        if samples:
            append(self.folder / DAMAGED, "".join(f"{step}\t{text}\n" for text in samples))

    def damaged(self) -> int:
        """How often a damaged sample was skipped in this run, by all ranks; steps that a resumed run repeats
        count once.
        """
        path = self.folder / DAMAGED
        return len(set(path.read_text().splitlines())) if path.exists() else 0

    def finish(self, receipt: Mapping[str, Any]) -> None:
        write_atomic(self.folder / "finished.json", json.dumps(dict(receipt), indent=1))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All reports of a store, one per step and kind: where a killed run was repeated from a checkpoint the
    later counts.
    """
    path = folder / LOG
    by_step: dict[tuple[int, bool], dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            by_step[int(entry["step"]), "AP" in entry] = entry
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):  # the line a kill cut short
            continue
    return [by_step[key] for key in sorted(by_step)]
