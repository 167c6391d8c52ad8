"""Stage `benchmark@<target>`: what the exported model costs in every runtime of a deploy target, here; and
the champion in its own, where MLflow has one: it takes its turns among them.

AP is measured as well where the stage `quantize` could not: for a machine of another architecture than it ran
on, since kernels of low precision differ there, and for a GPU that it did not have.
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import stage
from pipelines.export import inputs
from rtmpose.config import Record, load_params, read_record
from rtmpose.files import UserError, read_json, sha256_of, write_atomic

if TYPE_CHECKING:
    from rtmpose.deploy.card import ModelCard
    from rtmpose.deploy.quantize.attempt import Attempt, Figure
    from rtmpose.deploy.rival import Rival
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.targets import Target

MIX = Path("data/mix.json")
WEIGHTS = Path("models/rtmpose.pt")
ONNX = Path("models/rtmpose.onnx")
METRICS = Path("metrics/benchmark")
QUANTIZED = Path("metrics/quantize.json")
RECEIPT = Path("models/receipt.json")
IMAGES = 8  # on which the runtimes' outputs are compared


class Machine(Record):
    architecture: str


class Quantized(Record):
    """Lost points of AP by `tried_name`, at the unfavourable end of their intervals, and the attempts."""

    ap_loss: dict[str, float]
    attempts: list[dict[str, Any]]
    machine: Machine


def main(argv: list[str]) -> None:
    from rtmpose.deploy.benchmark import run
    from rtmpose.deploy.report import picture, table
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.runtimes.onnxruntime import read_card
    from rtmpose.deploy.targets import load_target

    if len(argv) != 1:
        raise UserError(
            "python -m pipelines.benchmark: give one target, such as cpu-x86 (a name in deploy_targets/)"
        )
    target = load_target(argv[0])
    card = read_card(ONNX)
    (width, height), (images, kind) = card.input_size, inputs(card, IMAGES)
    files = ModelFiles(ONNX, WEIGHTS if WEIGHTS.is_file() else None)
    target.refuse_elsewhere()
    lost, judged = lost_ap(target, files, card)
    with tempfile.TemporaryDirectory() as folder:
        rival, reason = champion(target, Path(folder))
        report = run(target, files, images, lost, rival) | {"images": kind, "judged": judged}
    if reason is not None:
        report["rival"] = reason
    write_atomic(METRICS / f"{target.name}.json", json.dumps(report, indent=2) + "\n")
    write_atomic(METRICS / f"{target.name}.png", picture(report))
    machine = report["machine"]
    print(
        f"benchmark {target.name}: {ONNX}, input {width}x{height}, on {machine['cpu']} ({machine['kind']}), "
        f"{machine['cores']} cores; differences are to PyTorch fp32 on {kind}"
    )
    print(table(report))


def champion(target: Target, folder: Path) -> tuple[Rival | None, dict[str, Any] | None]:
    """The champion as this target has it, its files in `folder`, or why it has nothing to measure; neither
    where MLflow has no champion.
    """
    from rtmpose.deploy.rival import Rival
    from rtmpose.deploy.runtimes.base import tried_parts
    from rtmpose.promotion.evidence import NOTHING_THERE
    from rtmpose.promotion.files import champion_of

    name = load_params().register_as.name
    if (found := champion_of(name, folder)) is None:
        return None, None
    who, model = found
    facts = {"name": name, "version": who.version, "sha256": who.sha256}
    if (picked := model.picked_for(target)) is None:
        return None, facts | {"not_possible": NOTHING_THERE}
    runtime, precision, _ = tried_parts(picked)
    return Rival(model.files, runtime, precision, inputs(model.card, IMAGES)[0], facts), None


def lost_ap(
    target: Target, files: ModelFiles, card: ModelCard
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """Lost points of AP: what the stage `quantize` measured, where it ran on such a machine. Else what is
    measured now, with the attempts, which the stage `pick` reads; without evaluation shards only float32
    counts then.
    """
    from rtmpose.deploy.quantize.attempt import Attempt
    from rtmpose.deploy.quantize.run import ap_loss, recorded
    from rtmpose.deploy.runtimes.base import tried_parts

    if not QUANTIZED.exists():
        return {}, None
    found = read_record(Quantized, QUANTIZED, "run the stage quantize again")
    same = found["machine"]["architecture"] == platform.machine()
    on_device = any(one["device"] == target.device and one["sets"] for one in found["attempts"])
    if same and (on_device or target.device == "cpu"):
        return dict(found["ap_loss"]), None
    made = [Attempt.model_validate(one) for one in found["attempts"]]
    if judged := judged_here(target, files, card, made):
        attempts, reference = judged
        return ap_loss(attempts), recorded(attempts, reference) | {"mix_sha256": sha256_of(MIX)}
    return {name: lost for name, lost in found["ap_loss"].items() if tried_parts(name)[1] == "fp32"}, None


def judged_here(
    target: Target, files: ModelFiles, card: ModelCard, made: list[Attempt]
) -> tuple[list[Attempt], dict[str, Figure]] | None:
    """AP of every runtime and precision of the target, with the files that are there, and of PyTorch in fp32
    beside it; None without evaluation shards, or where nothing of the target can run. `made`: the attempts
    that the files come from, which say how each was made.
    """
    from rtmpose.data.stream.mix import read_mix
    from rtmpose.deploy.machine import gpu_name
    from rtmpose.deploy.quantize.gate import Judge
    from rtmpose.deploy.quantize.run import Trial, as_they_are, network_of

    params, sets = load_params(), read_mix(MIX).val if MIX.exists() else {}
    if not sets or (target.device == "gpu" and not gpu_name()):
        return None
    sigma = read_json(RECEIPT, "run the finetune stage again").get("sigma") if RECEIPT.is_file() else None
    reference = Judge(card, sets, params.evaluate, seed=params.seed).reference(network_of(files))
    trial = Trial(files, card, reference, sigma, lambda line: print(f"benchmark  {line}", flush=True))
    source = {(one.runtime, one.precision): one for one in made}  # of several attempts the last one's file
    attempts = []
    for one in as_they_are(trial, target.tried()):
        told = source.get((one.runtime, one.precision), one)
        how = {"recipe": told.recipe, "precisions": told.precisions}
        attempts.append(one.model_copy(update=how))
    return (attempts, reference.figures()) if any(one.sets for one in attempts) else None


if __name__ == "__main__":
    stage(main)
