"""The evidence of a version, gathered from what the stages left: of a benchmark's report what counts is the
picked configuration, for the target's own calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from rtmpose.config import Record, parse
from rtmpose.deploy.report import NOISE, check_budgets, refuse_other_target
from rtmpose.deploy.runtimes.base import tried_name
from rtmpose.deploy.targets import Budget, Target, load_target
from rtmpose.files import UserError, read_json
from rtmpose.promotion.evidence import BudgetKept, Comparison, Cost, Evidence

COMPARED, BENCHMARKS = Path("metrics/compare.json"), Path("metrics/benchmark")
AGAIN = "run the benchmark stage again"


class _Report(Record):
    """What is read of a report. `images` says what the points were compared on."""

    target: str
    measured_at: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")
    machine: dict[str, Any]
    files: dict[str, str]
    images: str
    results: list[dict[str, Any]]
    rival: dict[str, Any] | None


def gather(targets: Sequence[str]) -> Evidence:
    """The evidence that the stages left in the current folder; UserError naming the file that is missing or
    damaged.
    """
    comparison = parse(Comparison, read_json(COMPARED, "run the compare stage again"), COMPARED)
    costs = {}
    for target in targets:
        accuracy = comparison.targets.get(target)
        if accuracy is not None and accuracy.picked is not None:
            path = BENCHMARKS / f"{target}.json"
            report = read_json(path, AGAIN)
            costs[target] = cost_of(report, accuracy.picked, load_target(target), path)
    return Evidence(comparison=comparison, costs=costs)


def cost_of(report: Mapping[str, Any], picked: str, target: Target, path: Path) -> Cost:
    """What the configuration `picked` costs, by the report at `path`; UserError where it was not measured,
    or the report is another target's.

    The target's own calls are those that a pick is made for: the smallest batch on the most threads. Of the
    target's budgets all count that concern the picked runtime and precision, for whatever calls they are.
    """
    parse(_Report, report, path)
    refuse_other_target(report, target, path)
    rows = [
        row
        for row in report["results"]
        if tried_name(row["runtime"], row["precision"], target.device) == picked
    ]
    if not rows:
        raise UserError(f"{path}: {picked} was picked and is not among the results; {AGAIN}")
    row = min(rows, key=lambda one: (one["batch"], -one["threads"]))
    budgets = [budget for budget in target.budgets if _concerns(budget, row)]
    rival, beside = report["rival"], row["beside_rival"]
    return Cost(
        measured_at=datetime.fromisoformat(report["measured_at"]),
        machine={key: report["machine"].get(key) for key in ("cpu", "kind", "cores")},
        files={name: report["files"][name] for name in row["files"]},
        champion_version=None if rival is None else rival["version"],
        champion_picked=_picked(rival, target),
        not_compared=_reason(rival, beside),
        images=report["images"],
        parity_px=None if report["images"] == NOISE else row["keypoints_px_mean"],
        p50_ms=row["p50_ms"],
        memory_mb=row["memory_mb"],
        device=target.device,
        gpu_memory_mb=row["gpu_memory_mb"],
        file_mb=row["file_mb"],
        beside=beside or {},
        budgets=tuple(BudgetKept.model_validate(one) for one in check_budgets(budgets, rows)),
    )


def _concerns(budget: Budget, row: Mapping[str, Any]) -> bool:
    return budget.runtime in (None, row["runtime"]) and budget.precision in (None, row["precision"])


def _picked(rival: Mapping[str, Any] | None, target: Target) -> str | None:
    """What the champion was measured in; None where it has nothing there, or there is none."""
    if rival is None or "runtime" not in rival:
        return None
    return tried_name(rival["runtime"], rival["precision"], target.device)


def _reason(rival: Mapping[str, Any] | None, beside: Mapping[str, Any] | None) -> str | None:
    """Why a report with a champion in it compares nothing."""
    if rival is None or beside is not None:
        return None
    return str(
        rival.get("not_possible") or "; ".join(rival["skipped"]) or "it was not measured for such calls"
    )
