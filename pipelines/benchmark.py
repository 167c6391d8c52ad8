"""Stage `benchmark@<target>`: what the exported model costs in every runtime of a deploy target, here."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines import stage
from pipelines.export import inputs
from rtmpose.config import Record, read_record
from rtmpose.files import UserError, write_atomic

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
    report = run(target, files, images, lost_ap()) | {"images": kind}
    write_atomic(METRICS / f"{target.name}.json", json.dumps(report, indent=2) + "\n")
    write_atomic(METRICS / f"{target.name}.png", picture(report))
    machine = report["machine"]
    print(
        f"benchmark {target.name}: {ONNX}, input {width}x{height}, on {machine['cpu']} ({machine['kind']}), "
        f"{machine['cores']} cores; differences are to PyTorch fp32 on {kind}"
    )
    print(table(report))


def lost_ap() -> dict[str, float]:
    """What the stage `quantize` measured; nothing where it did not run."""
    if not QUANTIZED.exists():
        return {}
    found = read_record(Quantized, QUANTIZED, "run the stage quantize again")
    return dict(found["ap_loss"])


if __name__ == "__main__":
    stage(main)
