"""What a search shows: a line and a row of the table for each trial, a picture of all, and a child run in
MLflow.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmpose.config import SearchRange
from rtmpose.files import UserError, write_atomic, write_csv
from rtmpose.search.choice import Choice
from rtmpose.search.ledger import FIGURES, UNMEASURED, TrialRecord
from rtmpose.search.plan import Row, best_of, reference_ap
from rtmpose.tracking import runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MLFLOW_STATUS = {"running": "RUNNING", "stopped": "KILLED", "finished": "FINISHED"}  # in MLflow's words
MARKS = {"reference": "x", "repeat": "+"}  # the marks of what was not searched
PLOTS_PER_ROW = 4  # plots beside one another, at most
COLOURS = "viridis_r"  # the best are the darkest


def trial_line(trial: TrialRecord) -> str:
    """A trial that has ended, in one line."""
    last = trial.reports[-1]
    ap = "not a number" if last.get(UNMEASURED) else f"{last['AP']:.3f}"
    values = "  ".join(f"{path} {shown(value)}" for path, value in trial.point.items())
    kind = (
        "  (stopped)"
        if trial.status == "stopped"
        else ""
        if trial.kind == "searched"
        else f"  ({trial.kind})"
    )
    return f"trial {trial.number:3d}  {values}  step {last['step']:6d}  AP {ap}{kind}"


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_table(path: Path, space: list[str], rows: list[Row]) -> None:
    """Every trial with all its parameters as CSV, for `dvc plots`."""
    fields = ["trial", "kind", "seed", "status", *space, "steps", "AP"]
    write_csv(path, fields, [trial | trial["point"] for trial in rows])


class TrialRuns:
    """The trials in MLflow, as child runs of `parent`: parameters, curves, how each ended.

    MLflow itself is asked which runs and which points of a curve it has, so nothing is logged twice, whatever
    was killed. A tracking server that does not answer stops no trial: what it missed is sent when the trial,
    or the search, is next heard of.
    """

    def __init__(self, parent: str, tags: Mapping[str, str]) -> None:
        self.tags = {key: tags[key] for key in ("stage", "git_commit", "data_manifest_sha256")} | {
            "mlflow.parentRunId": parent
        }
        store = runs.client()
        experiment = store.get_run(parent).info.experiment_id
        found = store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=10_000)
        self.ids = {int(run.data.tags["trial"]): run.info.run_id for run in found if "trial" in run.data.tags}
        self.sent: dict[int, set[int]] = {}

    def log(self, trial: TrialRecord, status: str | None = None) -> None:
        """Bring a trial's run up to date; `status` where it is not what the ledger says."""
        try:
            self._log(trial, status or MLFLOW_STATUS[trial.status])
        except UserError as error:
            print(f"warning: trial {trial.number}: {error}", file=sys.stderr, flush=True)

    def _log(self, trial: TrialRecord, status: str) -> None:
        number = trial.number
        if number not in self.sent:
            tags = self.tags | {"trial": str(number)}
            self.ids[number] = runs.start_or_resume_run(f"trial {number}", self.ids.get(number), tags=tags)
            about = {"seed": trial.seed, "kind": trial.kind}
            runs.log_params_flat(self.ids[number], trial.point | about)
            self.sent[number] = runs.logged_steps(self.ids[number], "AP")
        for report in trial.reports:
            if report["step"] not in self.sent[number]:
                figures = {key: report[key] for key in FIGURES if key in report}
                runs.log_metrics(self.ids[number], figures, step=report["step"])
                self.sent[number].add(report["step"])
        if status != "RUNNING":
            runs.end_run(self.ids[number], status)


