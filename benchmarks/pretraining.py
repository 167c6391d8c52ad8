"""Whether UDP heatmap pretraining pays: AP of SimCC finetuning from the pretrained backbone, and from
scratch.

`python benchmarks/pretraining.py [--quick]` after `make repro`: both runs see the same batches under the same
schedule. The run from scratch goes on as long as pretraining and finetuning together took in samples, so that
neither gets more. Prints AP on the tuning split against samples; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from rtmpose.config import Params, Precision, load_params, setup_environment
from rtmpose.data.stream.mix import read_mix
from rtmpose.files import read_json
from rtmpose.machine import cpu_line
from rtmpose.precision import announce, choose_here
from rtmpose.search.trial import Worker, updates
from rtmpose.training.job import Job, build_task, tuning_ap

EVALUATIONS = 8


def curve(
    params: Params, precision: Precision, init: Path | None, samples: int, label: str
) -> list[tuple[int, float]]:
    """AP on the tuning split against the samples seen; the rate decays over the second half."""
    job = Job(
        stage="finetune", params=params, precision=precision, mix=read_mix(Path("data/mix.json")),
        store=Path(tempfile.gettempdir()), token="", run_id="", tracking_uri="", init=init,
        tau=params.finetune.tau, sigma=None,
    )  # fmt: skip
    task, device = build_task(job), torch.device("cpu")
    evaluate = tuning_ap(job, task, device)
    batch = params.finetune.batch_size
    steps = samples // batch
    points, start = [], time.perf_counter()
    for step, updater in updates(job, task, steps, Worker(device), seed=params.seed, decay=True):
        if step % max(steps // EVALUATIONS, 1) == 0:
            points.append((step * batch, evaluate(updater.task.model)["AP"]))
            updater.task.model.train()
            print(
                f"{label:12} {points[-1][0]:7d} samples  {time.perf_counter() - start:5.0f} s  AP "
                f"{points[-1][1]:.3f}",
                flush=True,
            )
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    options = parser.parse_args()
    setup_environment()
    params = load_params()
    chosen = choose_here(params, on_gpu=False)
    announce("pretraining", chosen)
    torch.set_num_threads(max(int(params.hardware.cpus_per_worker), 1))
    before = read_json("models/pretrain.json", "run `make repro`")["samples"]
    after = read_json("models/receipt.json", "run `make repro`")["samples"]
    share = 0.1 if options.quick else 1.0
    ours = curve(
        params, chosen.precision, Path("models/pretrain.pt").resolve(), int(after * share), "pretrained"
    )
    peer = curve(params, chosen.precision, None, int((before + after) * share), "from scratch")
    print(f"pretraining took {before} samples, finetuning {after}; from scratch {before + after}")
    result = {
        "name": "pretraining", "ours": ours[-1][1], "peer": peer[-1][1],
        "ratio": ours[-1][1] / max(peer[-1][1], 1e-9), "unit": "AP on the tuning split at equal samples",
        "machine": cpu_line(), "precision": chosen.precision,
        "curves": {"pretrained": ours, "scratch": peer},
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
