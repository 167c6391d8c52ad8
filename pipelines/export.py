"""Stage `export`: the finetuned weights as one ONNX file, and how far ONNX Runtime is from PyTorch on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import stage
from rtmpose.config import load_params
from rtmpose.files import read_json, write_atomic

if TYPE_CHECKING:
    import numpy as np

    from rtmpose.deploy.card import ModelCard

MIX = Path("data/mix.json")
WEIGHTS = Path("models/rtmpose.pt")
RECEIPT = Path("models/receipt.json")
SEARCH = Path("models/search.json")
ONNX = Path("models/rtmpose.onnx")
METRICS = Path("metrics/export.json")
CROPS = 8


def main(argv: list[str]) -> None:
    from rtmpose.deploy.card import ModelCard
    from rtmpose.deploy.export import export_onnx, parity
    from rtmpose.models import load_exactly
    from rtmpose.search.choice import chosen_params

    params = chosen_params(load_params(), SEARCH)
    precision = read_json(RECEIPT).get("precision") if RECEIPT.exists() else None
    card = ModelCard.of(params.model, params.input_size, params.skeleton, training_precision=precision)
    model = card.network()
    load_exactly(model, WEIGHTS)
    export_onnx(model, card.input_size, ONNX, card=card)
    metrics = parity(model, ONNX, card.codec(), inputs(card, CROPS)[0])
    metrics["megabytes"] = round(ONNX.stat().st_size / 1e6, 3)
    write_atomic(METRICS, json.dumps(metrics, indent=2) + "\n")
    print(
        f"export    {ONNX}, {metrics['megabytes']:.1f} MB; ONNX Runtime is within {metrics['max_diff']:.1e} "
        "of PyTorch, "
        f"decoded keypoints within {metrics['keypoints_px_max']:.2f} px"
    )


def inputs(card: ModelCard, count: int) -> tuple[np.ndarray, str]:
    """Network inputs (count, 3, H, W) to compare runtimes on, and what they show: held-out persons, else
    noise.
    """
    from rtmpose.data.stream.mix import read_mix
    from rtmpose.deploy.samples import noise, person_crops

    for folder in read_mix(MIX).val.values() if MIX.exists() else ():
        if len(crops := person_crops(folder, card, count)):
            return crops, f"{len(crops)} held-out persons"
    return noise(card.input_size, count), "noise"


if __name__ == "__main__":
    stage(main)
