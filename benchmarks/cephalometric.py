"""Heatmaps or SimCC on large images: both heads on the same backbone, on drawn radiographs, in mm.

    python benchmarks/cephalometric.py [--quick] [--only heads|costs] [--updates 400 200] [--threads 1]

`heads`: RTMPose-t's backbone under its SimCC head and under a heatmap head (three deconvolutions to a quarter
of the input, UDP), trained from random weights on the same crops for the same number of updates at the same
rates, at 256x256; then at 512x512, where each starts from the backbone that it has trained at 256. They are
judged on radiographs that neither has seen: MRE and SDR with 95 % intervals over images, and the difference
of MRE on the same images. The way is the product's own: the challenge's stack and list of points, shards,
stream, updates, evaluation. Processor seconds stand beside it: other work on the machine does not count in
them.

`costs`: processor seconds and peak memory of a training update a sample, at 512x512 and 1024x1024, of both
heads and of HRNet-W32 with heatmaps; each in a process of its own.

The radiographs are drawn: their borders are clean, and no two of a real film's difficulties are in them
(implants, braces, double contours of the two jaw halves, devices). What a few hundred updates show is who
learns faster, not who is better in the end. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtmpose.config import AugmentConfig, EvaluateParams, OptimParams, setup_environment
from rtmpose.data.radiographs.anatomy import LANDMARKS
from rtmpose.data.radiographs.dataset import draw_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.manifest import read_eval
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.evaluation.bootstrap import Interval, resamples
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.evaluation.radial import RadialErrors, radial_errors, radial_figures, radial_line
from rtmpose.machine import cpu_line
from rtmpose.models import PoseNet, build_pose_net
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.training.optim import learning_rate
from rtmpose.training.update import Task, Updater, heatmap_task, simcc_task

DESCRIPTOR, POINTS = "cephalometric38_stack", len(LANDMARKS)
HEADS = ("simcc", "heatmap")
SIZES, BATCHES = (256, 512), (8, 4)  # px of a side; images an update
COSTS = ((512, 2), (1024, 1))  # px of a side; images an update
WAYS = {"RTMPose-t, SimCC": ("cspnext", "simcc"), "RTMPose-t, heatmaps": ("cspnext", "heatmap"),
        "HRNet-W32, heatmaps": ("hrnet_w32", "heatmap")}  # fmt: skip
WIDTH = 64  # channels of the small heatmap head's deconvolutions
OPTIM = OptimParams(lr=2e-3, warmup_steps=30, ema_gamma=50.0)
AUGMENT = AugmentConfig(
    flip=0, half_body=0, shift=0.05, shift_prob=0.3, scale=0.15, rotate=10, rotate_prob=0.5, hue=0,
    saturation=0, value=30, hole=0,
)  # fmt: skip


def network(backbone: str, head: str, side: int) -> PoseNet:
    """A network with fresh weights for inputs of `side` x `side` px."""
    hidden = WIDTH if head == "heatmap" else 256
    return build_pose_net("t", head, POINTS, (side, side), backbone=backbone, hidden=hidden)


def task_of(net: PoseNet, head: str, side: int) -> Task:
    """The network with its head's targets and loss."""
    if head == "heatmap":
        return heatmap_task(net, UDPHeatmap((side, side)))
    return simcc_task(net, SimCC((side, side)), 0.1)


def updater(task: Task, batch: int) -> Updater:
    return Updater(
        task, device=torch.device("cpu"), precision="fp32", global_batch=batch, weight_decay=0.0, optim=OPTIM,
        ema_momentum=0.02,
    )  # fmt: skip


def prepare(folder: Path, images: int, size: tuple[int, int]) -> None:
    """Draw radiographs, and cut their shards: all the way from the challenge's form."""
    draw_dataset(folder / "raw", images=images, size=size, seed=23)
    dataset, largest = load_dataset(DESCRIPTOR), (SIZES[-1], SIZES[-1])
    for split in ("train", "val"):
        raws = list(read_images(dataset, folder / "raw", split))
        if split == "train":
            write_train_shards(raws, folder / split, dataset=dataset, input_size=largest, workers=1)
        else:
            write_eval_shards(raws, folder / split, dataset=dataset, workers=1)


def train_head(folder: Path, head: str, updates: list[int], threads: int) -> None:
    """One head at all sizes; a line of JSON for each, and its errors (P, K) in mm in a file."""
    torch.set_num_threads(threads)
    backbone: dict[str, torch.Tensor] | None = None
    for side, batch, steps in zip(SIZES, BATCHES, updates, strict=True):
        torch.manual_seed(1)
        task = task_of(network("cspnext", head, side), head, side)
        if backbone is not None:
            task.model.backbone.load_state_dict(backbone)  # type: ignore[union-attr]
        spent, loss = train(folder / "train", task, side, batch, steps)
        backbone = task.model.backbone.state_dict()  # type: ignore[union-attr]
        figures, errors = judge(folder / "val", task, side)
        np.save(folder / f"{head}_{side}.npy", errors.errors)
        row = {"head": head, "side": side, "updates": steps, "batch": batch, "cpu_s": spent, "loss": loss}
        print(json.dumps(row | figures), flush=True)


