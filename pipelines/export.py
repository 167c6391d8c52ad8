"""Stage `export`: the finetuned weights as ONNX files whose cards say what is known of the model, and how far
ONNX Runtime is from PyTorch.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import stage
from rtmpose.config import Params, load_params, refuse_baseline
from rtmpose.files import read_json, write_atomic, write_csv

if TYPE_CHECKING:
    import numpy as np

    from rtmpose.deploy.card import ModelCard
    from rtmpose.evaluation.confidence import Calibration, Scored
    from rtmpose.evaluation.evaluator import Evaluator
    from rtmpose.provenance.sources import DataSource

MIX = Path("data/mix.json")
WEIGHTS = Path("models/rtmpose.pt")
RECEIPT = Path("models/receipt.json")
SEARCH = Path("models/search.json")
EVALUATED = Path("metrics/evaluate.json")
ONNX, HALF = Path("models/rtmpose.onnx"), Path("models/rtmpose.fp16.onnx")
METRICS = Path("metrics/export.json")
RELIABILITY = Path("metrics/confidence.csv")
CROPS = 8
CALIBRATED_ON = 400  # images of each set at most: two parameters need no more
FIGURES = ("AP", "AR")
ROWS = ["low", "high", "count", "probability", "right"]


def main(argv: list[str]) -> None:
    from rtmpose.deploy.e2e import export_e2e
    from rtmpose.deploy.export import export_onnx, parity
    from rtmpose.deploy.graphs import save_card
    from rtmpose.models import load_exactly
    from rtmpose.search.choice import chosen_params

    params = chosen_params(load_params(), SEARCH)
    refuse_baseline(params)
    card = card_of(params)
    model = card.network()
    load_exactly(model, WEIGHTS)
    metrics: dict[str, Any] = {}
    if (confidence := calibration(params)) is not None:
        metrics["confidence"] = confidence.figures()
        curve = {"slope": confidence.curve.slope, "intercept": confidence.curve.intercept}
        card = card.with_more(confidence=curve)
    crops = inputs(card, CROPS)[0]
    export_onnx(model, card.input_size, ONNX, card=card, crops=crops)
    export_onnx(model, card.input_size, HALF, card=card, crops=crops, precision="fp16", exported=ONNX)
    metrics |= parity(model, ONNX, card.codec(), crops)
    metrics["exported_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    metrics["megabytes"] = round(ONNX.stat().st_size / 1e6, 3)
    save_card(ONNX, card.with_more(measured=measured(metrics)))
    export_e2e(ONNX)
    write_csv(RELIABILITY, ROWS, [asdict(row) for row in confidence.rows] if confidence else [])
    write_atomic(METRICS, json.dumps(metrics, indent=2) + "\n")
    print(
        f"export    {ONNX}, {metrics['megabytes']:.1f} MB, besides in fp16 and end-to-end; ONNX Runtime is "
        f"within {metrics['max_diff']:.1e} of PyTorch, decoded keypoints within "
        f"{metrics['keypoints_px_max']:.2f} px"
    )


def card_of(params: Params) -> ModelCard:
    """What is known of the model before it is exported: its network, its training and its data."""
    from rtmpose.deploy.card import ModelCard
    from rtmpose.targets import SimCC

    receipt = read_json(RECEIPT) if RECEIPT.exists() else {}
    card = ModelCard.of(
        params.model, params.input_size, params.skeleton, training_precision=receipt.get("precision")
    )
    sigma = SimCC(params.input_size, params.finetune.sigma).sigma if card.split_ratio else None
    data = [source.model_dump() for source in sources(params)]
    return card.with_more(sigma=sigma, training_run=receipt.get("run_id"), data=data)


def sources(params: Params) -> tuple[DataSource, ...]:
    """Whose data is in the weights, by their receipt; where that says nothing, the sets of the mix."""
    from rtmpose.provenance.sources import of_mix, of_receipt

    noted = of_receipt(RECEIPT) if RECEIPT.exists() else None
    if noted is not None:
        return noted
    return of_mix(MIX, params.datasets) if MIX.exists() else ()


def calibration(params: Params) -> Calibration | None:
    """How scores become probabilities: fitted on the tuning split, tested on the first evaluation set, or on
    the tuning split too where there is none; None without data, or with too little of it.
    """
    from rtmpose.data.stream.mix import read_mix
    from rtmpose.evaluation.confidence import calibrate
    from rtmpose.evaluation.evaluator import load_evaluator
    from rtmpose.targets import codec_for

    if not MIX.exists():
        return None
    mix = read_mix(MIX)
    codec = codec_for(params.model.head, params.input_size)
    judge = load_evaluator(params, WEIGHTS, codec, "fp32").without_flip()  # as the file will be run
    fitted = scored(judge, mix.tune)
    tested = next(iter(mix.val.values()), None)
    return calibrate(fitted, fitted if tested is None else scored(judge, tested))


def scored(judge: Evaluator, folder: Path) -> Scored:
    """The labelled points of a folder of evaluation shards, as the network finds them in the true boxes."""
    from rtmpose.data.shards.manifest import read_eval
    from rtmpose.evaluation.confidence import Scored

    poses, truth = judge.poses(islice(read_eval(folder), CALIBRATED_ON))
    return Scored.of(truth, poses, judge.skeleton.sigmas)


def measured(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What the card says was measured: of this file, and of the weights that it was exported from."""
    parts = {
        "parity": {name: value for name, value in metrics.items() if isinstance(value, (int, float))},
        "confidence": metrics.get("confidence", {}),
    }
    if EVALUATED.exists():
        evaluated = read_json(EVALUATED, "run the evaluate stage again")
        parts["weights"] = {name: evaluated[name] for name in FIGURES if name in evaluated}
    return {name: figures for name, figures in parts.items() if figures}


def inputs(card: ModelCard, count: int) -> tuple[np.ndarray, str]:
    """Network inputs (count, 3, H, W) to compare runtimes on, and what they show: held-out persons, else
    noise.
    """
    from rtmpose.data.stream.mix import read_mix
    from rtmpose.deploy.report import NOISE
    from rtmpose.deploy.samples import noise, person_crops

    for folder in read_mix(MIX).val.values() if MIX.exists() else ():
        if len(crops := person_crops(folder, card, count)):
            return crops, f"{len(crops)} held-out persons"
    return noise(card.input_size, count), NOISE


if __name__ == "__main__":
    stage(main)
