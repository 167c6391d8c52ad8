"""Whether distillation, RTMW's neck and pruning make small networks better for the same updates.

    python benchmarks/smaller.py --teacher-init S.pt --student-init models/pretrain.pt [--data data]

Everything is trained on the mannequins' COCO points at 96x128, by the product's own loop, with the default
recipe's settings and one seed. An s network is trained first: it teaches, and it is pruned. Then RTMPose-t is
trained from one start, with and without each of the three, for the same number of updates; what stands in a
line beside another differs in that one thing. Nothing is chosen by AP: what counts are the last weights.

AP is that of the validation images in ground-truth boxes without flip test. Differences are paired: the same
resampled images for both, 95 % bootstrap intervals. `--teacher-init` and `--student-init` are weights whose
backbones the s and the t network start from. Run again after a kill it goes on in --out. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtmpose.config import DistillParams, Params, load_params
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.mix import Mix, MixEntry
from rtmpose.descriptors import load_dataset
from rtmpose.ending import run_command
from rtmpose.evaluation.bootstrap import Interval, PairedReference, Ranking, resamples
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.machine import cpu_line
from rtmpose.models import PoseNet, build_model, load_exactly, normalise, save_tensors
from rtmpose.pruning.cut import Scores, cut
from rtmpose.pruning.scores import norm_scores, taylor_scores
from rtmpose.targets import SimCC
from rtmpose.training.checkpoint import BEST, Store
from rtmpose.training.distill.stages import head_params
from rtmpose.training.following import status_line
from rtmpose.training.job import Job, build_task, codec_of, open_stream
from rtmpose.training.loop import Run
from rtmpose.training.update import simcc_task

ROOT = Path(__file__).resolve().parent.parent
COCO, CPU = load_dataset("coco17"), torch.device("cpu")
TEACHER_EPOCHS, EPOCHS, PRUNED_EPOCHS = 5, 3, 1
TAYLOR_BATCHES = 8


@dataclass(frozen=True)
class Bench:
    """The data, the recipe, and where stores and weights go."""

    params: Params
    mix: Mix
    out: Path

    def student(self, size: str, epochs: int, **changes: Any) -> Params:
        """The recipe for a size and a number of epochs, evaluated once, at the end."""
        model = self.params.model.model_copy(update={"size": size, "neck": changes.pop("neck", None)})
        length = {"epochs": epochs, "weak_epochs": epochs // 3, "evaluate_every": epochs}
        finetune = self.params.finetune.model_copy(update=length | changes)
        return self.params.model_copy(update={"model": model, "finetune": finetune})

    def train(self, name: str, params: Params, init: Path, *, stage: str = "finetune",
              teacher: Path | None = None) -> Path:  # fmt: skip
        """Train to the end, or what is left of it; the file of the last averaged weights."""
        store = Store.open(self.out, name, fresh=False)
        job = Job(
            stage=stage, params=params, precision="fp32", mix=self.mix, store=store.folder, token=store.token,
            run_id="", tracking_uri="", init=init, sigma=None, tau=params.finetune.tau, teacher=teacher,
        )  # fmt: skip
        task, begun = build_task(job), time.perf_counter()
        Run(
            task, open_stream(params, job.train, self.mix, udp=task.codec.udp), store, params=job.train,
            model_params=params.model, evaluate=lambda _: {"AP": 0.0},
            report=lambda line: print(status_line(name, line), flush=True) if "loss" in line else None,
            epoch_done=lambda _: None, device=CPU, precision="fp32",
        ).train()  # fmt: skip
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
        return store.folder / BEST

    def ranking(self, params: Params, weights: Path) -> tuple[Ranking, list[dict[str, Any]]]:
        """What COCO's matching makes of the network's poses on the validation images, and these images."""
        network = build_model(params.model, COCO.skeleton.num_keypoints, params.input_size)
        load_exactly(network, weights)
        codec = codec_of("finetune", params, None)
        judge = Evaluator(network, codec, COCO.skeleton, params.evaluate, "fp32", CPU).without_flip()
        _, results, truth = judge.shards(self.mix.val["coco17"])
        return Ranking.of(truth, results, COCO.skeleton.sigmas), truth["images"]


def random_scores(network: PoseNet) -> Scores:
    """Scores that know nothing: what a ranking has to beat."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(len(value), generator=generator) for name, value in norm_scores(network).items()}


def scores_by_loss(bench: Bench, params: Params, network: PoseNet) -> Scores:
    """Taylor scores from a few training batches."""
    train = params.finetune
    task = simcc_task(network, SimCC(params.input_size), train.tau)
    stream = open_stream(params, train, bench.mix, udp=False)

    def loss(batch: Batch, asked: PoseNet) -> Tensor:
        targets, weights = task.codec.encode(batch.keypoints, batch.weights)
        return task.loss(asked(normalise(batch.images)), targets, weights)

    batches: Iterator[Batch] = islice(stream.epoch(0, train.weak), TAYLOR_BATCHES)
    return taylor_scores(network, (partial(loss, batch) for batch in batches))


