"""Charts as SVG by Matplotlib, in the page's own colours: what is drawn in a placeholder takes a variable of
the page's style sheet, and so follows light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Placeholders of the style sheet's variables.
INK, QUIET = "#010203", "#040506"
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
VARIABLES = {INK: "--ink", QUIET: "--line"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)
}
MARKERS = "os^Dv*"
LABELS = (4, 14, -13, 24)  # px above a point
SIZE = (4.7, 3.1)  # inches of 72 px: about as wide as a phone
STYLE = {
    "svg.fonttype": "none", "font.size": 11, "axes.edgecolor": QUIET, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": QUIET,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "legend.frameon": False, "legend.fontsize": 10, "lines.linewidth": 1.8, "figure.figsize": SIZE,
    "text.usetex": False, "text.parse_math": False, "axes.unicode_minus": True,
}  # fmt: skip

Point = tuple[float, float]


@contextmanager
def drawing(name: str, size: tuple[float, float] = SIZE) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes to draw on, and what gives their SVG; `name` is unique on the page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")

        def svg() -> str:
            text = io.StringIO()
            figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            return _inline(text.getvalue(), name)

        yield figure.subplots(), svg


def _inline(svg: str, name: str) -> str:
    """A whole SVG file as an element of an HTML page: ids of its own, the page's colours and fonts, and as
    wide as its place.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    head, _, rest = body.partition(">")
    view = re.search(r'viewBox="[\d. ]+"', head)
    assert view is not None, "Matplotlib's own"
    body = f'<svg {view[0]} aria-hidden="true" focusable="false">{rest}'
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return body


def lines(
    name: str,
    series: Mapping[str, Sequence[Point]],
    across: str,
    up: str,
    *,
    logarithmic: bool = False,
    dots: bool = False,
) -> str:
    """Curves over one axis."""
    with drawing(name) as (axes, svg):
        for number, (label, points) in enumerate(series.items()):
            x, y = zip(*points, strict=True)
            mark = MARKERS[number % len(MARKERS)] if dots or len(points) == 1 else ""
            axes.plot(x, y, color=SERIES[number % len(SERIES)], label=label, marker=mark)
        axes.set(xlabel=across, ylabel=up)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.tick_params(axis="y", which="minor", labelsize=9)
        if len(series) > 1:
            axes.legend()
        return svg()


def whiskers(name: str, rows: Sequence[tuple[str, float, float, float]], across: str) -> str:
    """Figures with their intervals, one row each: (label, value, low, high)."""
    with drawing(name, (SIZE[0], 0.9 + 0.42 * len(rows))) as (axes, svg):
        for place, (_, value, low, high) in enumerate(rows):
            colour = SERIES[place % len(SERIES)]
            axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="round")
            axes.plot([value], [place], color=colour, marker=MARKERS[place % len(MARKERS)], markersize=8)
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axes.set(xlabel=across, ylim=(len(rows) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")
        return svg()


def shares(name: str, rows: Sequence[tuple[str, Sequence[float]]], kinds: Sequence[str], across: str) -> str:
    """Bars that are made of parts, one for each row."""
    with drawing(name, (SIZE[0], 1.3 + 0.25 * len(rows))) as (axes, svg):
        left = [0.0] * len(rows)
        for number, kind in enumerate(kinds):
            width = [parts[number] for _, parts in rows]
            axes.barh(range(len(rows)), width, left=left, height=0.74, color=SERIES[number], label=kind)
            left = [a + b for a, b in zip(left, width, strict=True)]
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set(xlabel=across, ylim=(len(rows) - 0.5, -0.5), xlim=(0, max(100.0, *left)))
        axes.grid(visible=False, axis="y")
        axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=len(kinds), columnspacing=0.8,
                    handlelength=0.9, handletextpad=0.35)  # fmt: skip
        return svg()


def bars(name: str, rows: Sequence[tuple[str, float]], across: str) -> str:
    """One bar for each row, with its number at its end."""
    with drawing(name, (SIZE[0], 0.9 + 0.42 * len(rows))) as (axes, svg):
        for place, (_, value) in enumerate(rows):
            axes.barh([place], [value], height=0.66, color=SERIES[0])
            axes.annotate(f"{value:+.1f}", (max(value, 0.0), place), (4, 0), textcoords="offset points",
                          va="center")  # fmt: skip
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        most = max((value for _, value in rows), default=0.0)
        axes.set(xlabel=across, ylim=(len(rows) - 0.5, -0.5), xlim=(min(0.0, *(v for _, v in rows)), None))
        axes.set_xlim(right=max(most * 1.2, 0.5))
        axes.locator_params(axis="x", nbins=5)
        axes.grid(visible=False, axis="y")
        return svg()


def reliability(name: str, bins: Sequence[tuple[float, float, float]]) -> str:
    """What was claimed and what came true: (claimed, true, points), beside the diagonal; dots are as large as
    the share of points.
    """
    with drawing(name, (SIZE[0], SIZE[0] * 0.9)) as (axes, svg):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="as claimed")
        claimed, true, count = zip(*bins, strict=True)
        axes.plot(claimed, true, color=SERIES[0], label="found")
        most = max(count)
        axes.scatter(claimed, true, [14 + 90 * one / most for one in count], color=SERIES[0], zorder=3)
        axes.set(xlabel="claimed probability", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
        axes.set_aspect("equal")
        axes.legend(loc="upper left")
        return svg()


def costs(name: str, groups: Mapping[str, Sequence[tuple[str, float, float]]], picked: str | None) -> str:
    """AP over latency: by runtime its precisions as (precision, ms, AP); what was `picked`, as "runtime
    precision", is ringed.
    """
    with drawing(name, (SIZE[0], SIZE[1] * 1.25)) as (axes, svg):
        for number, (runtime, attempts) in enumerate(groups.items()):
            colour, mark = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
            x, y = [one[1] for one in attempts], [one[2] for one in attempts]
            axes.plot(x, y, linestyle="none", marker=mark, markersize=7, color=colour, label=runtime)
        every = [
            (ms, ap, precision, f"{runtime} {precision}" == picked)
            for runtime, attempts in groups.items()
            for precision, ms, ap in attempts
        ]
        for (ms, ap, precision, chosen), level in zip(sorted(every), _levels(every), strict=True):
            text = f"{precision}, picked" if chosen else precision
            axes.annotate(text, (ms, ap), (6, level), textcoords="offset points", fontsize=9)
            if chosen:
                axes.plot([ms], [ap], marker="o", markersize=15, fillstyle="none", color=INK)
        axes.set_xscale("log")
        axes.margins(0.16, 0.2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="both", labelsize=9)
        axes.set(xlabel="median latency, ms", ylabel="AP")
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=3, columnspacing=1.0,
                    handletextpad=0.2)  # fmt: skip
        return svg()


def _levels(every: Sequence[tuple[float, float, str, bool]]) -> list[int]:
    """How far above its point each label stands, in the order of latencies: labels of neighbours that would
    lie on each other take turns.
    """
    found: list[int] = []
    ordered = sorted(every)
    heights = [ap for _, ap, *_ in every]
    near = max((max(heights) - min(heights)) / 12, 1e-9)
    for place, (ms, ap, *_) in enumerate(ordered):
        before = ordered[place - 1] if place else None
        beside = before is not None and ms < 1.35 * before[0] and abs(ap - before[1]) < near
        found.append(LABELS[(LABELS.index(found[-1]) + 1) % len(LABELS)] if beside else LABELS[0])
    return found
