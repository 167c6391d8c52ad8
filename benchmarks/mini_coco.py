"""Whether training from random weights learns real photographs: a small COCO; RTMPose-t on a CPU by default.

    python benchmarks/mini_coco.py [--data FOLDER] [--minutes 30] [--quick] [--out data/mini_coco]
    python benchmarks/mini_coco.py --device cuda --network s --size 192 256 --batch 256 --loader-workers 14
    python benchmarks/mini_coco.py --init models/rtmpose.pt --out data/mini_coco_init

The product's own loop trains: UDP heatmap pretraining, then SimCC finetuning from its backbone. Each stage's
number of epochs is fixed beforehand from its measured rate, so that both cosine schedules end with the
minutes, which count all of training with the evaluations in between, but not cutting the crops, measuring the
rate and the final evaluation. `--init` starts the finetuning from a whole network, such as the default
run's, in place of the pretraining.

After every few epochs the EMA weights are evaluated on the validation photographs in ground-truth boxes,
without flip test, beside the mean pose of these very photographs put into the same boxes: AP and mean
keypoint error (distance over the square root of the person's area, mean over labelled points). Intervals are
95 % bootstraps over photographs. Nothing is chosen by these figures: what counts are the last weights.
`--held-out` is for choosing the settings of this script: 10 % of the training photographs are left out of
training and take the place of the validation ones.

Run again after a kill it goes on from the last checkpoint in --out, where `curve.csv` lies; the picture goes
to docs/mini_coco.png (of --quick, --init, other networks and devices into --out). The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mini_coco_picture import FIGURES, Row, draw, table_line, with_interval

from rtmpose.config import Params, Precision, load_params
from rtmpose.data.raw.annotations import RawImage, read_images
from rtmpose.data.shards.manifest import EvalImage, read_manifest
from rtmpose.data.shards.write import in_tune, write_train_shards
from rtmpose.data.stream.mix import Mix, MixEntry
from rtmpose.descriptors import load_dataset
from rtmpose.ending import run_command
from rtmpose.evaluation.bootstrap import Ranking, percentile_interval, resampled_error, resamples
from rtmpose.evaluation.coco import load_detections
from rtmpose.evaluation.error import point_errors, set_mean_pose
from rtmpose.evaluation.evaluator import Evaluator, opened
from rtmpose.evaluation.mean_pose import mean_pose_predictions
from rtmpose.evaluation.predict import Boxes
from rtmpose.files import UserError, read_json, write_atomic, write_csv
from rtmpose.machine import cpu_line
from rtmpose.models import save_tensors
from rtmpose.precision import announce, choose_here
from rtmpose.training.checkpoint import Store
from rtmpose.training.following import status_line
from rtmpose.training.job import Job, build_task, open_stream
from rtmpose.training.loop import Run
from rtmpose.training.update import Task

ROOT = Path(__file__).resolve().parent.parent
COCO, HELD_OUT = load_dataset("coco17"), 0.1
QUICK = 60  # photographs
COLUMNS = ["stage", "epoch", "samples", "minutes"]
COLUMNS += [f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")]


class Enough(Exception):
    """Ends a run whose rate has been measured."""


@dataclass(frozen=True)
class Bench:
    """The data, the parameters and where everything goes."""

    params: Params
    precision: Precision
    mix: Mix
    val: list[RawImage]
    out: Path
    device: torch.device

    def images(self) -> Iterator[EvalImage]:
        return opened(self.val)

    def job(self, stage: str, store: Store, init: Path | None) -> Job:
        return Job(
            stage=stage, params=self.params, precision=self.precision, mix=self.mix, store=store.folder,
            token=store.token, run_id="", tracking_uri="", init=init, sigma=None,
            tau=self.params.finetune.tau,
        )  # fmt: skip

    def judge(self, model: torch.nn.Module, task: Task, flip: bool) -> Evaluator:
        how = self.params.evaluate.model_copy(update={"flip_test": flip})
        return Evaluator(model, task.codec, COCO.skeleton, how, self.precision, self.device)

    def run(
        self, stage: str, store: Store, init: Path | None, log_steps: int, **hooks: Callable[..., Any]
    ) -> Run:
        job = self.job(stage, store, init)
        task = build_task(job)
        evaluate = hooks.get("evaluate", lambda model: {"AP": 0.0})
        return Run(
            task,
            open_stream(self.params, job.train, self.mix, udp=task.codec.udp),
            store,
            params=job.train.model_copy(update={"log_steps": log_steps}),
            model_params=self.params.model,
            evaluate=lambda model: evaluate(self.judge(model, task, flip=False)),
            report=hooks["report"],
            epoch_done=hooks.get("epoch_done", lambda position: None),
            device=self.device,
            precision=self.precision,
        )


def figures(judge: Evaluator, images: Iterator[EvalImage], boxes: Boxes = "ground truth") -> Row:
    """AP and, in ground-truth boxes, mean keypoint error of the network and of the mean pose, each with its
    interval.
    """
    poses, truth = judge.poses(images, boxes)
    draws, whole = resamples(len(truth["images"])), np.ones((1, len(truth["images"])), np.int64)
    ranking = Ranking.of(truth, judge.results(poses), judge.skeleton.sigmas)
    found = named("AP", float(ranking.resampled_ap(whole)[0]), ranking.resampled_ap(draws))
    if boxes != "ground truth":
        return found
    mean = set_mean_pose(truth, judge.skeleton.num_keypoints)
    ours, floor = point_errors(truth, poses, mean), point_errors(truth, (), mean)
    again, floor_again = resampled_error(ours, draws), resampled_error(floor, draws)
    ranking = Ranking.of(truth, mean_pose_predictions(mean, truth), judge.skeleton.sigmas)
    return (
        found
        | named("error", ours.mean, again)
        | named("mean_pose_error", floor.mean, floor_again)
        | named("error_ratio", ours.mean / floor.mean, again / floor_again)
        | named("mean_pose_AP", float(ranking.resampled_ap(whole)[0]), ranking.resampled_ap(draws))
    )


def named(name: str, value: float, again: np.ndarray) -> Row:
    low, high = percentile_interval(again)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def rate(bench: Bench, stage: str) -> tuple[float, int]:
    """Samples/s of a stage's training, loader included, and the steps of an epoch; the first updates are not
    counted.
    """
    seen: list[float] = []

    def report(line: Row) -> None:
        seen.extend([line["samples_per_s"]] if "samples_per_s" in line else [])
        if len(seen) == 3:
            raise Enough

    with tempfile.TemporaryDirectory() as folder:
        run = bench.run(stage, Store.open(Path(folder), stage, fresh=True), None, log_steps=8, report=report)
        with suppress(Enough):
            run.train()
    return float(np.mean(seen[-2:])), run.stream.steps_per_epoch


def evaluation_seconds(bench: Bench) -> float:
    """What one evaluation of the finetuned network costs."""
    task = build_task(bench.job("finetune", Store(bench.out, ""), None))
    task.model.to(bench.device)
    start = time.perf_counter()
    figures(bench.judge(task.model, task, flip=False), bench.images())
    return time.perf_counter() - start


def planned(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """How many epochs each stage gets: measured once, then kept in --out, so that a resumed run keeps its
    schedule.
    """
    path = bench.out / "plan.json"
    wanted = {name: str(value) for name, value in vars(options).items() if name != "out"}
    if path.exists():
        plan = read_json(path)
        if plan["options"] != wanted:
            raise UserError(
                f"{path}: this run was begun with other options; delete {bench.out} or give another --out"
            )
        return dict(plan)
    seconds = 60 * options.minutes - (
        0 if options.quick else 2 * options.evaluations * evaluation_seconds(bench)
    )
    plan = {"options": wanted}
    pretraining = 0.0 if options.init else options.pretrain_share
    for stage, share in (("pretrain", pretraining), ("finetune", 1 - pretraining)):
        pace, steps = rate(bench, stage)
        samples = max(seconds, 0.0) * share * pace
        plan[stage] = max(round(samples / (steps * options.batch)), 1) if share else 0
        print(f"{stage:9} {pace:.0f} samples/s: {plan[stage]} epochs", flush=True)
    write_atomic(path, json.dumps(plan, indent=1))
    return plan


class Diary:
    """The table so far, and the minutes spent, over all processes that worked on it."""

    def __init__(self, out: Path) -> None:
        self.path, self.clock = out / "rows.json", out / "clock.json"
        self.rows: list[Row] = read_json(self.path) if self.path.exists() else []
        self.before = float(read_json(self.clock)) if self.clock.exists() else 0.0
        self.start = time.perf_counter()
        for row in self.rows:
            print(table_line(row), flush=True)

    @property
    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.start

    def tick(self, position: Row) -> None:
        """Remember the time at a checkpoint: what is lost after it in a kill is trained, and
        counted, again.
        """
        write_atomic(self.clock, json.dumps(self.seconds))

    def add(self, row: Row) -> None:
        place = (row["stage"], row["epoch"])
        self.rows = [*(old for old in self.rows if (old["stage"], old["epoch"]) != place), row]
        write_atomic(self.path, json.dumps(self.rows, indent=1))
        write_csv(self.path.with_name("curve.csv"), COLUMNS, self.rows)
        print(table_line(row), flush=True)


def train(bench: Bench, stage: str, init: Path | None, diary: Diary) -> Path:
    """Train a stage to its end, or what is left of it, with a row for each evaluation; the file of its last
    EMA weights.
    """
    store = Store.open(bench.out, stage, fresh=False)
    entry = bench.mix.train[0]
    samples = read_manifest(entry.dir, "train")["samples"] * entry.repeat
    steps = samples // bench.params.finetune.batch_size + 1

    def report(line: Row) -> None:
        store.append_log(line)
        if "AP" not in line:
            print(status_line(stage, line), flush=True)
            return
        samples = line["step"] * bench.params.finetune.batch_size
        epoch = round(line["step"] / run.stream.steps_per_epoch)
        diary.add({"stage": stage, "epoch": epoch, "samples": samples, "minutes": diary.seconds / 60} | line)

    run = bench.run(
        stage, store, init, log_steps=10 * steps, report=report, epoch_done=diary.tick,
        evaluate=lambda judge: figures(judge, bench.images()),
    )  # fmt: skip
    run.train()
    state = store.load()
    assert state is not None
    weights = bench.out / f"{stage}.pt"
    save_tensors(weights, state["ema"])
    return weights


def final(bench: Bench, weights: Path, detections: Path) -> Row:
    """The last weights with flip test, in ground-truth boxes and in the detector's."""
    task = build_task(bench.job("finetune", Store(bench.out, ""), None))
    task.model.load_state_dict(torch.load(weights, weights_only=True))
    task.model.to(bench.device)
    judge = bench.judge(task.model, task, flip=True)
    row = figures(judge, bench.images())
    if detections.exists():
        known = {raw.image_id for raw in bench.val}
        boxes = {image: found for image, found in load_detections(detections).items() if image in known}
        row |= {f"detector_{name}": value for name, value in figures(judge, bench.images(), boxes).items()}
    return row


