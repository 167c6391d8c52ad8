"""Curves of training: loss, AP on the tuning split, learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtmpose.files import UserError
from rtmpose.report import charts
from rtmpose.report.blocks import Block, Chart, Note, Part, Section, Table, section
from rtmpose.report.charts import Point
from rtmpose.report.folder import Folder

STAGES = ("pretrain", "finetune")
ROWS = 12  # of the tables


def curves(run: Folder) -> Section:
    return section(
        "training",
        "Training",
        lambda: _of_both(run, "loss", "loss", logarithmic=True),
        lambda: _ap(run),
        lambda: _of_both(run, "lr", "learning rate"),
    )


def _of_both(run: Folder, column: str, what: str, *, logarithmic: bool = False) -> Part:
    """One column of both stages' curves, as far as they are there."""
    series: dict[str, Sequence[Point]] = {}
    notes: list[Block] = []
    for stage in STAGES:
        try:
            found = [(x, y) for x, y in run.columns(f"metrics/{stage}.csv", "step", column)]
        except UserError as error:
            notes.append(Note(f"No {what} of {stage}: {error}.", "missing"))
            continue
        if logarithmic:
            found = [(x, y) for x, y in found if y > 0]
        if found:
            series[stage] = found
    if not series:
        raise UserError(f"the {what} of training: no stage has left its curve")
    alt = "; ".join(
        f"{stage}: from {points[0][1]:.3g} at update {points[0][0]:.0f} to {points[-1][1]:.3g} at update "
        f"{points[-1][0]:.0f}"
        for stage, points in series.items()
    )
    svg = charts.lines(f"chart-{column}", series, "update", what, logarithmic=logarithmic)
    return Part((Chart(what.capitalize(), svg, f"{what.capitalize()} by update. {alt}.",
                       _table(what, series)), *notes))  # fmt: skip


def _ap(run: Folder) -> Part:
    found = run.columns("metrics/finetune_ap.csv", "step", "AP")
    if not found:
        raise UserError("metrics/finetune_ap.csv: holds no AP; `dvc repro finetune` writes it")
    points = [(step, 100 * ap) for step, ap in found]
    series = {"finetune": points}
    step, best = max(points, key=lambda point: point[1])
    alt = f"AP on the tuning split: {points[0][1]:.1f} at first, {best:.1f} at best, at update {step:.0f}."
    svg = charts.lines("chart-ap", series, "update", "AP on the tuning split", dots=True)
    return Part((Chart("AP on the tuning split", svg, alt, _table("AP", series)),))


def _table(what: str, series: Mapping[str, Sequence[Point]]) -> Table:
    """Some points of each curve, evenly spread, with its last one."""
    rows = []
    for stage, points in series.items():
        step = max(1, len(points) // ROWS)
        chosen = sorted({*range(0, len(points), step), len(points) - 1})
        rows += [(stage, f"{points[place][0]:.0f}", f"{points[place][1]:.4g}") for place in chosen]
    return Table.of(f"{what.capitalize()}: some of its points", ("stage", "update", what), rows)
