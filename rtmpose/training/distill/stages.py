"""Finetuning with all its stages: from labels, perhaps with a teacher; then perhaps a fresh head from the
trained network.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rtmpose.checkout import shared
from rtmpose.cluster.submit import forced, job_server
from rtmpose.config import Params
from rtmpose.files import write_atomic
from rtmpose.provenance.sources import DataSource
from rtmpose.training.launch import run_stage

COUNTED = ("steps", "samples", "best_epoch")  # of a stage, in its receipt


def run_finetune(
    params: Params,
    *,
    mix: Path,
    init: Path | None,
    weights: Path,
    receipt: Path,
    data: Sequence[DataSource] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Finetune as `finetune.distill` says, and write `weights` and `receipt`, both with the `data` that is in
    them; the receipt, and that of the run whose curves tell how the network was trained.

    The fresh head is taken where its AP on the tuning split is no less than the first stage's. The receipt's
    `head` has both, says which was taken, and counts the second stage's updates; the receipt itself counts
    those of the first one, whichever is taken. A killed stage goes on where it was. Raises what `run_stage`
    raises.
    """
    finetune, distill = params.finetune, params.finetune.distill
    run = partial(run_stage, mix=mix, tau=finetune.tau, sigma=finetune.sigma, data=data)
    teacher = shared(distill.teacher) if distill is not None and distill.teacher is not None else None
    first = run("finetune", params, init=init, weights=weights, receipt=receipt, teacher=teacher)
    if distill is None or not distill.head_share:
        return first, first
    # On a cluster the job of the first call has done both stages.
    fresh = forced() and job_server(params.hardware) is None
    with tempfile.TemporaryDirectory(dir=weights.parent, prefix=".head-") as folder:
        new = Path(folder) / "head.pt"
        second = run(
            "head",
            head_params(params),
            init=weights,
            weights=new,
            receipt=Path(folder) / "receipt.json",
            teacher=weights,
            fresh=fresh,
        )
        taken = second["best_AP"] >= first["best_AP"]
        if taken:
            write_atomic(weights, new.read_bytes())
    head = {"taken": taken, "first_AP": first["best_AP"]}
    head |= {key: second[key] for key in ("best_AP", "store", "run_id", *COUNTED)}
    told = {key: first[key] for key in ("teacher", "teacher_sha256", *COUNTED)}
    content = (second if taken else first) | told | {"head": head}
    write_atomic(receipt, json.dumps(content, indent=1) + "\n")
    which = "taken" if taken else "left aside"
    print(f"head      AP {second['best_AP']:.3f} after {first['best_AP']:.3f}: {which}", flush=True)
    return content, first


def head_params(params: Params) -> Params:
    """What the fresh head is trained with: finetuning's parameters for a share of its epochs, with all but
    the head frozen.
    """
    finetune = params.finetune
    assert finetune.distill is not None
    share = finetune.distill.head_share
    epochs = max(round(finetune.epochs * share), 1)
    frozen = ["backbone."] if params.model.neck is None else ["backbone.", "neck."]
    changes = {
        "epochs": epochs,
        "weak_epochs": min(round(finetune.weak_epochs * share), epochs),
        "evaluate_every": min(finetune.evaluate_every, epochs),
        "freeze": [*finetune.freeze, *frozen],
        "init": None,
        "distill": None,
    }
    return params.model_copy(update={"finetune": finetune.model_copy(update=changes)})
