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
    from rtmpose.checkout import shared
    from rtmpose.config import load_params
    from rtmpose.provenance.sources import joined, of_mix
    from rtmpose.released.checkpoint import sources_before
    from rtmpose.search.choice import chosen_params
    from rtmpose.training.distill.stages import run_finetune
    from rtmpose.training.following import write_curves
    from rtmpose.training.job import finetune_init

    params = chosen_params(load_params(), SEARCH)
    init, distill = finetune_init(params, INIT), params.finetune.distill
    before = sources_before(init, "pretraining" if init == INIT else "initial weights")
    if distill is not None and distill.teacher is not None:
        before = joined(before, sources_before(shared(distill.teacher), "distillation"))
    receipt, curves = run_finetune(
        params,
        mix=MIX,
        init=init,
        weights=WEIGHTS,
        receipt=RECEIPT,
        data=joined(of_mix(MIX, params.datasets), before),
    )
    write_curves(curves, CURVE, AP_CURVE)
    print(
        f"finetune  {receipt['samples']} samples, AP {receipt['best_AP']:.3f} on the tuning split → {WEIGHTS}"
    )


if __name__ == "__main__":
    stage(main)
