"""Stage `pick`: what each target gets: the fastest runtime and precision that the gate lets pass, from the AP
that `quantize` measured, or `benchmark` on a machine unlike that one, and the latency that `benchmark` did.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import stage
from rtmpose.config import Record, load_params, read_record
from rtmpose.files import write_atomic, write_csv

if TYPE_CHECKING:
    from rtmpose.deploy.quantize.attempt import Attempt, Figure

QUANTIZE, BENCHMARK = Path("metrics/quantize.json"), Path("metrics/benchmark")
METRICS, TABLE, PICTURE = (
    Path("metrics/pick.json"),
    Path("metrics/quantize.csv"),
    Path("reports/quantize.png"),
)


class Machine(Record):
    architecture: str


class Judged(Record):
    attempts: list[dict[str, Any]]
    reference: dict[str, dict[str, float]]


class Quantized(Judged):
    machine: Machine


class Timed(Record):
    target: str
    results: list[dict[str, Any]]
    machine: Machine
    judged: Judged | None = None


def main(argv: list[str]) -> None:
    from rtmpose.deploy.quantize.pick import picks_of
    from rtmpose.deploy.quantize.report import FIELDS, picture, rows, table
    from rtmpose.deploy.report import refuse_other_target
    from rtmpose.deploy.targets import load_target

    quantized = read_record(Quantized, QUANTIZE, "run the quantize stage again")
    found: dict[str, Any] = {}
    lines: list[dict[str, Any]] = []
    for number, name in enumerate(load_params().targets):
        target = load_target(name)
        path = BENCHMARK / f"{target.name}.json"
        report = read_record(Timed, path, "run the benchmark stage again")
        refuse_other_target(report, target, path)
        attempts, reference = judged_there(report, quantized)
        picks = picks_of(attempts, report, target.budgets, target.device)
        lines += [row for pick in picks for row in rows(target.name, pick)]
        found[target.name] = {
            "picked": picks[0].picked,
            "for": {f"threads{one.threads}_batch{one.batch}": one.picked for one in picks},
            "attempts": [one.model_dump(mode="json") for one in picks[0].attempts],
        }
        print(table(target.name, picks[0]), flush=True)
        if number == 0:
            write_atomic(PICTURE, picture(target.name, picks[0], reference))
    write_csv(TABLE, list(FIELDS), lines)
    write_atomic(METRICS, json.dumps(found, indent=1) + "\n")


def judged_there(
    report: dict[str, Any], quantized: dict[str, Any]
) -> tuple[list[Attempt], dict[str, Figure]]:
    """What counts on the machine of a benchmark's report: the attempts that it judged itself, else those of
    the stage `quantize`; and AP of PyTorch in fp32 beside them.
    """
    from rtmpose.deploy.quantize.attempt import Attempt, Figure
    from rtmpose.deploy.quantize.pick import refuse_elsewhere

    source = report.get("judged") or quantized
    attempts = [Attempt.model_validate(one) for one in source["attempts"]]
    if source is quantized:
        here, there = quantized["machine"]["architecture"], report["machine"]["architecture"]
        attempts = refuse_elsewhere(attempts, here, there)
    return attempts, {name: Figure.model_validate(one) for name, one in source["reference"].items()}


if __name__ == "__main__":
    stage(main)
