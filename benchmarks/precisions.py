"""AP, latency and size of a trained SimCC network in every runtime and precision of a target.

    python benchmarks/precisions.py --weights data/mini_coco/finetune.pt --crops data/mini_coco/train
        [--network t] [--size 96 128] [--data FOLDER] [--target cpu-x86] [--finetune-epochs 3]
        [--out data/precisions]

The weights are exported. AP is measured on the validation photographs of a folder in COCO's layout, in
ground-truth boxes, without flip test, beside PyTorch in fp32: `worst` is the unfavourable end of the paired
95 % interval over photographs, which the gate judges. int8 is calibrated on crops of the training shards;
where it is refused, `--finetune-epochs` on them follow, the best of which is chosen on TUNED training
photographs.
Then all configurations of the target take turns, and for each number of images and threads the fastest that
passes is picked. Tables, `quantize.csv` and `quantize.png` go to --out; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rtmpose.config import Architecture, load_params, with_values
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_eval_shards
from rtmpose.data.stream.mix import Mix, MixEntry
from rtmpose.deploy import benchmark
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.quantize import calibration, run
from rtmpose.deploy.quantize.attempt import Attempt
from rtmpose.deploy.quantize.gate import Judge
from rtmpose.deploy.quantize.pick import picks_of
from rtmpose.deploy.quantize.report import FIELDS, picture, rows, table
from rtmpose.deploy.report import table as latency_table
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.samples import person_crops
from rtmpose.deploy.targets import Target, load_target
from rtmpose.descriptors import load_dataset
from rtmpose.ending import run_command
from rtmpose.files import write_atomic, write_csv
from rtmpose.machine import needs_reduced_range
from rtmpose.models import load_exactly
from rtmpose.training.qat import EIGHT_BITS, SEVEN_BITS, finetune_for_int8

ROOT = Path(__file__).resolve().parent.parent
COCO = load_dataset("coco17")
CROPS = 8
TUNED = 60


def exported(options: argparse.Namespace, card: ModelCard) -> ModelFiles:
    """The weights as ONNX files in --out, fp32 and fp16."""
    model = card.network()
    load_exactly(model, options.weights)
    files = ModelFiles(options.out / "rtmpose.onnx", options.weights)
    crops = person_crops(options.out / "val", card, CROPS)
    export_onnx(model, card.input_size, files.onnx, card=card, crops=crops)
    half = files.form("fp16")
    export_onnx(model, card.input_size, half, card=card, crops=crops, precision="fp16", exported=files.onnx)
    return files


def attempts_of(options: argparse.Namespace, trial: run.Trial, target: Target) -> list[Attempt]:
    """Every runtime and precision of the target, judged."""
    asked = target.tried()
    if options.crops is None:
        return run.as_they_are(trial, [one for one in asked if one[1] != "int8"])
    how = load_params(ROOT / "params.yaml").quantize
    crops = calibration.from_folder(options.crops, trial.card, how.crops + how.probe_crops)
    used, probe = crops.shared_out(how.crops, how.probe_crops)
    how = how.model_copy(update={"finetune_epochs": options.finetune_epochs})
    inputs = probe.inputs(trial.card)

    def finetuned() -> list[Attempt]:
        return run.quantize_finetuned(trial, finetuned_weights(options, trial.card), used, inputs, how)

    return run.every_attempt(trial, asked, used, inputs, how, finetuned)[0]


def finetuned_weights(options: argparse.Namespace, card: ModelCard) -> Path:
    """The weights after a few epochs of rounding as int8 does."""
    tune = list(read_images(COCO, options.data, "train"))[:TUNED]
    write_eval_shards(tune, options.out / "tune", dataset=COCO, split="train", workers=1)
    values = {"input_size": card.input_size, "model.size": options.network, "finetune.picture_every": None}
    params = with_values(load_params(ROOT / "params.yaml"), values | {"hardware.loader_workers": 1})
    mix = Mix((MixEntry(options.crops.resolve(), 1),), (options.out / "tune").resolve(), {})
    return finetune_for_int8(
        params, mix, options.weights, options.out, epochs=options.finetune_epochs, tau=params.finetune.tau,
        sigma=card.sigma, largest=SEVEN_BITS if needs_reduced_range() else EIGHT_BITS,
        report=lambda line: print(json.dumps(line), flush=True) if "AP" in line else None,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--crops", type=Path, help="training shards to calibrate int8 on; without: no int8")
    parser.add_argument("--network", default="t", help="t, s, m, l or x")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), help="input width and height, px")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/realdata/coco")
    parser.add_argument("--target", default="cpu-x86", help="a name in deploy_targets/, or a file")
    parser.add_argument("--finetune-epochs", type=int, default=0, help="for int8, where the gate refuses it")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "precisions")
    options = parser.parse_args()
    target = load_target(options.target)
    size = (int(options.size[0]), int(options.size[1]))
    card = ModelCard.of(Architecture.model_validate({"size": options.network}), size, COCO.skeleton.name)
    photographs = list(read_images(COCO, options.data, "val"))
    write_eval_shards(photographs, options.out / "val", dataset=COCO, workers=1)
    files = exported(options, card)
    judge = Judge(card, {"photographs": options.out / "val"}, load_params(ROOT / "params.yaml").evaluate)
    reference = judge.reference(run.network_of(files))
    trial = run.Trial(files, card, reference, tell=lambda line: print(line, flush=True))
    attempts = attempts_of(options, trial, target)
    crops = person_crops(options.out / "val", card, CROPS)
    timed = benchmark.run(target, files, crops, run.ap_loss(attempts))
    print(latency_table(timed))
    picks = picks_of(attempts, timed, target.budgets, target.device)
    for pick in picks:
        print(table(target.name, pick))
    lines = [row for pick in picks for row in rows(target.name, pick)]
    write_csv(options.out / "quantize.csv", list(FIELDS), lines)
    write_atomic(options.out / "quantize.png", picture(target.name, picks[0], reference.figures()))
    result = {
        "name": "precisions",
        "machine": timed["machine"],
        "target": target.name,
        "photographs": len(photographs),
        "reference": {name: one.model_dump() for name, one in reference.figures().items()},
        "picked": {f"threads{one.threads}_batch{one.batch}": one.picked for one in picks},
        "rows": lines,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_command(main)
