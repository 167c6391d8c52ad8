"""A search as people see it: a line and a row for each trial, a picture of all, and a child run in MLflow."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmpose import registry
from rtmpose.config import SearchRange, UserError, write_atomic
from rtmpose.training.progress import write_csv
from rtmpose.training.reports import logged_steps
from rtmpose.training.search_ledger import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]
STATUS = {"running": "RUNNING", "stopped": "KILLED", "finished": "FINISHED"}  # in MLflow's words
PER_LINE = 4  # plots beside one another


def row(trial: TrialRecord) -> Row:
    """A trial that has ended, as it is kept and compared: its last AP counts."""
    last = trial.reports[-1]
    named = {"trial": trial.number, "reference": trial.reference, "seed": trial.seed, "status": trial.status}
    return named | {"point": trial.point, "AP": last["AP"], "steps": last["step"], "reports": trial.reports}


def trial_line(trial: TrialRecord) -> str:
    """A trial that has ended, in one line."""
    last = trial.reports[-1]
    values = "  ".join(f"{path} {shown(value)}" for path, value in trial.point.items())
    kind = "  (reference)" if trial.reference else "  (stopped)" if trial.status == "stopped" else ""
    return f"trial {trial.number:3d}  {values}  step {last['step']:6d}  AP {last['AP']:.3f}{kind}"


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_table(path: Path, space: list[str], rows: list[Row]) -> None:
    """Every trial with all its parameters as CSV, for `dvc plots`."""
    fields = ["trial", "reference", "seed", "status", *space, "steps", "AP"]
    write_csv(path, fields, [trial | trial["point"] for trial in rows])


class TrialRuns:
    """The trials in MLflow, as child runs of `parent`: parameters, the curve of AP, how each ended.

    MLflow itself is asked which runs and which points of a curve it has, so nothing is logged twice, whatever was killed.
    A tracking server that does not answer stops no trial: what it missed is sent when the trial, or the search, is next
    heard of.
    """

    def __init__(self, parent: str, tags: Mapping[str, str]) -> None:
        self.tags = {key: tags[key] for key in ("stage", "git_commit", "data_manifest_sha256")} | {"mlflow.parentRunId": parent}
        store = registry.client()
        experiment = store.get_run(parent).info.experiment_id
        found = store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=10_000)
        self.ids = {int(run.data.tags["trial"]): run.info.run_id for run in found if "trial" in run.data.tags}
        self.sent: dict[int, set[int]] = {}

    def log(self, trial: TrialRecord, status: str | None = None) -> None:
        """Bring a trial's run up to date; `status` where it is not what the ledger says."""
        try:
            self._log(trial, status or STATUS[trial.status])
        except UserError as error:
            print(f"warning: trial {trial.number}: {error}", file=sys.stderr, flush=True)

    def _log(self, trial: TrialRecord, status: str) -> None:
        number = trial.number
        if number not in self.sent:
            tags = self.tags | {"trial": str(number)}
            self.ids[number] = registry.start_or_resume_run(f"trial {number}", self.ids.get(number), tags=tags)
            about = {"seed": trial.seed, "reference": trial.reference}
            registry.log_params_flat(self.ids[number], trial.point | about)
            self.sent[number] = logged_steps(self.ids[number], "AP")
        for report in trial.reports:
            if report["step"] not in self.sent[number]:
                registry.log_metrics(self.ids[number], {"AP": report["AP"]}, step=report["step"])
                self.sent[number].add(report["step"])
        if status != "RUNNING":
            registry.end_run(self.ids[number], status)


