"""What is shown of attempts: a table, and a picture of AP over latency."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rtmpose.deploy.quantize.attempt import Attempt, Figure
from rtmpose.deploy.quantize.pick import Pick

MARKERS = "os^vDPX*"  # grey ones are told apart by them
FIELDS = (
    "target", "batch", "threads", "runtime", "precision", "set", "ap", "difference", "worst", "p50_ms",
    "p95_ms", "p99_ms", "megabytes", "picked", "refused",
)  # fmt: skip


def rows(target: str, pick: Pick) -> list[dict[str, Any]]:
    """One row of the table for each attempt and evaluation set; AP in points of 100."""
    found = []
    for one in pick.attempts:
        common = {
            "target": target,
            "batch": pick.batch,
            "threads": pick.threads,
            "runtime": one.runtime,
            "precision": one.precision,
            "megabytes": one.megabytes,
            "picked": one.name == pick.picked and not one.refused,
            "refused": "; ".join(one.refused),
            **(one.latency.model_dump() if one.latency else {}),
        }
        found += [
            common
            | {"set": name, "ap": each.ap.value, "difference": each.difference.value}
            | {"worst": each.difference.low}
            for name, each in one.sets.items()
        ] or [common]
    return found


def table(target: str, pick: Pick) -> str:
    """A pick as text: one line per attempt, the quickest first, then why each other one is refused."""
    times = "".join(f"{name:>9}" for name in ("p50 ms", "p95 ms", "p99 ms"))
    head = f"{'runtime':<18}{'prec':<6}{'AP':>7}{'worst':>8}{times}{'MB':>7}  verdict"
    lines = [f"target {target}, batch {pick.batch}, {pick.threads} threads; AP in points of 100", head]
    for one in sorted(pick.attempts, key=_p50):
        first = next(iter(one.sets.values()), None)
        latency = one.latency.model_dump() if one.latency else {}
        cells = (
            _cell(first.ap.value if first else None, 7, ".1f"),
            _cell(first.difference.low if first else None, 8, "+.2f"),
            *(_cell(latency.get(key), 9, ".2f") for key in ("p50_ms", "p95_ms", "p99_ms")),
            _cell(one.megabytes, 7, ".1f"),
        )
        lines.append(f"{one.runtime:<18}{one.precision:<6}{''.join(cells)}  {_verdict(one, pick)}")
    return "\n".join(lines)


def _p50(attempt: Attempt) -> float:
    return attempt.latency.p50_ms if attempt.latency else float("inf")


def _verdict(attempt: Attempt, pick: Pick) -> str:
    if attempt.refused:
        return f"refused: {'; '.join(attempt.refused)}"
    return "picked" if attempt.name == pick.picked else "passes"


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


def picture(target: str, pick: Pick, reference: Mapping[str, Figure]) -> bytes:
    """A PNG: AP with its interval over p50 for each attempt that was measured, and PyTorch's AP as a line.

    Grey is what is refused; the picked one has a ring.
    """
    from matplotlib.figure import Figure as Canvas

    shown = [one for one in pick.attempts if one.latency and one.sets]
    figure = Canvas(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, one in enumerate(shown):
        name, first = next(iter(one.sets.items()))
        latency = one.latency
        assert latency is not None
        colour = "0.6" if one.refused else f"C{index % 10}"
        # The difference's interval, put on the reference's AP: the interval of AP itself is far wider and
        # says more of the images than of the precision.
        base = reference[name].value if name in reference else first.ap.value - first.difference.value
        low, high = base + first.difference.low, base + first.difference.high
        axes.plot([latency.p50_ms] * 2, [low, high], color=colour, linewidth=2)
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(
            latency.p50_ms, first.ap.value, marker, color=colour, label=f"{one.runtime} {one.precision}"
        )
        if one.name == pick.picked and not one.refused:
            axes.plot(latency.p50_ms, first.ap.value, "o", markersize=14, fillstyle="none", color=colour)
    for name, one_set in list(reference.items())[:1]:
        axes.axhline(one_set.value, color="0.8", linewidth=1, zorder=0)
        axes.set_ylabel(
            f"AP on {name}, points of 100\nbar: 95 % of the difference to PyTorch fp32", fontsize=8
        )
    axes.set_xlabel(f"p50, ms for {pick.batch} image(s) on {pick.threads} thread(s)")
    axes.set_title(f"{target}: picked {pick.picked or 'nothing'}; grey is refused", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
