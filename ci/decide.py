"""Whether what was just measured lets a version be promoted, for all that costs are:
`python -m ci.decide metrics/benchmark NAME 7 '[{"target":"cpu-x86"}]'`.

Prints as Markdown what broke, and ends with exit code 2 where something did. The gates and their thresholds
are those of `rtmpose promote`. That command judges what was measured before the version was registered; this
one the reports in the folder, which have to be there for every target of the list. AP and the rest of the
evidence are not asked here, nor a budget of lost AP where the machine had no images to measure it on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ci.picks import picked_for, read_picks
from ci.report import line, reports, rule
from rtmpose.config import load_params
from rtmpose.deploy.runtimes.base import tried_name
from rtmpose.deploy.targets import Target, load_target
from rtmpose.ending import run_command
from rtmpose.files import UserError
from rtmpose.promotion import registry
from rtmpose.promotion.evidence import Accuracy, Champion, Comparison, Cost, Evidence
from rtmpose.promotion.gate import Gate, said
from rtmpose.promotion.gates import Case, gates
from rtmpose.promotion.gathered import cost_of
from rtmpose.promotion.registry import Version
from rtmpose.tracking.models import DIGEST, digests

NOISE = "noise"  # a report's `images` where there were no persons to compare the runtimes' outputs on
# Of a target's gates those that a benchmark does not measure; of a version's, those that it does.
OF_ACCURACY = ("AP", "recall")
OF_THE_MEASURING = ("evidence of these files", "measured beside the champion")
PARITY = "parity"


def decide(folder: Path, name: str, number: str, wanted: Sequence[str]) -> list[Gate]:
    """Every gate that reports decide, for the version with that number on the targets `wanted`."""
    measured = {report["target"]: report for report in reports(folder)}
    picks, broken = read_picks(), list[Gate]()
    costs, accuracies = dict[str, Cost](), dict[str, Accuracy]()
    for target in map(load_target, wanted):
        picked, report = picked_for(target, picks), measured.get(target.name, {})
        found = _cost(target, picked, report, folder)
        if isinstance(found, Gate):
            broken.append(found)
            continue
        costs[target.name] = found
        theirs = _pick_of_the_champion(report, target)
        accuracies[target.name] = Accuracy(picked=picked, files={}, sets={}, champion_picked=theirs)
    if not costs:
        return broken
    noise = {target for target in costs if measured[target].get("images") == NOISE}
    told = gates(_case(registry.find(name, number), costs, accuracies))
    return [*broken, *(gate for gate in told if _is_asked(gate, noise))]


def _cost(target: Target, picked: str | None, report: Mapping[str, Any], folder: Path) -> Cost | Gate:
    """What the picked configuration costs, or the gate that fails because the report does not say it."""
    if not report:
        return said("costs", "no report: its job failed", "", target=target.name)
    if picked is None:
        return said("picked", "nothing passed", "", target=target.name)
    try:
        cost = cost_of(report, picked, target, folder / f"{target.name}.json")
        asked = (one for one in cost.budgets if one.key != "ap_loss" or one.measured is not None)
        return cost.model_copy(update={"budgets": tuple(asked)})
    except UserError as error:
        return said("costs", str(error), "", target=target.name)


def _pick_of_the_champion(report: Mapping[str, Any], target: Target) -> str | None:
    rival = report["rival"]
    if rival is None or "runtime" not in rival:
        return None
    return tried_name(rival["runtime"], rival["precision"], target.device)


def _case(version: Version, costs: Mapping[str, Cost], accuracies: Mapping[str, Accuracy]) -> Case:
    """A promotion about which nothing is known but costs: what its other gates say is not told."""
    standing, first = registry.stand(version.name), min(cost.measured_at for cost in costs.values())
    tags = {each.number: each.tags for each in registry.versions(version.name)}
    champion = standing.champion if standing.champion in tags else None
    digest = "" if champion is None else tags[champion].get(DIGEST, "unknown")
    comparison = Comparison(
        compared_at=first,
        exported_at=first,
        machine={},
        mix_sha256="",
        keypoint_names=(),
        card_problems=(),
        data=(),
        training_run=None,
        champion=None if champion is None else Champion(version=champion, sha256=digest, keypoint_names=()),
        targets=dict(accuracies),
    )
    return Case(
        number=version.number,
        tags=version.tags,
        hashes=digests(version.tags),
        run_found=True,
        damage=None,
        evidence=Evidence(comparison=comparison, costs=dict(costs)),
        standing=standing,
        champion_sha256=digest or None,
        params=load_params().promotion,
        targets=tuple(costs),
        new_skeleton=False,
        now=datetime.now(UTC),
    )


def _is_asked(gate: Gate, noise: set[str]) -> bool:
    """Parity only where it was measured on persons."""
    if not gate.target:
        return gate.name in OF_THE_MEASURING
    if gate.name.startswith(PARITY):
        return gate.target not in noise
    return not gate.name.startswith(OF_ACCURACY)


def markdown(version: str, found: Sequence[Gate]) -> str:
    """How many gates hold, and a table of those that fail."""
    asked = [gate for gate in found if gate.verdict != "not asked"]
    failed = [gate for gate in asked if gate.verdict == "fails"]
    head = "| gate | target | found | allowed |"
    lines = ["", "## Gates of what was just measured", ""]
    lines += [f"{len(asked) - len(failed)} of {len(asked)} hold for {version}.", ""]
    if failed:
        rows = (line((gate.name, gate.target or "–", gate.found, gate.allowed or "–")) for gate in failed)
        lines += [head, rule(head), *rows]
    return "\n".join(lines) + "\n"


def targets_of(text: str) -> list[str]:
    """The targets of a matrix as `ci.targets` prints it, [{"target": name, …}, …]."""
    try:
        names = [entry["target"] for entry in json.loads(text)]
    except (ValueError, TypeError, KeyError):
        names = []
    if not names:
        raise UserError(f"{text[:80]!r}: is no list of targets; give what `python -m ci.targets` prints")
    return names


def main(argv: list[str]) -> None:
    if len(argv) != 4:
        raise UserError("python -m ci.decide: give the folder of the reports, name, version and the matrix")
    folder, name, number, matrix = argv
    version = f"{name} version {number}"
    found = decide(Path(folder), name, number, targets_of(matrix))
    print(markdown(version, found), end="", flush=True)
    failed = list(dict.fromkeys(gate.name for gate in found if gate.verdict == "fails"))
    if failed:
        raise UserError(f"{version}: what was just measured fails {', '.join(failed)}; nothing was changed")


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
