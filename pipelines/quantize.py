"""Stage `quantize`: int8 files of the exported model, and what every runtime and precision of this machine's
targets costs in AP.

Latency is measured by the stage `benchmark`, and `pick` brings the two together.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import stage
from rtmpose.config import load_params
from rtmpose.files import read_json, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rtmpose.config import Params
    from rtmpose.data.stream.mix import Mix
    from rtmpose.deploy.quantize import run
    from rtmpose.deploy.quantize.attempt import Attempt
    from rtmpose.deploy.quantize.calibration import Calibration
    from rtmpose.deploy.quantize.run import Tried

MIX, WEIGHTS, ONNX = Path("data/mix.json"), Path("models/rtmpose.pt"), Path("models/rtmpose.onnx")
RECEIPT = Path("models/receipt.json")
METRICS = Path("metrics/quantize.json")


def main(argv: list[str]) -> None:
    from rtmpose.data.stream.mix import read_mix
    from rtmpose.deploy.quantize import calibration, run
    from rtmpose.deploy.quantize.gate import Judge
    from rtmpose.deploy.runtimes.base import ModelFiles
    from rtmpose.deploy.runtimes.onnxruntime import read_card
    from rtmpose.files import UserError

    params = load_params()
    try:  # first: its file is among what the stage has to write
        import nncf  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"int8 for OpenVINO: NNCF cannot be imported ({error}); pip install -e '.[quantize]'"
        ) from None
    options, mix, card = params.quantize, read_mix(MIX), read_card(ONNX)
    if not mix.val:
        raise UserError("params.yaml: datasets: none has `evaluate: true`; mark the one to judge int8 on")
    wanted = options.crops + options.probe_crops
    crops = calibration.from_mix(mix, card, wanted, params.seed)
    data = calibration.evaluation_crops(next(iter(mix.val.values())), card, options.crops)
    calibration.refuse_unlike(crops, card, data)
    used, probe = crops.shared_out(options.crops, options.probe_crops)
    if (found := len(crops.pixels)) < wanted:
        print(f"quantize  {found} persons are there, {wanted} asked for: calibrates on {len(used.pixels)}")
    files = ModelFiles(ONNX, WEIGHTS)
    judge = Judge(card, mix.val, params.evaluate, seed=params.seed)
    reference = judge.reference(run.network_of(files))
    sigma = read_json(RECEIPT, "run the finetune stage again").get("sigma")
    trial = run.Trial(files, card, reference, sigma, lambda line: print(f"quantize  {line}", flush=True))
    attempts, sensitivity = run.every_attempt(
        trial,
        tried(params.targets),
        used,
        probe.inputs(card),
        options,
        lambda: finetuned(params, mix, trial, used, probe.inputs(card)),
    )
    write_atomic(METRICS, json.dumps(run.report(trial, used, attempts, sensitivity), indent=1) + "\n")


def finetuned(
    params: Params, mix: Mix, trial: run.Trial, used: Calibration, probe: NDArray[np.float32]
) -> list[Attempt]:
    """Attempts with weights that were finetuned for int8, after the gate has refused the others."""
    from rtmpose.checkout import shared
    from rtmpose.deploy.quantize.run import quantize_finetuned
    from rtmpose.machine import needs_reduced_range
    from rtmpose.training.qat import EIGHT_BITS, SEVEN_BITS, finetune_for_int8

    receipt, options = read_json(RECEIPT, "run the finetune stage again"), params.quantize
    best = finetune_for_int8(
        params,
        mix,
        WEIGHTS,
        shared(params.hardware.storage),
        epochs=options.finetune_epochs,
        largest=SEVEN_BITS if needs_reduced_range() else EIGHT_BITS,
        tau=receipt["tau"],
        sigma=tuple(receipt["sigma"]),
        report=lambda line: print(f"quantize  {json.dumps(line)}", flush=True) if "AP" in line else None,
    )
    return quantize_finetuned(trial, best, used, probe, options)


def tried(targets: list[str]) -> list[Tried]:
    """What the targets ask for, each once."""
    from rtmpose.deploy.targets import load_target

    return list(dict.fromkeys(one for target in map(load_target, targets) for one in target.tried()))


if __name__ == "__main__":
    stage(main)
