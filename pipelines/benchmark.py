"""Stage `benchmark@<target>`: what the exported model costs in every runtime of a deploy target, here; and
the champion in its own, where MLflow has one: it takes its turns among them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import stage
from pipelines.export import inputs
from rtmpose.config import Record, load_params, read_record
from rtmpose.files import UserError, write_atomic

if TYPE_CHECKING:
    from rtmpose.deploy.rival import Rival
    from rtmpose.deploy.targets import Target

WEIGHTS = Path("models/rtmpose.pt")
ONNX = Path("models/rtmpose.onnx")
METRICS = Path("metrics/benchmark")
QUANTIZED = Path("metrics/quantize.json")
IMAGES = 8  # on which the runtimes' outputs are compared


class Quantized(Record):
    """Lost points of AP by `tried_name`, at the unfavourable end of their intervals."""

    ap_loss: dict[str, float]


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
    with tempfile.TemporaryDirectory() as folder:
        rival, reason = champion(target, Path(folder))
        report = run(target, files, images, lost_ap(), rival) | {"images": kind}
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


def lost_ap() -> dict[str, float]:
    """What the stage `quantize` measured; nothing where it did not run."""
    if not QUANTIZED.exists():
        return {}
    found = read_record(Quantized, QUANTIZED, "run the stage quantize again")
    return dict(found["ap_loss"])


if __name__ == "__main__":
    stage(main)
