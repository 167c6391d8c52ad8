"""What bf16 costs in AP: finetuning under the same seeds in float32 and in bf16 autocast, everything else
equal.

`python benchmarks/bf16_cost.py [--seeds 3] [--samples 20000] [--quick]` after `make repro`. Prints AP on the
tuning split of both, and the difference, paired by seed, with its 95 % interval (Student); the last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch

from rtmpose.config import Params, Precision, load_params, setup_environment
from rtmpose.data.stream.mix import read_mix
from rtmpose.ladder.report import interval
from rtmpose.machine import cpu_line, training_device
from rtmpose.search.trial import Worker, updates
from rtmpose.training.job import Job, build_task, tuning_ap

PRETRAINED = Path("models/pretrain.pt")


def final_ap(params: Params, seed: int, precision: Precision, samples: int) -> float:
    """AP on the tuning split after finetuning on so many samples; the rate decays over the second half."""
    params = params.model_copy(update={"seed": seed})
    job = Job(
        stage="finetune", params=params, precision=precision, mix=read_mix(Path("data/mix.json")),
        store=Path(tempfile.gettempdir()), token="", run_id="", tracking_uri="", init=PRETRAINED.resolve(),
        tau=params.finetune.tau, sigma=params.finetune.sigma,
    )  # fmt: skip
    task, device = build_task(job), torch.device("cpu")
    for _ in updates(job, task, samples // params.finetune.batch_size, Worker(device), seed=seed, decay=True):
        pass
    ap = tuning_ap(job, task, device)(task.model)["AP"]
    print(f"seed {seed}, {precision}: AP {ap:.4f} after {samples} samples", flush=True)
    return ap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=20000, help="of each run")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    options = parser.parse_args()
    setup_environment()
    params, device = load_params(), training_device(on_gpu=False)
    print(f"machine: {cpu_line()}", flush=True)
    if not device.bf16:
        print(f"left out: bf16, which {device} would emulate, {device.emulated}; there is nothing to compare")
        nothing = {"ours": None, "peer": None, "ratio": None, "unit": "AP on the tuning split"}
        print(json.dumps({"name": "bf16_cost", **nothing, "machine": cpu_line(), "left_out": ["bf16"]}))
        return
    torch.set_num_threads(max(int(params.hardware.cpus_per_worker), 1))
    samples = options.samples // 10 if options.quick else options.samples
    ap: dict[Precision, list[float]] = {"fp32": [], "bf16": []}
    for seed in range(1, options.seeds + 1):
        for precision, found in ap.items():
            found.append(final_ap(params, seed, precision, samples))
    gain = interval([bf16 - fp32 for fp32, bf16 in zip(*ap.values(), strict=True)])
    fp32, bf16 = (statistics.fmean(found) for found in ap.values())
    print(
        f"AP fp32 {fp32:.4f}, bf16 {bf16:.4f}; difference {gain.mean:+.4f} ± {gain.half or float('nan'):.4f}"
    )
    result = {
        "name": "bf16_cost", "ours": bf16, "peer": fp32, "ratio": bf16 / max(fp32, 1e-9),
        "unit": f"AP on the tuning split after {samples} samples",
        "machine": cpu_line(), "difference": gain.mean, "half_width": gain.half,
        "runs": ap,
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
