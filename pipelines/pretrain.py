"""UDP heatmap pretraining of the backbone: `python -m pipelines.pretrain`."""

from __future__ import annotations

from pathlib import Path

from pipelines import stage

MIX, WEIGHTS, RECEIPT, CURVE = (
    Path("data/mix.json"),
    Path("models/pretrain.pt"),
    Path("models/pretrain.json"),
    Path("metrics/pretrain.csv"),
)


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params
    from rtmpose.provenance.sources import joined, of_mix
    from rtmpose.released.checkpoint import sources_before
    from rtmpose.training.following import write_curves
    from rtmpose.training.job import named_weights
    from rtmpose.training.launch import run_stage, untrained

    params = load_params()
    init = named_weights("pretrain.init", params.pretrain.init)
    before = sources_before(init, "initial weights") if init else ()
    if params.pretrain.enabled:
        data = joined(of_mix(MIX, params.datasets), before)
        receipt = run_stage(
            "pretrain", params, mix=MIX, init=init, weights=WEIGHTS, receipt=RECEIPT, data=data
        )
        print(
            f"pretrain  {receipt['samples']} samples, AP {receipt['best_AP']:.3f} on the tuning split → "
            f"{WEIGHTS}"
        )
    else:
        receipt = untrained(params, init, WEIGHTS, RECEIPT, before)
        print(f"pretrain  off; the backbone starts from {init or 'random weights'} → {WEIGHTS}")
    write_curves(receipt, CURVE)


if __name__ == "__main__":
    stage(main)
