"""Whether distillation, RTMW's neck and pruning make small networks better for the same updates.

    python benchmarks/smaller.py --teacher models/rtmpose.pt --student-init models/pretrain.pt \\
        --source-init S.pt [--data data] [--epochs 1] [--source-epochs 2] [--batch 32]

Everything is trained on the mannequins' COCO points at 96x128, by the product's own loop, with the default
recipe's settings and one seed. RTMPose-t is trained from one start, with and without a teacher and with the
neck, for the same number of updates; what stands in a line beside another differs in that one thing. An s
network is trained, too, cut to t by three kinds of scores, and trained on. Nothing is chosen by AP: what
counts are the last weights.

AP is that of the validation images in ground-truth boxes without flip test. Differences are paired: the same
resampled images for both, 95 % bootstrap intervals. `--student-init` and `--source-init` are weights whose
backbones the t and the s network start from, `--teacher` are those of any trained network. Run again after a
kill it goes on in --out. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rtmpose.config import DistillParams, Params, load_params
from rtmpose.data.stream.mix import Mix, MixEntry
from rtmpose.descriptors import load_dataset
from rtmpose.ending import run_command
from rtmpose.evaluation.bootstrap import Interval, PairedReference, Ranking, resamples
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.machine import cpu_line
from rtmpose.models import PoseNet, build_model, load_exactly, save_tensors
from rtmpose.pruning.cut import Scores, cut
from rtmpose.pruning.run import scores_of
from rtmpose.pruning.scores import norm_scores
from rtmpose.training.checkpoint import BEST, Store
from rtmpose.training.distill.stages import head_params
from rtmpose.training.following import status_line
from rtmpose.training.job import Job, build_task, codec_of, open_stream
from rtmpose.training.loop import Run

ROOT = Path(__file__).resolve().parent.parent
COCO, CPU = load_dataset("coco17"), torch.device("cpu")
SOURCE_BATCH = 64


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
        "taylor": partial(scores_of, skeleton=COCO.skeleton, shards=bench.mix.train[0].dir),
    }
    cut(networks[0], networks[1], known[kind](networks[0]))
    path = bench.out / f"pruned-{kind}.pt"
    save_tensors(path, networks[1].state_dict())
    return path


def trained(bench: Bench, options: argparse.Namespace) -> Iterator[tuple[str, Params, Path]]:
    """All networks, as they come: name, parameters and weights."""
    start, teacher = options.student_init, options.teacher
    plain = bench.student("t", options.epochs, batch_size=options.batch)
    yield "teacher", plain, teacher
    yield "t", plain, (alone := bench.train("t", plain, start))
    guided = with_distill(plain, DistillParams(teacher=str(teacher)))
    yield "t distilled", guided, (taught := bench.train("t-distilled", guided, start, teacher=teacher))
    large = bench.student("s", options.source_epochs, batch_size=SOURCE_BATCH)
    source = bench.train("s", large, options.source_init)
    yield "s", large, source
    for kind in ("norm", "random", "taylor"):
        cut_down = pruned(bench, source, kind)
        yield f"pruned by {kind}, as cut", plain, cut_down
        # `init` set: the whole network starts from the file, not the backbone alone
        whole = bench.student("t", options.epochs, batch_size=options.batch, init=str(cut_down))
        yield f"pruned by {kind}", whole, bench.train(f"pruned-{kind}", whole, cut_down)
    for name, weights in (("t", alone), ("t distilled", taught)):
        second = head_params(with_distill(plain, DistillParams()))
        head = bench.train(f"{name.replace(' ', '-')}-head", second, weights, stage="head", teacher=weights)
        yield f"{name}, new head", plain, head
    wide = bench.student("t", options.epochs, neck="rtmw", batch_size=options.batch)
    yield "t with neck", wide, bench.train("t-neck", wide, start)


def with_distill(params: Params, distill: DistillParams) -> Params:
    return params.model_copy(update={"finetune": params.finetune.model_copy(update={"distill": distill})})


PAIRS = (
    ("t distilled", "t"),
    ("t, new head", "t"),
    ("t distilled, new head", "t distilled"),
    ("t with neck", "t"),
    ("pruned by norm", "t"),
    ("pruned by taylor", "t"),
    ("pruned by norm", "pruned by random"),
    ("pruned by taylor", "pruned by random"),
    ("pruned by taylor", "pruned by norm"),
)


def points(interval: Interval) -> list[float]:
    """A figure and its interval in AP points."""
    return [round(100 * value, 2) for value in (interval.value, interval.low, interval.high)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder with shards/coco17")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student-init", type=Path, required=True)
    parser.add_argument("--source-init", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--source-epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("data/smaller"))
    options = parser.parse_args()
    torch.set_num_threads(2)
    shards = (options.data / "shards/coco17").resolve()
    mix = Mix((MixEntry(shards / "train", 1),), shards / "tune", {"coco17": shards / "val"})
    params = load_params(ROOT / "params.yaml")
    hardware = params.hardware.model_copy(update={"loader_workers": 0, "precision": "fp32"})
    bench = Bench(params.model_copy(update={"hardware": hardware}), mix, options.out.resolve())
    options.out.mkdir(parents=True, exist_ok=True)
    ranked: dict[str, Ranking] = {}
    rows, images = [], 0
    for name, one, weights in trained(bench, options):
        ranked[name], truth = bench.ranking(one, weights)
        images = len(truth)
        print(f"{name:28} AP {100 * ranked[name].ap():6.2f}", flush=True)
        for ours, theirs in PAIRS:
            if name in (ours, theirs) and {ours, theirs} <= ranked.keys():
                compared = PairedReference(ranked[theirs], resamples(images)).compare(ranked[ours])
                difference = points(compared.difference)
                rows.append({"ours": ours, "beside": theirs, "difference": difference})
                value, low, high = difference
                print(f"{ours:28} - {theirs:24} {value:+6.2f} [{low:+.2f}, {high:+.2f}]", flush=True)
    ap = {name: round(100 * each.ap(), 2) for name, each in ranked.items()}
    print(json.dumps({"name": "smaller", "ap": ap, "pairs": rows, "images": images,
                      "unit": "AP points", "machine": cpu_line()}))  # fmt: skip


if __name__ == "__main__":
    run_command(main)
