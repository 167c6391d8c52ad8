"""Stage `pick`: what each target gets: the fastest runtime and precision that the gate lets pass, from the AP
that `quantize` measured, or `benchmark` on a machine unlike that one, and the latency that `benchmark` did.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import stage
from rtmpose.config import Record, load_params, read_record
from rtmpose.files import UserError, sha256_of, write_atomic, write_csv

if TYPE_CHECKING:
    from rtmpose.deploy.quantize.attempt import Attempt, Figure

MIX, MODELS = Path("data/mix.json"), Path("models")
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


class JudgedThere(Judged):
    mix_sha256: str


class Timed(Record):
    target: str
    results: list[dict[str, Any]]
    machine: Machine
    files: dict[str, str]
    judged: JudgedThere | None = None


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
        attempts, reference = judged_there(report, quantized, path)
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
    report: dict[str, Any], quantized: dict[str, Any], path: Path
) -> tuple[list[Attempt], dict[str, Figure]]:
    """What counts on the machine of the benchmark's report at `path`: the attempts that it judged itself,
    else those of the stage `quantize`; and AP of PyTorch in fp32 beside them. UserError where it judged other
    files or images than those that are here.
    """
    from rtmpose.deploy.quantize.attempt import Attempt, Figure
    from rtmpose.deploy.quantize.pick import refuse_elsewhere

    source = report.get("judged") or quantized
    attempts = [Attempt.model_validate(one) for one in source["attempts"]]
    if source is quantized:
        here, there = quantized["machine"]["architecture"], report["machine"]["architecture"]
        attempts = refuse_elsewhere(attempts, here, there)
    else:
        refuse_others(report, path)
    return attempts, {name: Figure.model_validate(one) for name, one in source["reference"].items()}


def refuse_others(report: dict[str, Any], path: Path) -> None:
    """UserError where the AP in a benchmark's report at `path` is of other files or images."""
    others = [
        name
        for name, digest in report["files"].items()
        if (file := MODELS / name).is_file() and sha256_of(file) != digest
    ]
    if report["judged"]["mix_sha256"] != sha256_of(MIX):
        others.append(str(MIX))
    if others:
        raise UserError(
            f"{path}: judged: AP was measured with another {others[0]} than the one here; run the stage "
            f"benchmark@{report['target']} on that machine again, with these files"
        )


if __name__ == "__main__":
    stage(main)
