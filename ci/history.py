"""Keep what the benchmarks found over all runs of the workflow: `python -m ci.history metrics/benchmark 7`.

MLflow has one run called `benchmark history`. In it each run of the workflow leaves one line of JSON, an
artifact of its own, so that nothing is read and written back. Each also leaves one point of every target's
curve, which MLflow draws.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ci.picks import Picks, counted, read_picks
from ci.report import reports
from rtmpose.ending import run_command
from rtmpose.files import UserError, write_atomic
from rtmpose.fingerprint import git_commit
from rtmpose.tracking import runs
from rtmpose.tracking.answers import reachable

NAME = "benchmark history"


def line_of(found: Sequence[Mapping[str, Any]], picks: Picks, version: str, now: datetime) -> dict[str, Any]:
    """What is kept of one run of the workflow: when, of which version and commit, and what each target gets,
    for one image (`ci.picks`). Nothing was picked, or it was not measured: its figures are null.
    """
    targets = {}
    for report in found:
        picked, row = counted(report, picks)
        latency = ((row or {}).get("beside_rival") or {}).get("latency")
        targets[report["target"]] = {
            "configuration": picked if row is None else f"{picked}_threads{row['threads']}",
            "p50_ms": None if row is None else row["p50_ms"],
            "champion_ratio": None if latency is None else latency["ratio"],
            "cpu": report["machine"]["cpu"],
        }
    stamp = now.isoformat(timespec="seconds")
    return {"time": stamp, "version": version, "commit": git_commit(), "targets": targets}


def run_of_history() -> str:
    """The id of the run that holds the history, made where there is none."""
    store = runs.client()
    with reachable(runs.tracking_uri()):
        experiment = store.get_experiment_by_name(runs.EXPERIMENT)
        if experiment is not None:
            where = f"attributes.run_name = '{NAME}'"
            known = store.search_runs([experiment.experiment_id], where, max_results=1)
            if known:
                return str(known[0].info.run_id)
    return runs.start_or_resume_run(NAME)


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError("python -m ci.history: give the folder of the reports, and the version they are of")
    found, now = reports(Path(argv[0])), datetime.now(UTC)
    line = line_of(found, read_picks(), argv[1], now)
    step = int(os.environ.get("GITHUB_RUN_NUMBER") or now.timestamp())
    run_id = run_of_history()
    with tempfile.TemporaryDirectory() as folder:
        path = write_atomic(Path(folder) / f"{now:%Y-%m-%dT%H%M%SZ}-{step}.jsonl", json.dumps(line) + "\n")
        runs.log_file(run_id, path, "history")
    p50 = {name: one["p50_ms"] for name, one in line["targets"].items()}
    points = {name: {"p50_ms": value} for name, value in p50.items() if value is not None}
    runs.log_metrics(run_id, points, step)
    runs.end_run(run_id)
    print(json.dumps(line))


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