def draw(path: Path, space: Mapping[str, SearchRange], rows: Sequence[Row], choice: Choice) -> None:
    """A PNG: all trials over parallel axes, AP against each parameter, and AP against updates. Colour is AP
    throughout.
    """
    from matplotlib.figure import Figure

    names = [*space, "updates"] if rows else []
    lines = -(-len(names) // PLOTS_PER_ROW)
    columns = -(-len(names) // lines) if lines else 1
    figure = Figure(
        figsize=(max(3.0 * columns, 8.0), 3.4 + 3.0 * lines if rows else 1.5), layout="constrained"
    )
    figure.suptitle(f"Search by AP on the tuning split: {choice.note}", fontsize=10, wrap=True)
    if rows:
        grid = figure.add_gridspec(1 + lines, columns, height_ratios=[1.2] + [1.0] * lines)
        rows = sorted(rows, key=lambda trial: trial["AP"])  # the best above the others
        colours = draw_parallel(figure.add_subplot(grid[0, :]), space, rows)
        first = None
        for index, name in enumerate(names):
            axes = figure.add_subplot(grid[1 + index // columns, index % columns], sharey=first)
            first = first or axes
            draw_curves(axes, rows, colours) if name == "updates" else draw_response(
                axes, space[name], name, rows, colours
            )
            axes.set_xlabel(name)
            axes.set_ylabel("" if index % columns else "AP")
            axes.tick_params(labelleft=index % columns == 0)
            axes.margins(y=0.1)
        best = "chosen" if choice.values else "best trial, not chosen"
        figure.legend(
            handles=legend(best, rows), loc="outside lower center", ncols=6, fontsize=8, frameon=False
        )
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    write_atomic(path, picture.getvalue())


def legend(best: str, rows: Sequence[Row]) -> list[Any]:
    """What the marks mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def mark(label: str, marker: str, **looks: Any) -> Line2D:
        return Line2D([], [], color="black", marker=marker, label=label, **({"linestyle": "none"} | looks))

    reference = mark("reference: the recipe's values", MARKS["reference"], linestyle="--")
    marks = [reference, Patch(color="0.9", label="within its noise"), mark("trial", "o")]
    if any(trial["status"] == "stopped" for trial in rows):
        marks.append(mark("stopped early", "o", markerfacecolor="none"))
    if best_of(rows)["kind"] != "reference":
        marks.append(mark(best, "*", markersize=12))
    if any(trial["kind"] == "repeat" for trial in rows):
        marks.append(mark("best trial, other seeds", MARKS["repeat"]))
    return marks


def draw_parallel(axes: Axes, space: Mapping[str, SearchRange], rows: Sequence[Row]) -> list[Any]:
    """One line per trial over one axis per parameter and one for AP; the reference dashed, the best thick.
    Its colours.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = rows[0]["AP"], max(rows[-1]["AP"], rows[0]["AP"] + 1e-3)
    pale = Normalize(low - 0.15 * (high - low), high)  # the very lightest is hard to see on white
    colours, best = [colormaps[COLOURS](pale(trial["AP"])) for trial in rows], best_of(rows)
    for trial, colour in zip(rows, colours, strict=True):
        heights = [*(position(allowed, trial["point"][path]) for path, allowed in space.items())]
        heights.append((trial["AP"] - low) / (high - low))
        if trial["kind"] == "reference":
            axes.plot(heights, "x--", color="black", linewidth=1.2, zorder=3)
        else:
            axes.plot(heights, color=colour, linewidth=3.5 if trial is best else 1.5)
    scales = [ticks(allowed) for allowed in space.values()]
    for index, labels in enumerate([*scales, [(0.0, f"{low:.3f}"), (1.0, f"{high:.3f}")]]):
        axes.plot([index, index], [0, 1], color="0.6", linewidth=0.8, zorder=0)
        for height, label in labels:
            _axis_label(axes, index, height, label)
    axes.set_xticks(range(len(space) + 1), [*space, "AP"])
    axes.set_yticks([])
    axes.set_ylim(-0.09, 1.09)
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(ScalarMappable(pale, COLOURS), ax=axes, label="AP", pad=0.01).ax.set_ylim(low, high)
    return colours


def _axis_label(axes: Axes, index: int, height: float, label: str) -> None:
    """Above or below the ends of a vertical axis, beside it elsewhere."""
    if height in (0.0, 1.0):
        axes.text(index, height + 0.06 * (1 if height else -1), label, ha="center", va="center", fontsize=8)
    else:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        axes.text(index - 0.015, height, label, ha="right", va="center", fontsize=8, bbox=box, zorder=4)


def position(allowed: SearchRange, value: Any) -> float:
    """Where a value lies between the ends of its range, 0 to 1; NaN for what is not on the axis, as the
    recipe's own may be.
    """
    if allowed.choices is not None:
        places = max(len(allowed.choices) - 1, 1)
        return allowed.choices.index(value) / places if value in allowed.choices else math.nan
    assert allowed.low is not None and allowed.high is not None
    if value is None or not allowed.low <= value <= allowed.high:
        return math.nan
    low, high, at = ((math.log(x) if allowed.log else x) for x in (allowed.low, allowed.high, value))
    return (at - low) / (high - low)


def ticks(allowed: SearchRange) -> list[tuple[float, str]]:
    """Positions and labels of an axis: every choice, or both ends and round numbers between them."""
    if allowed.choices is not None:
        return [(position(allowed, choice), str(choice)) for choice in allowed.choices]
    assert allowed.low is not None and allowed.high is not None
    low, high = allowed.low, allowed.high
    if allowed.log:
        digits = (1, 2, 5) if high / low < 20 else (1,)
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        between = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
    else:
        between = [(low + high) / 2]
    inner = [
        value for value in between if 0.12 < position(allowed, value) < 0.88
    ]  # apart from the ends' labels
    return [(position(allowed, value), f"{value:.4g}") for value in (low, *inner, high)]


def draw_response(
    axes: Axes, allowed: SearchRange, path: str, rows: Sequence[Row], colours: Sequence[Any]
) -> None:
    """AP against one parameter, above the band that a trial must leave to be chosen."""
    best = best_of(rows)
    _reference_band(axes, rows)
    for trial, colour in zip(rows, colours, strict=True):
        place = position(allowed, trial["point"][path])
        if trial["kind"] != "searched":
            axes.plot(place, trial["AP"], MARKS[trial["kind"]], color="black", zorder=3)
        else:
            marker, face = "*" if trial is best else "o", "none" if trial["status"] == "stopped" else colour
            size = 13 if trial is best else 6
            axes.plot(place, trial["AP"], marker, color=colour, markerfacecolor=face, markersize=size)
    places, labels = zip(*ticks(allowed), strict=True)
    axes.set_xticks(places, labels)
    axes.set_xlim(-0.08, 1.08)


def draw_curves(axes: Axes, rows: Sequence[Row], colours: Sequence[Any]) -> None:
    """AP against updates; a trial that was stopped early ends early."""
    best = best_of(rows)
    _reference_band(axes, rows)
    for trial, colour in zip(rows, colours, strict=True):
        steps, aps = zip(*((report["step"], report["AP"]) for report in trial["reports"]), strict=True)
        if trial["kind"] != "searched":
            axes.plot(steps, aps, MARKS[trial["kind"]], color="black", zorder=3)
        else:
            face = "none" if trial["status"] == "stopped" else colour
            axes.plot(steps, aps, "o-", color=colour, markerfacecolor=face, markersize=4)
            if trial is best:
                axes.plot(steps[-1], aps[-1], "*", color=colour, markersize=13)


def _reference_band(axes: Axes, rows: Sequence[Row]) -> None:
    """What counts as no better than the reference: from its worst run to its best one and the noise."""
    top, noise = reference_ap(rows)
    noise = noise if math.isfinite(noise) else 0.0  # of a reference that was not measured
    axes.axhspan(
        min(trial["AP"] for trial in rows if trial["kind"] == "reference"), top + noise, color="0.9", zorder=0
    )
