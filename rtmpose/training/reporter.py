"""What a run reports, on its way to MLflow and to the store's log. Each report arrives once, whatever was
killed in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtmpose.files import UserError, read_json, write_atomic
from rtmpose.tracking import runs
from rtmpose.training.checkpoint import Store, read_log

RUN_FILE = "run.json"
RETRY_AFTER = 300.0  # seconds without a request after one that failed: it keeps the other workers waiting


def open_run(folder: Path, name: str, tags: Mapping[str, str], known_run: str | None = None) -> str:
    """The MLflow run of what is trained in `folder`, opened again or new: its id lies there in `run.json`
    before anything else.

    `known_run` is the id that a checkpoint holds; it counts where that file is lost.
    """
    file = folder / RUN_FILE
    known = read_json(file)["run_id"] if file.exists() else known_run
    run_id = runs.start_or_resume_run(name, known, tags=tags)
    write_atomic(file, json.dumps({"run_id": run_id}))
    return run_id


class Reporter:
    """Sends a run's reports to its MLflow run and to `train.log`.

    MLflow itself is asked what a killed process had sent already; what was only written to `train.log` is
    sent first. A tracking server that does not answer stops no training: its reports wait for the next time
    it does.
    """

    def __init__(self, stage: str, run_id: str, store: Store) -> None:
        self.stage, self.run_id, self.store = stage, run_id, store
        self.sent: set[tuple[int, bool]] | None = None
        self.waiting = read_log(store.folder)
        self.next_try = 0.0  # on the monotonic clock

    def __call__(self, line: dict[str, Any]) -> None:
        self.store.refuse_if_superseded()  # a worker that outlived its driver must not report any more
        self.waiting.append(line)
        if time.monotonic() >= self.next_try:
            try:
                self._send()
            except UserError as error:
                self.next_try = time.monotonic() + RETRY_AFTER
                self.store.warn(f"step {line['step']}: {error}")
        self.store.append_log(line)

    def _send(self) -> None:
        if self.sent is None:
            updates, evaluations = (
                runs.logged_steps(self.run_id, f"{self.stage}/{name}") for name in ("lr", "AP")
            )
            self.sent = {(step, False) for step in updates} | {(step, True) for step in evaluations}
        while self.waiting:
            line = self.waiting[0]
            key = (line["step"], "AP" in line)
            if key not in self.sent:
                runs.log_metrics(self.run_id, curves(self.stage, line), step=line["step"])
                self.sent.add(key)
            self.waiting.pop(0)


def curves(stage: str, line: dict[str, Any]) -> dict[str, Any]:
    """What of a report becomes a point of a curve in MLflow; before the first evaluation there is no
    best AP.
    """
    unknown = {"step", "steps"} | ({"best_AP"} if line.get("best_AP", 0) < -1 else set())
    return {f"{stage}/{name}": value for name, value in line.items() if name not in unknown}