def train(shards: Path, task: Task, side: int, batch: int, steps: int) -> tuple[float, float]:
    """Processor seconds of `steps` updates, and the mean loss per sample of the last tenth."""
    codec = task.codec
    stream = TrainStream(
        [MixEntry(shards, 1)],
        load_skeleton(DESCRIPTOR),
        (side, side),
        batch_size=batch,
        seed=5,
        udp=codec.udp,
    )
    update, done, losses = updater(task, batch), 0, []
    update.task.model.train()
    begin = time.process_time()
    for epoch in range(steps):
        for step in stream.epoch(epoch, AUGMENT):
            rate = learning_rate(done, optim=OPTIM, epochs=2, steps_per_epoch=steps // 2)
            losses.append(float(update.step(step, rate).loss) / batch)
            done += 1
            if done % 50 == 0:
                print(f"{done} of {steps}: loss {np.mean(losses[-50:]):.4f}", file=sys.stderr, flush=True)
            if done == steps:
                task.model.load_state_dict(update.ema.state)
                return time.process_time() - begin, float(np.mean(losses[-max(steps // 10, 1) :]))
    raise AssertionError("an epoch has at least one update")


def judge(shards: Path, task: Task, side: int) -> tuple[dict[str, Any], RadialErrors]:
    """Figures in mm on the validation split, and the errors that they come from."""
    skeleton = load_skeleton(DESCRIPTOR)
    params = EvaluateParams(batch_size=4, flip_test=False)
    evaluator = Evaluator(task.model, task.codec, skeleton, params, "fp32", torch.device("cpu"))
    _, results, truth = evaluator.images(read_eval(shards))
    figures = radial_figures(truth, results, skeleton.names)
    return figures, radial_errors(truth, results, POINTS)


def heads(quick: bool, updates: list[int], threads: int) -> list[dict[str, Any]]:
    """Both heads at all sizes, side by side in processes of their own; printed as they come."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, 40 if quick else 400, (240, 288) if quick else (640, 768))
        running = [
            subprocess.Popen(
                [sys.executable, __file__, "--head", head, "--folder", place, "--threads", str(threads),
                 "--updates", *map(str, updates)],
                stdout=subprocess.PIPE, text=True,
            )
            for head in HEADS
        ]  # fmt: skip
        rows = [json.loads(line) for each in running for line in each.communicate()[0].splitlines()]
        if any(each.returncode for each in running):
            raise SystemExit("a training ended early: see above")
        for side in SIZES:
            for row in (row for row in rows if row["side"] == side):
                about = f"{row['updates']} updates of {row['batch']}, {row['cpu_s']:.0f} processor s"
                print(f"{side}x{side} {row['head']:8} {radial_line(row)}; {about}", flush=True)
            print(f"{side}x{side} heatmaps minus SimCC: {difference(folder, side)}", flush=True)
    return rows


def difference(folder: Path, side: int) -> str:
    """MRE of heatmaps minus that of SimCC, with its interval over images that are drawn again for both."""
    simcc, heatmap = (np.load(folder / f"{head}_{side}.npy") for head in HEADS)
    apart = (heatmap - simcc).mean(axis=1)  # one instance an image
    draws = resamples(len(apart))
    found = Interval.of(float(apart.mean()), draws @ apart / len(apart))
    return f"{found.value:+.3f} mm [{found.low:+.3f}, {found.high:+.3f}] on {len(apart)} images"


def cost(way: str, side: int, batch: int, threads: int) -> dict[str, Any]:
    """Processor seconds and peak memory of an update; called in a process of its own."""
    torch.set_num_threads(threads)
    backbone, head = WAYS[way]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    update = updater(task_of(network(backbone, head, side), head, side), batch)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8))
    points = torch.from_numpy(rng.uniform(0, side, (batch, POINTS, 2)).astype(np.float32))
    spent = []
    for _ in range(3):
        begin = time.process_time()
        update.step(Batch(images, points, torch.ones(batch, POINTS), [], []), 1e-4)
        spent.append(time.process_time() - begin)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    millions = sum(weight.numel() for weight in update.task.model.parameters()) / 1e6
    row = {"way": way, "side": side, "batch": batch, "parameters_m": round(millions, 2)}
    return row | {"cpu_s_per_sample": min(spent[1:]) / batch, "peak_gb": grown / 1e6}


def costs(threads: int) -> list[dict[str, Any]]:
    rows = []
    for side, batch in COSTS:
        for way in WAYS:
            call = [sys.executable, __file__, "--way", way, "--side", str(side), "--batch", str(batch)]
            done = subprocess.run(
                [*call, "--threads", str(threads)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(
                    f"{side}x{side} {way}: ended early: {done.stderr.strip().splitlines()[-1:]}", flush=True
                )
                continue
            row = json.loads(done.stdout)
            rows.append(row)
            print(
                f"{side}x{side} {way}: {row['parameters_m']:.1f} M parameters, "
                f"{row['cpu_s_per_sample']:.2f} processor s a sample, {row['peak_gb']:.2f} GB at {batch}",
                flush=True,
            )
    return rows


def main() -> None:
    setup_environment()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small images, few updates: whether it runs")
    parser.add_argument("--only", choices=["heads", "costs"])
    parser.add_argument("--updates", type=int, nargs=2, default=[400, 200], help="at 256 and at 512")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--head", choices=HEADS, help="of one process")
    parser.add_argument("--folder", type=Path, help="of its shards")
    parser.add_argument("--way", choices=list(WAYS), help="whose cost one process measures")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    asked = parser.parse_args()
    updates = [6, 4] if asked.quick and asked.head is None else asked.updates
    if asked.head is not None:
        return train_head(asked.folder, asked.head, updates, asked.threads)
    if asked.way is not None:
        return print(json.dumps(cost(asked.way, asked.side, asked.batch, asked.threads)))
    print(f"machine: {cpu_line()}, {asked.threads} thread(s) each", flush=True)
    learned = heads(asked.quick, updates, asked.threads) if asked.only != "costs" else []
    paid = costs(asked.threads) if asked.only != "heads" else []
    print(json.dumps({"name": "cephalometric", "ours": learned, "peer": paid, "ratio": None,
                      "unit": "mm", "machine": cpu_line()}))  # fmt: skip


if __name__ == "__main__":
    main()
