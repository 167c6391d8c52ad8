"""Ray Tune over τ and σ (RTMPose section 3.3.1, Table 3): which softening and which target width give the best AP.

The objective is AP on the tuning split, never the loss, whose scale changes with τ. All trials start from one checkpoint that
was warmed up beyond SimCC's initial plateau, and the reference point runs under several seeds: a difference smaller than
their spread is noise, and then the recipe's values are kept.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rtmpose import registry
from rtmpose.config import AugmentConfig, Params, UserError, setup_environment, write_atomic
from rtmpose.data.stream import Batch, TrainStream
from rtmpose.evaluation.split import read_mix
from rtmpose.models import load_weights
from rtmpose.targets import SimCC
from rtmpose.training.checkpoint import file_sha256
from rtmpose.training.launch import Job, build_task, open_stream, ray_cluster, tuning_ap
from rtmpose.training.loop import Task, Updater
from rtmpose.training.optim import learning_rate
from rtmpose.training.progress import write_csv


@dataclass(frozen=True)
class Choice:
    """What the search hands to finetuning: τ, σ per axis in bins, and one line that says where they come from."""

    tau: float
    sigma: tuple[float, float]
    note: str


def read_choice(path: Path) -> Choice:
    """The search's output file."""
    try:
        content = json.loads(path.read_text())
        return Choice(float(content["tau"]), (float(content["sigma"][0]), float(content["sigma"][1])), content["note"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
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
        choice = choose(rows, reference, params)
    write_csv(table, ["tau", "sigma_factor", "AP", "steps", "seed", "reference"], rows)
    content = {"tau": choice.tau, "sigma": list(choice.sigma), "note": choice.note, "trials": rows}
    write_atomic(out, json.dumps(content, indent=1) + "\n")
    return choice


def sigma_pair(codec: SimCC) -> tuple[float, float]:
    return float(codec.sigma[0]), float(codec.sigma[1])


def choose(rows: list[dict[str, Any]], reference: Choice, params: Params) -> Choice:
    """The best trial when it beats every run of the reference by more than their spread; the reference's values else."""
    references = [row["AP"] for row in rows if row["reference"]]
    assert len(references) >= 2, "the reference point needs several seeds"
    noise = max(references) - min(references)
    best = max(rows, key=lambda row: row["AP"])
    if best["reference"] or best["AP"] <= max(references) + noise:
        note = f"best AP {best['AP']:.3f} is within noise (±{noise:.3f}) of the reference's {max(references):.3f}"
        return replace(reference, note=f"{note}, the recipe's values are kept")
    note = f"AP {best['AP']:.3f} against {max(references):.3f} of the reference (noise ±{noise:.3f})"
    return Choice(best["tau"], tuple(best["sigma"]), note)


def run_trials(params: Params, mix: Path, init: Path) -> list[dict[str, Any]]:
    """Warm up once, run all trials under Ray Tune with early stopping, and log each as a child run in MLflow."""
    search = params.search
    codec = SimCC(params.input_size, sigma=params.finetune.sigma)
    run_id = registry.start_or_resume_run(
        "search", None, tags={"stage": "search", "git_commit": registry.git_commit(), "data_manifest_sha256": file_sha256(mix)}
    )
    with tempfile.TemporaryDirectory(prefix="rtmpose-search-") as folder:
        base = Job(
            "finetune",
            params,
            read_mix(mix),
            Path(folder),
            run_id,
            registry.tracking_uri(),
            init.resolve(),
            params.finetune.tau,
            sigma_pair(codec),
        )
        warm = warm_up(base, Path(folder) / "warm.pt")
        rows = tune_trials(base, warm, Path(folder))
    for index, row in enumerate(rows):
        trial = registry.start_or_resume_run(f"trial {index}", None, tags={"stage": "search", "mlflow.parentRunId": run_id})
        registry.log_params_flat(trial, {key: row[key] for key in ("tau", "sigma_factor", "seed", "reference")})
        registry.log_metrics(trial, {"AP": row["AP"]}, step=row["steps"])
        registry.end_run(trial)
    registry.log_metrics(run_id, {"best_AP": max(row["AP"] for row in rows), "trials": len(rows)}, step=search.trial_steps)
    registry.end_run(run_id)
    return rows


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


def updates(job: Job, task: Task, steps: int, *, seed: int, decay: bool) -> Iterator[tuple[int, Updater]]:
    """Train `task` for `steps` updates in this process, yielding after each; the second half decays the rate if asked."""
    params, train = job.params, job.train
    stream = open_stream(params.model_copy(update={"seed": seed}), train, job.mix, udp=task.codec.udp)
    task.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    task.model.train()
    optim = train.optim.model_copy(update={"warmup_steps": min(train.optim.warmup_steps, max(steps // 4, 1))})
    updater = Updater(
        task,
        device=torch.device("cpu"),
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
    task, steps, start = build_task(job), job.params.search.warmup_steps, time.perf_counter()
    for step, _ in updates(job, task, steps, seed=job.params.seed, decay=False):
        if step % max(steps // 4, 1) == 0:
            rate = step * job.train.batch_size / (time.perf_counter() - start)
            print(f"search    warm-up step {step}/{steps}  {rate:.0f} samples/s", flush=True)
    torch.save(task.model.state_dict(), path)
    return path


def trial(config: dict[str, Any], job: Job, warm: Path) -> None:
    """One point: train from the warmed-up checkpoint with this τ and σ; reports AP. The reference reports only its end."""
    from ray import tune

    setup_environment()
    search, params = job.params.search, job.params
    torch.set_num_threads(1)
    sigma = tuple(config["sigma_factor"] * side for side in job.sigma or ())
    assert len(sigma) == 2
    task = build_task(replace(job, tau=config["tau"], sigma=sigma, init=None))
    load_weights(task.model, warm)
    evaluate = tuning_ap(job, task, torch.device("cpu"))
    every = max(search.trial_steps // search.reports, 1)
    for step, updater in updates(job, task, search.trial_steps, seed=params.seed + 1 + config["seed"], decay=True):
        last = step == search.trial_steps
        if last or (step % every == 0 and not config["reference"]):
            tune.report({"AP": evaluate(updater.task.model)["AP"], "steps": step})
            updater.task.model.train()


def tune_trials(job: Job, warm: Path, folder: Path) -> list[dict[str, Any]]:
    """The reference under each of its seeds, then the searched points: Optuna proposes, ASHA stops the hopeless.

    Searched points share the reference's first seed, so that they differ from it in τ and σ alone.
    """
    search = job.params.search
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables; each trial is one line of ours
    with ray_cluster(max(job.params.hardware.cpus_per_worker, search.concurrent)):
        import optuna
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)

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
                scheduler=ASHAScheduler(max_t=search.reports, grace_period=1, reduction_factor=2),
            )
            rows += fit_trials(job, warm, folder / "searched", space, config)
    return rows


def fit_trials(job: Job, warm: Path, folder: Path, space: dict[str, Any], config: Any) -> list[dict[str, Any]]:
    """Run one set of trials; a trial that failed is named and ends the search."""
    from ray import tune

    search = job.params.search
    config.max_concurrent_trials = search.concurrent
    cpus = max(job.params.hardware.cpus_per_worker / search.concurrent, 1)
    trainable = tune.with_resources(tune.with_parameters(trial, job=job, warm=warm), {"CPU": cpus})
    run = tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0)
    results = tune.Tuner(trainable, param_space=space, tune_config=config, run_config=run).fit()
    rows = []
    for result in results:
        if result.error is not None:
            raise result.error
        point, metrics = result.config, result.metrics
        sigma = [point["sigma_factor"] * side for side in job.sigma or ()]
        keys = ("tau", "sigma_factor", "seed", "reference")
        row = {key: point[key] for key in keys} | {"sigma": sigma, "AP": metrics["AP"], "steps": metrics["steps"]}
        print(
            f"search    τ {row['tau']:.3f}  σ × {row['sigma_factor']:.2f}  step {row['steps']}  AP {row['AP']:.3f}"
            + ("  (reference)" if row["reference"] else ""),
            flush=True,
        )
        rows.append(row)
    return rows