def pruned(bench: Bench, source: Path, kind: str) -> Path:
    """The s network cut to t by one kind of scores."""
    large, small = (bench.student(size, 1) for size in "st")
    networks = [
        build_model(each.model, COCO.skeleton.num_keypoints, each.input_size) for each in (large, small)
    ]
    load_exactly(networks[0], source)
    known: dict[str, Callable[[PoseNet], Scores]] = {
        "norm": norm_scores,
        "random": random_scores,
        "taylor": partial(scores_by_loss, bench, large),
    }
    cut(networks[0], networks[1], known[kind](networks[0]))
    path = bench.out / f"pruned-{kind}.pt"
    save_tensors(path, networks[1].state_dict())
    return path


def trained(bench: Bench, options: argparse.Namespace) -> dict[str, tuple[Params, Path]]:
    """All networks by name: their parameters and weights."""
    start, plain = options.student_init, bench.student("t", EPOCHS)
    teacher = bench.train("s", large := bench.student("s", TEACHER_EPOCHS), options.teacher_init)
    found = {"s": (large, teacher), "t": (plain, bench.train("t", plain, start))}
    guided = bench.student("t", EPOCHS, distill=DistillParams(teacher=str(teacher)))
    found["t distilled"] = guided, bench.train("t-distilled", guided, start, teacher=teacher)
    for name in ("t", "t distilled"):
        params, weights = found[name]
        alone = params.model_copy(
            update={"finetune": params.finetune.model_copy(update={"distill": DistillParams()})}
        )
        head = bench.train(f"{name.replace(' ', '-')}-head", head_params(alone), weights, stage="head",
                           teacher=weights)  # fmt: skip
        found[f"{name}, new head"] = params, head
    wide = bench.student("t", EPOCHS, neck="rtmw")
    found["t with neck"] = wide, bench.train("t-neck", wide, start)
    short = bench.student("t", PRUNED_EPOCHS)
    found["t, short"] = short, bench.train("t-short", short, start)
    for kind in ("norm", "taylor", "random"):
        cut_down = pruned(bench, teacher, kind)
        # `init` set: the whole network starts from the file, not the backbone alone
        whole = bench.student("t", PRUNED_EPOCHS, init=str(cut_down))
        found[f"pruned by {kind}, as cut"] = short, cut_down
        found[f"pruned by {kind}, short"] = whole, bench.train(f"pruned-{kind}", whole, cut_down)
    return found


PAIRS = (
    ("t distilled", "t"),
    ("t, new head", "t"),
    ("t distilled, new head", "t distilled"),
    ("t with neck", "t"),
    ("pruned by norm, short", "t, short"),
    ("pruned by taylor, short", "t, short"),
    ("pruned by norm, short", "pruned by random, short"),
    ("pruned by taylor, short", "pruned by random, short"),
)


def points(interval: Interval) -> list[float]:
    """A figure and its interval in AP points."""
    return [round(100 * value, 2) for value in (interval.value, interval.low, interval.high)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder with shards/coco17")
    parser.add_argument("--teacher-init", type=Path, required=True)
    parser.add_argument("--student-init", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("data/smaller"))
    options = parser.parse_args()
    torch.set_num_threads(2)
    shards = (options.data / "shards/coco17").resolve()
    mix = Mix((MixEntry(shards / "train", 1),), shards / "tune", {"coco17": shards / "val"})
    params = load_params(ROOT / "params.yaml")
    hardware = params.hardware.model_copy(update={"loader_workers": 0, "precision": "fp32"})
    bench = Bench(params.model_copy(update={"hardware": hardware}), mix, options.out.resolve())
    options.out.mkdir(parents=True, exist_ok=True)
    found = trained(bench, options)
    ranked = {name: bench.ranking(*each) for name, each in found.items()}
    images = next(iter(ranked.values()))[1]
    draws = resamples(len(images))
    ap = {name: round(100 * ranking.ap(), 2) for name, (ranking, _) in ranked.items()}
    for name, value in ap.items():
        print(f"{name:28} AP {value:6.2f}")
    rows = []
    for ours, theirs in PAIRS:
        compared = PairedReference(ranked[theirs][0], draws).compare(ranked[ours][0])
        difference = points(compared.difference)
        rows.append({"ours": ours, "beside": theirs, "difference": difference})
        print(f"{ours:28} - {theirs:24} {difference[0]:+6.2f} [{difference[1]:+.2f}, {difference[2]:+.2f}]")
    print(json.dumps({"name": "smaller", "ap": ap, "pairs": rows, "images": len(images),
                      "unit": "AP points", "machine": cpu_line()}))  # fmt: skip


if __name__ == "__main__":
    run_command(main)
