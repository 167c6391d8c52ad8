"""A ladder as people see it: a table with confidence intervals beside the paper's figures, the same as data,
a picture.
"""

from __future__ import annotations

import io
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmpose.config import Params
from rtmpose.files import write_atomic, write_csv
from rtmpose.ladder.run import PLATEAU, Row
from rtmpose.ladder.rungs import PAPER_EPOCHS, Rung, ladder_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (
    "rung",
    "seed",
    "AP",
    "tuning_AP",
    "samples",
    "pretrain_samples",
    "plateau_samples",
    "minutes",
    "parameters",
)


@dataclass(frozen=True)
class Interval:
    """A mean and the half-width of its 95 % confidence interval; no half-width for fewer than two values."""

    mean: float
    half: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.half is not None and abs(self.mean) > self.half

    def shown(self, sign: bool = False) -> str:
        half = f" ± {self.half:.1f}" if self.half is not None else ""
        return f"{self.mean:+.1f}{half}" if sign else f"{self.mean:.1f}{half}"


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % confidence interval of independent values (Student's t)."""
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return Interval(values[0], None)
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count)
    return Interval(statistics.fmean(values), half)


@dataclass(frozen=True)
class Step:
    """A rung over its seeds: AP in percent, and how much more than the rung before, seed by seed."""

    rung: Rung
    rows: list[Row]
    ap: Interval
    gain: Interval | None
    paper_gain: float | None

    def plateau(self) -> str:
        """Median and range of the samples to leave the plateau; runs that never did are counted."""
        left = sorted(row["plateau_samples"] for row in self.rows if row["plateau_samples"] is not None)
        never = f"{len(self.rows) - len(left)} of {len(self.rows)} not within budget"
        if not left:
            return never
        text = f"{statistics.median(left):,.0f} ({left[0]:,}–{left[-1]:,})"
        return text if len(left) == len(self.rows) else f"{text}, {never}"

    def figures(self) -> dict[str, Any]:
        left = [row["plateau_samples"] for row in self.rows if row["plateau_samples"] is not None]
        gain = {"gain": self.gain.mean, "gain_half_width": self.gain.half} if self.gain else {}
        return {
            "AP": self.ap.mean,
            "AP_half_width": self.ap.half,
            **gain,
            "paper_AP": self.rung.paper,
            "seeds": len(self.rows),
            "samples": self.rows[0]["samples"],
            "pretrain_samples": self.rows[0]["pretrain_samples"],
            "plateau_samples_median": statistics.median(left) if left else None,
            "plateau_not_left": len(self.rows) - len(left),
            "minutes": statistics.fmean(row["minutes"] for row in self.rows),
            "parameters": self.rows[0]["parameters"],
        }


def steps(rungs: list[Rung], rows: list[Row]) -> list[Step]:
    """The rungs that have rows, in order."""
    found: list[Step] = []
    for rung in rungs:
        own = [row for row in rows if row["rung"] == rung.name]
        if own:
            before = found[-1] if found else None
            gain = _gain(before.rows, own) if before else None
            papers = before.rung.paper if before else None, rung.paper
            paper_gain = papers[1] - papers[0] if papers[0] is not None and papers[1] is not None else None
            found.append(Step(rung, own, interval([100 * row["AP"] for row in own]), gain, paper_gain))
    return found


def _gain(before: list[Row], rows: list[Row]) -> Interval | None:
    """Paired by seed, which fixes the order of the samples and their augmentation."""
    lower = {row["seed"]: row["AP"] for row in before}
    gains = [100 * (row["AP"] - lower[row["seed"]]) for row in rows if row["seed"] in lower]
    return interval(gains) if gains else None


def publish(
    params: Params,
    rungs: list[Rung],
    rows: list[Row],
    *,
    table: Path,
    metrics: Path,
    report: Path,
    picture: Path,
) -> None:
    """Write all that is known: every run to `table` (CSV), the rungs to `metrics` (JSON), `report` (Markdown)
    and `picture`.
    """
    found = steps(rungs, rows)
    write_csv(table, list(COLUMNS), rows)
    write_atomic(metrics, json.dumps({step.rung.name: step.figures() for step in found}, indent=1) + "\n")
    write_atomic(report, markdown(params, found))
    draw(found, picture)