def draw(path: Path, space: Mapping[str, SearchRange], rows: list[Row], note: str) -> None:
    """A PNG: all trials over parallel axes, AP against each parameter, and AP against updates. Colour is AP throughout."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    plots = [*space, "steps"] if rows else []
    columns = min(max(len(plots), 1), PER_LINE)
    lines = -(-len(plots) // columns)
    figure = Figure(figsize=(max(3.2 * columns, 7.0), 3.2 * (1 + lines)), layout="constrained")
    grid = figure.add_gridspec(1 + lines, columns)
    figure.suptitle(note, fontsize=10)
    top = figure.add_subplot(grid[0, :])
    if not rows:
        top.set_axis_off()
    else:
        aps = [trial["AP"] for trial in rows]
        scale = Normalize(min(aps), max(max(aps), min(aps) + 1e-6))
        colours = [colormaps["viridis"](scale(ap)) for ap in aps]
        draw_parallel(top, space, rows, colours)
        for index, name in enumerate(plots):
            axes = figure.add_subplot(grid[1 + index // columns, index % columns])
            draw_curves(axes, rows, colours) if name == "steps" else draw_response(axes, name, space[name], rows, colours)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    write_atomic(path, picture.getvalue())


def draw_parallel(axes: Axes, space: Mapping[str, SearchRange], rows: list[Row], colours: list[Any]) -> None:
    """One line per trial over one axis per parameter and one for AP, each scaled to its range; the reference is dashed."""
    aps = [trial["AP"] for trial in rows]
    low, high = min(aps), max(aps)
    for trial, colour in zip(rows, colours, strict=True):
        heights = [position(allowed, trial["point"][path]) for path, allowed in space.items()]
        heights.append((trial["AP"] - low) / (high - low) if high > low else 0.5)
        axes.plot(heights, "--" if trial["reference"] else "-", color=colour, linewidth=1.5)
    for index, allowed in enumerate(space.values()):
        bottom, top = ends(allowed)
        axes.text(index, -0.03, bottom, ha="center", va="top", fontsize=8)
        axes.text(index, 1.03, top, ha="center", va="bottom", fontsize=8)
    axes.text(len(space), -0.03, f"{low:.3f}", ha="center", va="top", fontsize=8)
    axes.text(len(space), 1.03, f"{high:.3f}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks(range(len(space) + 1), [*space, "AP"])
    axes.tick_params(axis="x", pad=14)
    axes.set_yticks([])
    axes.set_ylim(0, 1)
    axes.grid(axis="x")
    for side in axes.spines.values():
        side.set_visible(False)


def ends(allowed: SearchRange) -> tuple[str, str]:
    """What an axis begins and ends with."""
    if allowed.choices is not None:
        return str(allowed.choices[0]), str(allowed.choices[-1])
    return f"{allowed.low:g}", f"{allowed.high:g}"


def position(allowed: SearchRange, value: Any) -> float:
    """Where a value lies between the ends of its range, 0 to 1; the recipe's own may lie outside and is put at an end."""
    if allowed.choices is not None:
        places = len(allowed.choices)
        return allowed.choices.index(value) / max(places - 1, 1) if value in allowed.choices else 0.0
    if value is None:
        return 0.0
    assert allowed.low is not None and allowed.high is not None
    low, high, at = ((math.log(max(x, 1e-300)) if allowed.log else x) for x in (allowed.low, allowed.high, value))
    return min(max((at - low) / (high - low), 0.0), 1.0)


def draw_response(axes: Axes, path: str, allowed: SearchRange, rows: list[Row], colours: list[Any]) -> None:
    """AP against one parameter; crosses are the reference, hollow points trials that were stopped early."""
    for trial, colour in zip(rows, colours, strict=True):
        value = trial["point"][path]
        place = position(allowed, value) * (len(allowed.choices) - 1) if allowed.choices is not None else value
        if place is None:
            continue
        face = "none" if trial["status"] == "stopped" else colour
        if trial["reference"]:
            axes.scatter([place], [trial["AP"]], marker="x", color="black", zorder=3)
        else:
            axes.scatter([place], [trial["AP"]], facecolors=face, edgecolors=colour)
    if allowed.choices is not None:
        axes.set_xticks(range(len(allowed.choices)), [str(choice) for choice in allowed.choices])
    elif allowed.log:
        assert allowed.low is not None and allowed.high is not None
        marks = [allowed.low, math.sqrt(allowed.low * allowed.high), allowed.high]
        axes.set_xscale("log")
        axes.set_xticks(marks, [f"{mark:.2g}" for mark in marks])
        axes.minorticks_off()
    axes.set_xlabel(path)
    axes.set_ylabel("AP")


def draw_curves(axes: Axes, rows: list[Row], colours: list[Any]) -> None:
    """AP against updates; a trial that was stopped early ends early."""
    for trial, colour in zip(rows, colours, strict=True):
        reports = trial["reports"]
        style, shade = ("x", "black") if trial["reference"] else ("o-", colour)
        axes.plot([report["step"] for report in reports], [report["AP"] for report in reports], style, color=shade)
    axes.set_xlabel("updates")
    axes.set_ylabel("AP")
