"""Ray Tune over τ and σ (RTMPose section 3.3.1, Table 3): which softening and which target width give the best AP.

The objective is AP on the tuning split, never the loss, whose scale changes with τ. All trials start from one checkpoint that
was warmed up beyond SimCC's initial plateau, and the reference point runs under several seeds: a difference smaller than
their spread, or than `NOISE_FLOOR`, is noise, and then the recipe's values are kept.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rtmpose import registry
from rtmpose.cluster import ray_cluster
from rtmpose.config import AugmentConfig, Params, UserError, read_json, setup_environment, write_atomic
from rtmpose.data.stream import Batch, TrainStream
from rtmpose.evaluation.split import read_mix
from rtmpose.fingerprint import fingerprint
from rtmpose.models import load_weights
from rtmpose.targets import SimCC
from rtmpose.training.launch import Job, build_task, open_stream, tuning_ap
from rtmpose.training.optim import learning_rate
from rtmpose.training.progress import write_csv
from rtmpose.training.update import Task, Updater

# AP. A smaller lead is always noise: two or three seeds underestimate the spread of runs (it is 0 where they agree by chance),
# and the best of several trials, which is higher than their mean by luck alone, is compared with the best of few references.
NOISE_FLOOR = 0.005


@dataclass(frozen=True)
class Choice:
    """What the search hands to finetuning: τ, σ per axis in bins, and one line that says where they come from."""

    tau: float
    sigma: tuple[float, float]
    note: str


def read_choice(path: Path) -> Choice:
    """The search's output file."""
    content = read_json(path, "run the search stage again")
    try:
        return Choice(float(content["tau"]), (float(content["sigma"][0]), float(content["sigma"][1])), content["note"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"{path}: not a search result ({error}); run the search stage again") from None


def run_search(params: Params, *, mix: Path, init: Path, out: Path, table: Path) -> Choice:
    """Search as `params.search` says and write the choice to `out`, every trial to `table` (CSV)."""
    sigma = sigma_pair(SimCC(params.input_size, sigma=params.finetune.sigma))
    reference = Choice(params.finetune.tau, sigma, "search off, the recipe's values")
    if not params.search.enabled:
        rows: list[dict[str, Any]] = []
        choice = reference
    else:
        rows = run_trials(params, mix, init)
        choice = choose(rows, reference)
    write_csv(table, ["tau", "sigma_factor", "AP", "steps", "seed", "reference"], rows)
    content = {"tau": choice.tau, "sigma": list(choice.sigma), "note": choice.note, "trials": rows}
    write_atomic(out, json.dumps(content, indent=1) + "\n")
    return choice


def sigma_pair(codec: SimCC) -> tuple[float, float]:
    return float(codec.sigma[0]), float(codec.sigma[1])


def choose(rows: list[dict[str, Any]], reference: Choice) -> Choice:
    """The best trial when it beats every run of the reference by more than the noise; the reference's values else."""
    references = [row["AP"] for row in rows if row["reference"]]
    assert len(references) >= 2, "the reference point needs several seeds"
    top, noise = max(references), max(max(references) - min(references), NOISE_FLOOR)
    best = max(rows, key=lambda row: (row["AP"], row["reference"]))
    if best["reference"]:
        return replace(reference, note=f"no trial beat the reference's AP {top:.3f}, the recipe's values are kept")
    if best["AP"] - top <= noise:
        note = f"the best trial's AP {best['AP']:.3f} is within noise (±{noise:.3f}) of the reference's {top:.3f}"
        return replace(reference, note=f"{note}, the recipe's values are kept")
    return Choice(
        best["tau"], tuple(best["sigma"]), f"AP {best['AP']:.3f} beats the reference's {top:.3f} (noise ±{noise:.3f})"
    )


def run_trials(params: Params, mix: Path, init: Path) -> list[dict[str, Any]]:
    """Warm up once and run all trials under Ray Tune; in MLflow the search is a run and each trial a child of it."""
    content, search = read_mix(mix), params.search
    name = fingerprint(search=search.model_dump(), init=registry.sha256_of(init), mix=registry.sha256_of(mix))
    tags = {"stage": "search"} | registry.lineage_tags(Path("dvc.lock"), mix, name)
    run_id = registry.start_or_resume_run("search", None, tags=tags)
    with registry.finished(run_id), tempfile.TemporaryDirectory(prefix="rtmpose-search-") as folder:
        registry.log_params_flat(run_id, params.model_dump(mode="json"))
        job = Job(
            stage="finetune",
            params=params,
            mix=content,
            store=Path(folder),
            token="",  # trials write to no store
            run_id=run_id,
            tracking_uri=registry.tracking_uri(),
            init=init.resolve(),
            tau=params.finetune.tau,
            sigma=sigma_pair(SimCC(params.input_size, sigma=params.finetune.sigma)),
        )
        rows = tune_trials(job, warm_up(job, Path(folder) / "warm.pt"), Path(folder))
        log_trials(rows, {key: tags[key] for key in ("stage", "git_commit", "data_manifest_sha256")}, run_id)
        registry.log_metrics(run_id, {"best_AP": max(row["AP"] for row in rows), "trials": len(rows)}, step=search.trial_steps)
    return rows


def log_trials(rows: list[dict[str, Any]], tags: dict[str, str], parent: str) -> None:
    """Each trial as a child run of `parent` in MLflow."""
    for index, row in enumerate(rows):
        child = registry.start_or_resume_run(f"trial {index}", None, tags=tags | {"mlflow.parentRunId": parent})
        with registry.finished(child):
            registry.log_params_flat(child, {key: row[key] for key in ("tau", "sigma_factor", "seed", "reference")})
            registry.log_metrics(child, {"AP": row["AP"]}, step=row["steps"])


def search_device(params: Params) -> torch.device:
    """Where the warm-up and the trials compute, as `hardware.gpus_per_worker` says."""
    if not params.hardware.gpus_per_worker:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("params.yaml: hardware.gpus_per_worker: the search finds no CUDA device here; set it to 0")
    return torch.device("cuda")


def trial_threads(params: Params) -> int:
    """A trial's share of one worker's CPUs."""
    return max(int(params.hardware.cpus_per_worker / params.search.concurrent), 1)


def report_steps(steps: int, reports: int) -> list[int]:
    """After which of `steps` updates to evaluate: `reports` equal shares, rounded, the last one at the end."""
    reports = min(reports, steps)
    return [round(steps * (index + 1) / reports) for index in range(reports)]


def batches(stream: TrainStream, augment: AugmentConfig, steps: int) -> Iterator[Batch]:
    """`steps` batches, over as many epochs as that takes."""
    epoch, given = 0, 0
    while given < steps:
        for batch in stream.epoch(epoch, augment):
            yield batch
            given += 1
            if given == steps:
                return
        epoch += 1


def updates(job: Job, task: Task, steps: int, *, seed: int, decay: bool, device: torch.device) -> Iterator[tuple[int, Updater]]:
    """Train `task` for `steps` updates in this process, yielding after each; the second half decays the rate if asked."""
    params, train = job.params, job.train
    stream = open_stream(params.model_copy(update={"seed": seed}), train, job.mix, udp=task.codec.udp)
    task.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    task.model.train()
    optim = train.optim.model_copy(update={"warmup_steps": min(train.optim.warmup_steps, max(steps // 4, 1))})
    updater = Updater(
        task,
        device=device,
        precision=params.hardware.precision,
        global_batch=train.batch_size,
        weight_decay=params.model.weight_decay,
        optim=optim,
        ema_momentum=0.0,
    )
    for step, batch in enumerate(batches(stream, train.strong, steps)):
        lr = learning_rate(step, optim=optim, epochs=2, steps_per_epoch=max(steps // 2, 1) if decay else steps)
        updater.step(batch, lr)
        yield step + 1, updater


def warm_up(job: Job, path: Path) -> Path:
    """The common start of all trials: the pretrained backbone after `warmup_steps` of SimCC training."""
    torch.set_num_threads(max(int(job.params.hardware.cpus_per_worker), 1))
    device, task, steps = search_device(job.params), build_task(job), job.params.search.warmup_steps
    start = time.perf_counter()
    for step, _ in updates(job, task, steps, seed=job.params.seed, decay=False, device=device):
        if step in report_steps(steps, 4):
            seconds = time.perf_counter() - start
            rate, (minutes, rest) = step * job.train.batch_size / seconds, divmod(int(seconds / step * (steps - step)), 60)
            say(f"warm-up step {step:6d}/{steps}  {rate:.0f} samples/s  {minutes}m{rest:02d}s left")
    torch.save({key: value.cpu() for key, value in task.model.state_dict().items()}, path)
    return path


def say(text: str) -> None:
    print(f"search    {text}", flush=True)


def trial(config: dict[str, Any], job: Job, warm: Path) -> None:
    """One point: train from the warmed-up checkpoint with this τ and σ; reports AP. The reference reports only its end."""
    from ray import tune

    setup_environment()
    search, params = job.params.search, job.params
    torch.set_num_threads(trial_threads(params))
    sigma = tuple(config["sigma_factor"] * side for side in job.sigma or ())
    assert len(sigma) == 2
    device, task = search_device(params), build_task(replace(job, tau=config["tau"], sigma=sigma, init=None))
    load_weights(task.model, warm)
    evaluate = tuning_ap(job, task, device)
    reports = report_steps(search.trial_steps, 1 if config["reference"] else search.reports)
    seed = params.seed + 1 + config["seed"]
    for step, updater in updates(job, task, search.trial_steps, seed=seed, decay=True, device=device):
        if step in reports:
            tune.report({"AP": evaluate(updater.task.model)["AP"], "steps": step})
            updater.task.model.train()


def tune_trials(job: Job, warm: Path, folder: Path) -> list[dict[str, Any]]:
    """The reference under each of its seeds, then the searched points: Optuna proposes, ASHA stops the hopeless.

    Searched points share the reference's first seed, so that they differ from it in τ and σ alone.
    """
    search = job.params.search
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables; each trial is one line of ours
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # of trials that fail beside the first one, which ends the search
    say(
        f"{search.reference_seeds} runs of the reference and {search.trials} trials of {search.trial_steps} steps, "
        f"{search.concurrent} at a time"
    )
    with ray_cluster(max(job.params.hardware.cpus_per_worker, search.concurrent)):
        import optuna
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        for name in ("ray.tune.execution.tune_controller", "ray.tune.tune"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they print a failed trial's traceback, which we raise

        reference = {"tau": job.tau, "sigma_factor": 1.0, "reference": True}
        seeds = tune.grid_search(list(range(search.reference_seeds)))
        plain = tune.TuneConfig(metric="AP", mode="max")
        rows = fit_trials(job, warm, folder / "reference", reference | {"seed": seeds}, plain)
        if search.trials:
            space = {
                "tau": tune.loguniform(*search.tau),
                "sigma_factor": tune.loguniform(*search.sigma_factor),
                "reference": False,
                "seed": 0,
            }
            config = tune.TuneConfig(
                metric="AP",
                mode="max",
                num_samples=search.trials,
                search_alg=OptunaSearch(seed=job.params.seed),
                scheduler=ASHAScheduler(max_t=min(search.reports, search.trial_steps), grace_period=1, reduction_factor=2),
            )
            rows += fit_trials(job, warm, folder / "searched", space, config)
    return rows


def fit_trials(job: Job, warm: Path, folder: Path, space: dict[str, Any], config: Any) -> list[dict[str, Any]]:
    """Run one set of trials; the first that fails ends the search, a user's mistake as the one line it was in the trial."""
    from ray import tune

    hardware = job.params.hardware
    config.max_concurrent_trials = job.params.search.concurrent
    resources: dict[str, float] = {"CPU": trial_threads(job.params)}
    if hardware.gpus_per_worker:
        resources["GPU"] = hardware.gpus_per_worker
    trainable = tune.with_resources(tune.with_parameters(trial, job=job, warm=warm), resources)
    failure = tune.FailureConfig(fail_fast=True)
    run = tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0, failure_config=failure)
    results = tune.Tuner(trainable, param_space=space, tune_config=config, run_config=run).fit()
    for error in results.errors:
        raise unwrapped(error) from None
    return [trial_row(job, result.config, result.metrics) for result in results]


def unwrapped(error: Exception | str) -> Exception:
    """What a trial raised: the user's mistake itself, without the traceback Ray wraps it in; other errors as Ray has them."""
    if isinstance(error, str):  # what Ray kept of an error that it could not pickle
        return RuntimeError(error)
    cause = getattr(error, "cause", None)
    return UserError(str(cause)) if isinstance(cause, UserError) else error


def trial_row(job: Job, point: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """A finished trial as a row of the table, said in one line."""
    sigma = [point["sigma_factor"] * side for side in job.sigma or ()]
    row = {key: point[key] for key in ("tau", "sigma_factor", "seed", "reference")}
    row |= {"sigma": sigma, "AP": metrics["AP"], "steps": metrics["steps"]}
    kind = "  (reference)" if row["reference"] else ""
    say(f"τ {row['tau']:.3f}  σ × {row['sigma_factor']:.2f}  step {row['steps']:6d}  AP {row['AP']:.3f}{kind}")
    return row
