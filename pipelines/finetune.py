"""SimCC finetuning with the values that the search has chosen: `python -m pipelines.finetune`.

A killed run resumes when run again.
"""

from __future__ import annotations

from pathlib import Path

from pipelines import stage

MIX, INIT, SEARCH = Path("data/mix.json"), Path("models/pretrain.pt"), Path("models/search.json")
WEIGHTS, RECEIPT = Path("models/rtmpose.pt"), Path("models/receipt.json")
CURVE, AP_CURVE = Path("metrics/finetune.csv"), Path("metrics/finetune_ap.csv")


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params
    from rtmpose.provenance.sources import joined, of_mix
    from rtmpose.released.checkpoint import sources_before
    from rtmpose.search.choice import chosen_params
    from rtmpose.training.following import write_curves
    from rtmpose.training.job import finetune_init
    from rtmpose.training.launch import run_stage

    params = chosen_params(load_params(), SEARCH)
    init = finetune_init(params, INIT)
    before = sources_before(init, "pretraining" if init == INIT else "initial weights")
    receipt = run_stage(
        "finetune",
        params,
        mix=MIX,
        init=init,
        weights=WEIGHTS,
        receipt=RECEIPT,
        tau=params.finetune.tau,
        sigma=params.finetune.sigma,
        data=joined(of_mix(MIX, params.datasets), before),
    )
    write_curves(receipt, CURVE, AP_CURVE)
    print(
        f"finetune  {receipt['samples']} samples, AP {receipt['best_AP']:.3f} on the tuning split → {WEIGHTS}"
    )


if __name__ == "__main__":
    stage(main)
