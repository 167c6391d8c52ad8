"""What a run reports, on its way to MLflow and to the store's log: each report once, whatever was killed in between."""

from __future__ import annotations

import time
from typing import Any

from rtmpose import registry
from rtmpose.files import UserError
from rtmpose.training.checkpoint import Store, read_log

PAUSE = 300.0  # seconds without a request after one that failed: the other workers wait while this one does


class Reporter:
    """Sends a run's reports to its MLflow run and to `train.log`.

    MLflow itself is asked what a killed process had sent already; what was only written to `train.log` is sent first. A
    tracking server that does not answer stops no training: its reports wait for the next time it does.
    """

    def __init__(self, stage: str, run_id: str, store: Store) -> None:
        self.stage, self.run_id, self.store = stage, run_id, store
        self.sent: set[tuple[int, bool]] | None = None
        self.waiting = read_log(store.folder)
        self.again = 0.0  # when to try again

    def __call__(self, line: dict[str, Any]) -> None:
        self.store.check()  # a worker that outlived its driver must not report beside the new one
        self.waiting.append(line)
        if time.monotonic() >= self.again:
            try:
                self._send()
            except UserError as error:
                self.again = time.monotonic() + PAUSE
                self.store.warn(f"step {line['step']}: {error}")
        self.store.append_log(line)

    def _send(self) -> None:
        if self.sent is None:
            updates, evaluations = (logged_steps(self.run_id, f"{self.stage}/{name}") for name in ("lr", "AP"))
            self.sent = {(step, False) for step in updates} | {(step, True) for step in evaluations}
        while self.waiting:
            line = self.waiting[0]
            key = (line["step"], "AP" in line)
            if key not in self.sent:
                registry.log_metrics(self.run_id, curves(self.stage, line), step=line["step"])
                self.sent.add(key)
            self.waiting.pop(0)


def curves(stage: str, line: dict[str, Any]) -> dict[str, Any]:
    """What of a report becomes a point of a curve in MLflow; before the first evaluation there is no best AP."""
    unknown = {"step", "steps"} | ({"best_AP"} if line.get("best_AP", 0) < -1 else set())
    return {f"{stage}/{name}": value for name, value in line.items() if name not in unknown}


def logged_steps(run_id: str, key: str) -> set[int]:
    """The steps at which MLflow has the metric `key` of a run; UserError when it does not answer."""
    from mlflow.exceptions import MlflowException

    try:
        return {metric.step for metric in registry.client().get_metric_history(run_id, key)}
    except MlflowException as error:
        where = registry.without_password(registry.tracking_uri())
        reason = str(error).partition("\n")[0]
        raise UserError(f"MLFLOW_TRACKING_URI: {where} does not answer ({reason})") from None