def parameters(options: argparse.Namespace, epochs: dict[str, Any]) -> Params:
    """The default recipe's, with the sizes of this run; both stages see the recipe's light augmentation."""
    content = load_params(ROOT / "params.yaml").model_dump()
    content |= {"input_size": options.size}
    content["model"] |= {"size": options.network}
    content["hardware"] |= {
        "workers": 1, "gpus_per_worker": 0, "loader_workers": options.loader_workers, "precision": "auto",
    }  # fmt: skip
    for stage in ("pretrain", "finetune"):
        count = max(int(epochs.get(stage, 1)), 1)
        warmup = min(200, 20 * count)  # updates
        content[stage] |= {
            "epochs": count, "weak_epochs": count // 6, "batch_size": options.batch, "checkpoint_steps": None,
            "evaluate_every": max(count // options.evaluations, 1), "skeleton": "coco17", "patience": None,
            "picture_every": None,
        }  # fmt: skip
        content[stage]["optim"] |= {"lr": options.lr, "warmup_steps": warmup}
    content["finetune"]["init"] = options.init and str(options.init)
    return Params.model_validate(content)


def prepared(options: argparse.Namespace) -> Bench:
    """The crops, cut once into --out, and the photographs to evaluate on."""
    few = QUICK if options.quick else None
    images = list(read_images(COCO, options.data, "train"))[:few]
    held = [raw for raw in images if options.held_out and in_tune(raw.image_id, HELD_OUT)]
    kept = {raw.image_id for raw in held}
    val = held or list(read_images(COCO, options.data, "val"))[:few]
    folder = options.out / "train"
    if not (folder / "manifest.json").exists():
        cut = [raw for raw in images if raw.image_id not in kept]
        write_train_shards(cut, folder, dataset=COCO, input_size=options.size, workers=options.loader_workers)
    params = parameters(options, {})
    chosen = choose_here(params, on_gpu=options.device == "cuda")
    announce("mini_coco", chosen)
    return Bench(
        params,
        chosen.precision,
        Mix((MixEntry(folder.resolve(), options.repeat),), folder.resolve(), {}),
        val,
        options.out.resolve(),
        torch.device(options.device),
    )


def arguments() -> argparse.Namespace:
    """The command line's options, with what they imply."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared/realdata/coco", help="a folder in COCO's layout"
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--size", type=int, nargs=2, default=(96, 128), help="width and height of the input, px"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--network", choices=tuple("tsmlx"), default="t")
    parser.add_argument("--loader-workers", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=10, help="a stage, about")
    parser.add_argument(
        "--repeat", type=int, default=1, help="passes over the photographs that make an epoch"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument(
        "--pretrain-share", type=float, default=0.4, help="of the minutes, for heatmap pretraining"
    )
    parser.add_argument("--init", type=Path, help="weights of the same network to finetune from")
    parser.add_argument(
        "--held-out", action="store_true", help="evaluate on a tenth of the training photographs instead"
    )
    parser.add_argument("--out", type=Path, help="default: data/mini_coco")
    parser.add_argument("--quick", action="store_true", help="a minute: shows that it runs")
    options = parser.parse_args()
    options.out = options.out or ROOT / "data" / ("mini_coco_quick" if options.quick else "mini_coco")
    options.minutes, options.size = 0.3 if options.quick else options.minutes, tuple(options.size)
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    bench = prepared(options)
    plan = planned(bench, options)
    bench = replace(bench, params=parameters(options, plan))
    print(f"{len(bench.val)} photographs to evaluate on; 95 % intervals in brackets", flush=True)
    print(
        f"{'stage':9} {'epoch':>5} {'samples':>8} {'minutes':>7}  {'AP':24}  {'error':24}  mean pose's error",
        flush=True,
    )
    diary = Diary(bench.out)
    init = train(bench, "pretrain", None, diary) if plan["pretrain"] else options.init
    last = train(bench, "finetune", init, diary)
    published = not (options.quick or options.init) and (options.device, options.network) == ("cpu", "t")
    picture = ROOT / "docs/mini_coco.png" if published else bench.out / "curve.png"
    draw(diary.rows, picture, options.network)
    detections = options.data / str(COCO.splits["val"].detections)
    row = final(bench, last, detections)
    print(
        "at the end, with flip test: "
        + ", ".join(f"{name} {with_interval(row, name)}" for name in row if f"{name}_low" in row)
    )
    result = {
        "name": "mini_coco", "ours": row["error"], "peer": row["mean_pose_error"],
        "ratio": row["error_ratio"],
        "unit": "mean keypoint error over the root of the person's area (lower is better), peer: mean pose",
        "machine": cpu_line(), "device": options.device, "network": options.network,
        "precision": bench.precision,
        "minutes": diary.rows[-1]["minutes"],
        "figures": row, "photographs": len(bench.val), "epochs": {stage: plan[stage] for stage in ("pretrain",
        "finetune")}, "size": list(options.size),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    run_command(main)
