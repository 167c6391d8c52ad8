"""RTMPose's Table 1 as one experiment set: every rung trained on the recipe's data, under several seeds.

<storage>/ladder-<fingerprint>/run.json             the MLflow run that all runs of the ladder are children of
                               mix-<sets>.json      the mix of the rungs that train on some of its sets
                               rows/<rung>-<seed>.json   a rung that has been trained and evaluated
<storage>/<stage>-<fingerprint>/                    the store of each run, as of any other training

A rung is an ordinary training run in its own store. So a ladder that was killed goes on in the middle of a
rung, and more seeds, or more rungs, of the same ladder train only what is new. Pretrained weights are shared
by the rungs of a seed that train on the same sets. Of each run the best weights are kept; its checkpoints are
dropped when it has been evaluated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rtmpose.checkout import in_job, shared
from rtmpose.cluster.devices import agreed_precision
from rtmpose.cluster.mistakes import as_value, raised
from rtmpose.cluster.session import joins_cluster, ray_cluster
from rtmpose.cluster.submit import forced, job_server, not_here, point_to, run_job, run_of
from rtmpose.config import Params, Precision
from rtmpose.data.stream.mix import mix_digest, read_mix
from rtmpose.data.stream.pixels import check_pixels
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.evaluator import load_evaluator
from rtmpose.files import UserError, locked, read_json, sha256_of, write_atomic
from rtmpose.fingerprint import code_version, fingerprint, lineage_tags
from rtmpose.ladder.rungs import (
    Entry,
    Rung,
    chosen_rungs,
    distinct_rungs,
    ladder_of,
    pretrain_params,
    rung_params,
    sets_of,
)
from rtmpose.models import build_model, save_tensors
from rtmpose.models.archive import read_checkpoint
from rtmpose.models.weight_sets import chosen_weights
from rtmpose.precision import Chosen
from rtmpose.tracking import runs
from rtmpose.training.checkpoint import BEST, read_log
from rtmpose.training.job import TRAINING_CODE, codec_of, named_weights, shared_mix
from rtmpose.training.launch import run_stage
from rtmpose.training.reporter import RUN_FILE, open_run

LADDER_CODE = (*TRAINING_CODE, "ladder")
# A share of the mean pose's error. Below it a network has learned more than where joints are on average.
PLATEAU = 0.9

Row = dict[str, Any]
Publish = Callable[[list[Rung], list[Row]], None]


def run_ladder(params: Params, *, mix: Path, publish: Publish) -> tuple[list[Rung], list[Row], str]:
    """Train and evaluate every rung under every seed; `publish` is called with what is known after each rung.

    Returns the rungs, a row for each of them and each seed, and the MLflow run of the whole.
    """
    ladder, entries = ladder_of(params), read_json(mix, "run the stage mix")["train"]
    rungs = distinct_rungs(params, chosen_rungs(params), entries)
    if not read_mix(mix).val:
        raise UserError("params.yaml: datasets: none has `evaluate: true`; mark the one to report AP on")
    check_pixels(params)
    task = shared(params.hardware.storage) / f"ladder-{ladder_fingerprint(params, mix)}"
    server, fresh, expected = job_server(params.hardware), forced(), len(rungs) * len(ladder.seeds)
    if server is None:
        folder = train_here(params, mix, task, rungs, publish)
    else:
        if fresh or len(known_rows(params, run_of(task), rungs)) < expected:
            run_job("ladder", server, task.name, fresh=fresh)
        folder = run_of(task)
    rows = known_rows(params, folder, rungs)
    if len(rows) < expected:
        raise not_here(folder, "ladder")
    publish(rungs, rows)
    return rungs, rows, read_json(folder / RUN_FILE)["run_id"]


def train_here(params: Params, mix: Path, task: Path, rungs: list[Rung], publish: Publish) -> Path:
    """Train and evaluate here what the ladder lacks; its folder."""
    chosen = agreed_precision("ladder", params)
    name = ladder_fingerprint(params, mix, chosen.precision)
    folder = task.with_name(f"ladder-{name}")
    point_to(task, folder)
    with locked(folder.parent / f"{folder.name}.lock", wait=15):
        LadderRun(params, chosen, mix, folder, name).train_all(
            rungs, lambda: publish(rungs, known_rows(params, folder, rungs))
        )
    return folder


def ladder_fingerprint(params: Params, mix: Path, precision: Precision | None = None) -> str:
    """Names an experiment set by everything its rows depend on; more rungs or seeds belong to the
    same one. `precision`: see `job_fingerprint`.
    """
    ladder = ladder_of(params).model_dump(exclude={"rungs", "seeds"})
    named = {"pretrain.init": params.pretrain.init, "ladder.resnet_init": ladder["resnet_init"]}
    files = [named_weights(key, path) for key, path in named.items()]
    given = [file and sha256_of(file) for file in files]
    without = {"ladder", "seed", "hardware", "search", "targets", "register_as", "recipe"}
    recipe = params.model_dump(mode="json", exclude=without)
    return fingerprint(
        ladder=ladder,
        recipe=recipe,
        precision=precision or params.hardware.precision,
        mix=mix_digest(mix),
        init=given,
        code=code_version(LADDER_CODE),
    )


def known_rows(params: Params, folder: Path, rungs: list[Rung]) -> list[Row]:
    """The rows of all rungs and seeds that have been evaluated, in order."""
    files = [row_file(folder, rung.name, seed) for rung in rungs for seed in ladder_of(params).seeds]
    return [read_json(file) for file in files if file.exists()]


def row_file(folder: Path, rung: str, seed: int) -> Path:
    return folder / "rows" / f"{rung}-{seed}.json"


class LadderRun:
    """One pass over the ladder in `folder`; what is there already is handed over by its stores."""

    def __init__(self, params: Params, chosen: Chosen, mix: Path, folder: Path, name: str) -> None:
        self.params, self.chosen, self.mix, self.folder, self.name = params, chosen, mix, folder, name
        self.content = read_json(mix, "run the stage mix")
        self.entries: list[Entry] = self.content["train"]
        self.pretrained: dict[tuple[Path, int], Row] = {}

    def train_all(self, rungs: list[Rung], rung_done: Callable[[], None]) -> None:
        """Every rung under every seed, on one Ray cluster, below one MLflow run."""
        hardware = self.params.hardware
        tags = {"stage": "ladder", "precision": self.chosen.precision}
        tags |= lineage_tags(Path("dvc.lock"), self.mix, self.name)
        self.run_id = open_run(self.folder, "ladder", tags)
        with runs.finished(self.run_id), ray_cluster(hardware.workers * hardware.cpus_per_worker + 1):
            facts = self.chosen.facts()
            runs.log_params_flat(self.run_id, self.params.model_dump(mode="json") | facts)
            for number, rung in enumerate(rungs):
                for seed in ladder_of(self.params).seeds:
                    print(
                        f"ladder    rung {number + 1} of {len(rungs)}, {rung.name}, seed {seed}", flush=True
                    )
                    self.train_rung(rung, seed)
                rung_done()

    def train_rung(self, rung: Rung, seed: int) -> None:
        """Train and evaluate a rung under one seed, and write its row."""
        params = rung_params(self.params, rung.name, seed, self.entries)
        mix, start = self.mix_of(params), self.starting_weights(params)
        finetune = params.finetune
        receipt = self.train(
            "finetune",
            params,
            mix,
            start["weights"] if start else None,
            rung.name,
            tau=finetune.tau,
            sigma=finetune.sigma,
        )
        file = row_file(self.folder, rung.name, seed)
        before = read_json(file) if file.exists() else {}
        weights = Path(receipt["store"]) / BEST
        ap = (
            before["AP"] if before.get("sha256") == receipt["sha256"] else self.evaluate(params, weights, mix)
        )
        log = read_log(weights.parent)
        row = {
            "rung": rung.name,
            "seed": seed,
            "AP": ap,
            "tuning_AP": receipt["best_AP"],
            "samples": receipt["samples"],
            "pretrain_samples": start["samples"] if start else 0,
            "plateau_samples": plateau_samples(log, finetune.batch_size),
            "minutes": minutes(log, finetune.batch_size),
            "parameters": parameters(params),
            **{key: receipt[key] for key in ("sha256", "run_id", "store")},
        }
        write_atomic(file, json.dumps(row, indent=1))
        drop_checkpoints(weights.parent)
        runs.log_metrics(self.run_id, {f"AP {rung.name}": ap}, step=seed)

    def starting_weights(self, params: Params) -> Row | None:
        """The weights whose backbone a rung starts from, and how many samples they have seen; None: none."""
        if params.pretrain.enabled:
            return self.pretrain(params)
        resnet = params.model.backbone == "resnet50"
        given = ladder_of(params).resnet_init if resnet else params.pretrain.init
        if given is None:
            return None
        path = with_prefix(shared(given), self.folder / "resnet50.pt") if resnet else shared(given)
        return {"weights": path, "samples": 0}

    def pretrain(self, rung: Params) -> Row:
        """The pretrained weights for a rung's data and seed, trained by the first rung that needs them."""
        mix, params = self.mix_of(rung), pretrain_params(self.params, rung, self.entries)
        key = (mix, rung.seed)
        if key not in self.pretrained:
            init = shared(params.pretrain.init) if params.pretrain.init else None
            receipt = self.train("pretrain", params, mix, init, "pretraining", tau=0.1, sigma=None)
            drop_checkpoints(Path(receipt["store"]))
            self.pretrained[key] = {"weights": Path(receipt["store"]) / BEST, "samples": receipt["samples"]}
        return self.pretrained[key]

    def train(
        self,
        stage: str,
        params: Params,
        mix: Path,
        init: Path | None,
        rung: str,
        *,
        tau: float,
        sigma: tuple[float, float] | None,
    ) -> Row:
        """One run, a child of the ladder's in MLflow; its receipt."""
        # Copies: the run's store has both.
        weights, receipt = self.folder / "weights.pt", self.folder / "receipt.json"
        tags = {
            "ladder": self.name,
            "rung": rung,
            "seed": str(params.seed),
            "mlflow.parentRunId": self.run_id,
        }
        done = run_stage(
            stage,
            params,
            mix=mix,
            init=init,
            weights=weights,
            receipt=receipt,
            tau=tau,
            sigma=sigma,
            tags=tags | {"mlflow.runName": f"{rung}, seed {params.seed}"},
            chosen=self.chosen,
        )
        weights.unlink()
        receipt.unlink()
        return done

    def evaluate(self, params: Params, weights: Path, mix: Path) -> float:
        """`evaluation_ap`; on a cluster by a task with a worker's resources, since its head may have
        no GPU.
        """
        folder, hardware = next(iter(shared_mix(mix).val.values())), params.hardware
        arguments = (params, weights, folder, self.chosen.precision)
        if not (in_job() or joins_cluster()):
            return evaluation_ap(*arguments)
        import ray

        resources = {"num_cpus": hardware.cpus_per_worker, "num_gpus": hardware.gpus_per_worker}
        remote = ray.remote(**resources)(as_value)
        return float(raised(ray.get(remote.remote(evaluation_ap, *arguments))))

    def mix_of(self, params: Params) -> Path:
        """The mix of the sets that the parameters train on: the stage's own where they are all."""
        kept = sets_of(params, self.entries)
        if len(kept) == len(self.entries):
            return self.mix
        path = self.folder / f"mix-{'-'.join(entry['dataset'] for entry in kept)}.json"
        return write_atomic(path, json.dumps(self.content | {"train": kept}, indent=1))