def markdown(params: Params, found: list[Step]) -> str:
    """The table, what it was measured on, and how to read it."""
    ladder = ladder_of(params)
    evaluated = next((key for key, data in params.datasets.items() if data.evaluate), "")
    width, height = params.input_size
    lines = [
        f"# The ladder on `{params.recipe}`",
        "",
        f"RTMPose-{params.model.size} at {width}x{height}, seeds {', '.join(map(str, ladder.seeds))}; "
        f"trained on {', '.join(ladder.base)}, and the last rung on all sets. AP in percent on the "
        f"validation images of `{evaluated}` with ground-truth boxes and no flip test, of the weights that "
        "were best on the tuning split.",
        "",
        "| rung | weights, M | samples | AP | gain | the paper's AP | its gain | samples to leave the "
        "plateau | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(step) for step in found),
        "",
        "± is a 95 % confidence interval of the mean over seeds (Student's t); the gain over the rung above "
        "is paired by seed, and in bold where its interval leaves out zero. Of "
        f"{max(len(found) - 1, 0)} such intervals one in twenty does so by chance where nothing was gained.",
        "",
        f"Samples: finetuning, + pretraining. {ladder.samples:,} were asked for in place of the paper's "
        f"{PAPER_EPOCHS} epochs, and the nearest number of epochs was trained. The tuning split is evaluated "
        "after each epoch; the plateau is left at the first evaluation with a mean keypoint error below "
        f"{PLATEAU} of the mean pose's. Minutes are those of one finetuning run's updates on the machine at "
        "hand.",
        "",
        "The paper's figures are RTMPose-m's on COCO val2017 at 192x256, trained for "
        f"{PAPER_EPOCHS} epochs and more: compare the signs of gains, not their sizes.",
    ]
    return "\n".join(lines) + "\n"


def _line(step: Step) -> str:
    first, gain = step.rows[0], ""
    if step.gain is not None:
        gain = f"**{step.gain.shown(True)}**" if step.gain.clear else step.gain.shown(True)
    samples = f"{first['samples']:,}" + (
        f" + {first['pretrain_samples']:,}" if first["pretrain_samples"] else ""
    )
    paper_gain = f"{step.paper_gain:+.1f}" if step.paper_gain is not None else ""
    spent = statistics.fmean(row["minutes"] for row in step.rows)
    cells = (
        step.rung.adds,
        f"{first['parameters'] / 1e6:.2f}",
        samples,
        step.ap.shown(),
        gain,
        f"{step.rung.paper:.1f}" if step.rung.paper is not None else "",
        paper_gain,
        step.plateau(),
        f"{spent:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def draw(found: list[Step], path: Path) -> None:
    """AP of every rung with its interval and its runs; beside it the gains, ours with intervals and the
    paper's.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 1.5 + 0.35 * len(found)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = list(range(len(found)))
    for place, step in zip(places, found, strict=True):
        left.plot([100 * row["AP"] for row in step.rows], [place] * len(step.rows), ".", color="0.6")
        _bar(left, step.ap, place)
        if step.gain is not None:
            _bar(right, step.gain, place)
        if step.paper_gain is not None:
            right.plot([step.paper_gain], [place], "x", color="C1")
    left.set_yticks(places, [step.rung.adds for step in found])
    left.invert_yaxis()
    left.set_xlabel("AP, % (grey: runs)")
    right.axvline(0, color="0.8", zorder=0)
    right.set_xlabel("gain over the rung above (×: the paper's)")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    write_atomic(path, content.getvalue())


def _bar(axes: Axes, value: Interval, place: int) -> None:
    axes.errorbar([value.mean], [place], xerr=[value.half or 0.0], fmt="o", color="C0", capsize=3)
