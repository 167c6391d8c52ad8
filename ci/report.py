"""What the targets' benchmarks found, as Markdown: `python -m ci.report metrics/benchmark`.

On top one line for each target, with what was picked for it (`ci.picks`); below it every configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ci.picks import Picks, counted, read_picks
from rtmpose.config import Record, read_record
from rtmpose.ending import run_command
from rtmpose.files import UserError

AGAIN = "run the benchmark stage of the target again"


class Report(Record):
    """What is read of `metrics/benchmark/TARGET.json`."""

    target: str
    machine: dict[str, Any]
    results: list[dict[str, Any]]
    budgets: list[dict[str, Any]]
    skipped: list[str]


def reports(folder: Path) -> list[Mapping[str, Any]]:
    """The reports in a folder, by target; UserError where there are none or one is damaged."""
    found: list[Mapping[str, Any]] = [
        read_record(Report, path, AGAIN) for path in sorted(folder.glob("*.json"))
    ]
    if not found:
        raise UserError(f"{folder}: holds no report of a target; {AGAIN}")
    return found


def markdown(found: Sequence[Mapping[str, Any]], picks: Picks) -> str:
    """The tables of several targets."""
    head = "| target | machine | picked, for one image | p50 ms | beside the champion | budgets |"
    lines = ["## Benchmark", "", head, rule(head), *(_summary(report, picks) for report in found)]
    for report in found:
        lines += [
            "",
            f"<details><summary>{report['target']}: all configurations</summary>",
            "",
            *_all(report),
        ]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def beside(row: Mapping[str, Any]) -> str:
    """A row's latency in times of the champion's, with its interval; a dash where none was measured."""
    latency = (row.get("beside_rival") or {}).get("latency")
    if latency is None:
        return "–"
    interval = "" if latency.get("low") is None else f" [{latency['low']:.3f}, {latency['high']:.3f}]"
    return f"{latency['ratio']:.3f}×{interval}"


def rule(head: str) -> str:
    """The line below the head of a table."""
    return "|" + "---|" * (head.count("|") - 1)


def line(cells: Sequence[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _summary(report: Mapping[str, Any], picks: Picks) -> str:
    (picked, row), machine = counted(report, picks), report["machine"]
    name = "nothing passed" if picked is None else f"{picked}: not measured" if row is None else _name(row)
    p50, times = ("–", "–") if row is None else (f"{row['p50_ms']:.2f}", beside(row))
    broken = [each for each in report["budgets"] if not each["kept"]]
    budgets = f"{len(broken)} of {len(report['budgets'])} broken" if broken else "kept"
    return line((report["target"], f"{machine['cpu']}, {machine['cores']} cores", name, p50, times, budgets))


def _all(report: Mapping[str, Any]) -> list[str]:
    head = "| configuration | threads | batch | p50 ms | images/s | memory MB | beside the champion |"
    lines = [head, rule(head)]
    for row in sorted(report["results"], key=lambda one: (one["batch"], one["p50_ms"])):
        figures = (f"{row['p50_ms']:.2f}", f"{row['images_per_s']:.1f}", f"{row['memory_mb']:.0f}")
        lines.append(line((_name(row), str(row["threads"]), str(row["batch"]), *figures, beside(row))))
    broken = [each for each in report["budgets"] if not each["kept"]]
    lines += ["", *(f"- broken: {each['budget']}: {each['key']} at {each['limit']}" for each in broken)]
    return lines + [f"- skipped: {reason}" for reason in report["skipped"]]


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['runtime']} {row['precision']}"


def main(argv: list[str]) -> None:
    if len(argv) != 1:
        raise UserError("python -m ci.report: give the folder of the reports, such as metrics/benchmark")
    print(markdown(reports(Path(argv[0])), read_picks()), end="")


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
