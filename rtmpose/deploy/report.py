"""What a benchmark shows: a table, the budgets beside what was measured, and a picture."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rtmpose.deploy.targets import AT_LEAST, Budget, Target
from rtmpose.files import UserError

Row = Mapping[str, Any]
# Title, key, width and form of the table's columns of numbers.
COLUMNS = (
    ("p50 ms", "p50_ms", 9, ".2f"),
    ("p95 ms", "p95_ms", 9, ".2f"),
    ("p99 ms", "p99_ms", 9, ".2f"),
    ("images/s", "images_per_s", 10, ".1f"),
    ("ratio", "ratio", 7, ".2f"),
    ("cores", "cores_used", 7, ".2f"),
    ("MB", "file_mb", 7, ".1f"),
    ("RAM MB", "memory_mb", 8, ".0f"),
    ("start s", "startup_s", 8, ".2f"),
    ("max diff", "max_diff", 10, ".1e"),
    ("px mean", "keypoints_px_mean", 9, ".3f"),
    ("px max", "keypoints_px_max", 8, ".2f"),
)
NOISE = "noise"  # `images` of a report whose points were compared on no person
MOST_BARS = 60  # of a picture that can still be read


def short(row: Row) -> str:
    """A configuration's name as DVC and MLflow know it."""
    return f"{row['runtime']}_{row['precision']}_threads{row['threads']}_batch{row['batch']}"


def table(report: Row) -> str:
    """The report as text: one line per configuration, then what was skipped and why, then the budgets."""
    head = f"{'runtime':<21}{'prec':<6}{'threads':>7}{'batch':>6}"
    lines = [head + "".join(f"{title:>{width}}" for title, _, width, _ in COLUMNS)]
    for row in report["results"]:
        who = f"{row['runtime']:<21}{row['precision']:<6}{row['threads']:>7}{row['batch']:>6}"
        lines.append(who + "".join(_cell(row[key], width, form) for _, key, width, form in COLUMNS))
    lines.append(f"ratio: p50 to {report['compared_with']}, paired by rounds; energy: {report['energy']}")
    lines += [f"skipped: {line}" for line in report["skipped"]]
    lines += [
        f"budget {'kept' if each['kept'] else 'BROKEN'}: {each['budget']}: {each['key']} "
        f"{'not measured' if each['measured'] is None else each['measured']} of "
        f"{'at least' if each['key'] in AT_LEAST else 'at most'} {each['limit']}"
        f"{'' if each['by'] is None else ' by ' + each['by']}"
        for each in report["budgets"]
    ]
    return "\n".join(lines)


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


def refuse_other_target(report: Row, target: Target, path: Path) -> None:
    """UserError where the report at `path` is not of this target, whatever the file is called."""
    if (other := report.get("target")) != target.name:
        raise UserError(
            f"{path}: target: is {other or 'not named'}, not {target.name}; run the benchmark stage of "
            f"{target.name} again"
        )


def check_budgets(budgets: Iterable[Budget], results: Sequence[Row]) -> list[dict[str, Any]]:
    """Each limit of each budget beside what was measured: {budget, key, limit, measured, by, kept}.

    Where several configurations could keep a budget, `by` names the quickest that keeps all of it, else the
    quickest. What was not measured has not been kept.
    """
    checked: list[dict[str, Any]] = []
    for budget in budgets:
        rows = sorted(filter(budget.concerns, results), key=lambda row: row["p50_ms"])
        best = next((row for row in rows if _keeps(row, budget)), rows[0] if rows else None)
        for key, limit in budget.limits().items():
            measured = None if best is None else best[key]
            checked.append(
                {
                    "budget": str(budget),
                    "key": key,
                    "limit": limit,
                    "measured": measured,
                    "by": None if best is None else short(best),
                    "kept": _within(measured, key, limit),
                }
            )
    return checked


def broken(row: Row, budgets: Iterable[Budget]) -> list[str]:
    """A reason for each limit that a row breaks of the budgets that concern it; what was not measured has not
    been kept.
    """
    limits = [pair for budget in budgets if budget.concerns(row) for pair in budget.limits().items()]
    return [
        f"{key} {'was not measured' if row.get(key) is None else format(row[key], '.4g')}, the budget is "
        f"{limit:g}"
        for key, limit in limits
        if not _within(row.get(key), key, limit)
    ]


def _keeps(row: Row, budget: Budget) -> bool:
    return all(_within(row[key], key, limit) for key, limit in budget.limits().items())


def _within(measured: float | None, key: str, limit: float) -> bool:
    if measured is None:
        return False
    return measured >= limit if key in AT_LEAST else measured <= limit


def picture(report: Row) -> bytes:
    """A PNG: p50 of every configuration with its interval, and p95, in ms on a logarithmic scale."""
    from matplotlib.figure import Figure

    found = sorted(report["results"], key=lambda row: (row["batch"], row["threads"], row["p50_ms"]))
    rows = found[:MOST_BARS][::-1]  # the first one stands at the top
    figure = Figure(figsize=(8, 1.2 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        low, high = row["p50_interval"] or (row["p50_ms"], row["p50_ms"])
        axes.plot([low, high], [place, place], color="C0", linewidth=4, solid_capstyle="butt")
        axes.plot(row["p50_ms"], place, "o", color="C0", label="p50, 95 % interval" if not place else None)
        axes.plot(row["p95_ms"], place, "|", color="C1", label="p95" if not place else None)
    names = [f"{r['runtime']} {r['precision']}, {r['threads']} thr, batch {r['batch']}" for r in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("ms a call")
    machine = report["machine"]
    axes.set_title(f"{report['target']}: {machine['cpu']} ({machine['kind']})", fontsize=9)
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend(fontsize=7)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