def with_prefix(path: Path, copy: Path) -> Path:
    """Weights of a bare backbone, such as torchvision's, with the names that they have in a network; others
    as they are.
    """
    weights = chosen_weights(read_checkpoint(path), path)
    if any(key.startswith("backbone.") for key in weights):
        return path
    save_tensors(copy, {f"backbone.{key}": value for key, value in weights.items()})
    return copy


def evaluation_ap(params: Params, weights: Path, folder: Path, precision: Precision) -> float:
    """AP on an evaluation set, with ground-truth boxes and no flip, as in the paper's ladder."""
    codec = codec_of("finetune", params, params.finetune.sigma)
    figures, _, _ = load_evaluator(params, weights, codec, precision).without_flip().shards(folder)
    if math.isnan(figures["AP"]):
        raise UserError(f"{weights}: AP on {folder} is not a number: the training of this rung diverged")
    return float(figures["AP"])


def parameters(params: Params) -> int:
    """Weights of the network that are trained."""
    with torch.device("meta"):
        net = build_model(params.model, load_skeleton(params.skeleton).num_keypoints, params.input_size)
    return sum(weight.numel() for weight in net.parameters())


def plateau_samples(log: list[dict[str, Any]], batch_size: int) -> int | None:
    """Samples until the first evaluation on the tuning split that is better than `PLATEAU` of the mean pose's
    error (both the mean distance to the labelled points in units of √area); None: never.
    """
    for line in log:
        if "error" in line and line["error"] < PLATEAU * line["mean_pose_error"]:
            return int(line["step"]) * batch_size
    return None


def minutes(log: list[dict[str, Any]], batch_size: int) -> float:
    """Time spent in updates and waiting for data, by the rates that the run logged: without evaluations and
    repetitions.
    """
    total, last = 0.0, 0
    for line in log:
        if "loss" in line:
            total += (line["step"] - last) * batch_size / line["samples_per_s"]
            last = line["step"]
    return total / 60


def drop_checkpoints(store: Path) -> None:
    """What a finished run would have resumed from: several times its weights."""
    for path in (store / "latest.json", *store.glob("step-*.pt")):
        path.unlink(missing_ok=True)
