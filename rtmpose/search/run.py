"""Ray Tune over parameters of finetuning (τ and σ: RTMPose section 3.3.1, Table 3): which values give the
best AP.

The objective is AP on the tuning split, never the loss, whose scale changes with τ. All trials of one network
start from one checkpoint that was warmed up beyond SimCC's initial plateau, and the reference point (the
recipe's values) runs under several seeds: a difference smaller than their spread, or than a floor, is noise.
A trial that leads by more runs again under the other seeds; when it does not lead there as well, the recipe's
values stay.

<storage>/search-<fingerprint>/ledger.jsonl   every point, report and end: the search's only truth
                               warm-<…>.pt    where all trials of one network start
                               trial-<n>.pt   an unfinished trial at its last report
                               run.json       the MLflow run

A search that was killed goes on from its ledger: trials that ended are not run again, the others go on from
their last report. A trial is a function of its point and seed, and a suggestion of the seed, its number and
the ledger. So with `search.concurrent: 1` the result is that of an undisturbed search; with more, the first
ten points are (TPE draws them at random), and which reports precede a later suggestion or a decision to stop
depends on who was faster, as it always does. (Equal to the bit on a CPU; CUDA kernels may add in another
order.)

A trial is one process on one worker. Where a batch does not fit it, `search.workers` of them share each
batch, as in a run of Ray Train within the trial; that changes no result beyond the order of sums.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rtmpose import registry
from rtmpose.cluster.submit import adopt_checkout, forced, job_server, not_here, run_job, shared
from rtmpose.config import AugmentConfig, Params
from rtmpose.data.shards.manifest import read_manifest, refuse_stronger
from rtmpose.data.stream.stream import Batch, TrainStream
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.evaluator import Mix
from rtmpose.files import UserError, home, read_json, write_atomic
from rtmpose.fingerprint import code_version, fingerprint
from rtmpose.models import build_model, load_weights, save_tensors
from rtmpose.search.ledger import FIGURES, Ledger, Report, locked
from rtmpose.search.plan import best_of, choose, complete, row, wanted
from rtmpose.search.report import TrialRuns, draw, write_table
from rtmpose.search.space import (
    ARCHITECTURE,
    Choice,
    Point,
    check_space,
    resolved,
    variants,
    with_values,
)
from rtmpose.training.job import (
    Job,
    build_task,
    job_fingerprint,
    open_stream,
    shared_file,
    shared_mix,
    tuning_ap,
)
from rtmpose.training.loop import agreed, check_split
from rtmpose.training.optim import freeze, learning_rate
from rtmpose.training.reporter import RUN_FILE, open_run
from rtmpose.training.update import Task, Updater

SEARCH_CODE = tuple(f"search/{name}.py" for name in ("run", "plan", "space", "tune", "ledger"))


@dataclass(frozen=True)
class Place:
    """Where one of `world` workers of a trial computes, and which of them it is."""

    device: torch.device
    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Spec:
    """One trial as a worker gets it: its number, point, seed, whether it may be stopped, and how often it has
    reported.
    """

    number: int
    point: Point
    seed: int
    judged: bool
    known: int = 0


def run_search(params: Params, *, mix: Path, init: Path, out: Path, table: Path, picture: Path) -> Choice:
    """Search as `params.search` says; write the choice to `out`, every trial to `table` (CSV) and to
    `picture` (PNG).
    """
    check_space(params)
    content: dict[str, Any] = {"store": None, "run_id": None}
    rows: list[dict[str, Any]] = []
    choice = Choice({}, "search off, the recipe's values are kept")
    if params.search.enabled:
        check_variants(params, shared_mix(mix))
        name = search_fingerprint(params, mix, init)
        folder, fresh = shared(params.hardware.storage) / f"search-{name}", forced()
        server = job_server(params.hardware)
        if server is not None and (fresh or not complete(params, Ledger(folder / "ledger.jsonl"))):
            run_job("search", server, folder.name, fresh=fresh)
        elif server is None:
            run_trials(params, mix, init, folder, name, fresh)
        ledger = Ledger(folder / "ledger.jsonl")
        if not complete(params, ledger):
            raise not_here(folder, "search")
        rows = [row(trial) for trial in wanted(params, ledger)]
        best = choose(rows)
        choice = Choice(resolved(params, best.values), best.note)
        content = {"store": str(folder), "run_id": read_json(folder / RUN_FILE)["run_id"]}
    write_table(table, list(params.search.space), rows)
    draw(picture, params.search.space, rows, choice)
    if content["run_id"] is not None and job_server(params.hardware) is None:
        registry.log_file(content["run_id"], picture, "figures")
    result = {"chosen": choice.values, "note": choice.note} | content | {"trials": rows}
    write_atomic(out, json.dumps(result, indent=1) + "\n")
    return choice


def search_fingerprint(params: Params, mix: Path, init: Path) -> str:
    """Names a search by all its trials depend on. How many there are and run at a time is not part of it:
    more continue it.
    """
    return fingerprint(
        search=params.search.model_dump(exclude={"enabled", "trials", "concurrent", "workers"}),
        job=job_fingerprint("finetune", params, mix, init, params.finetune.tau, params.finetune.sigma),
        code=code_version(SEARCH_CODE),
    )


def check_variants(params: Params, mix: Mix) -> None:
    """Refuse, before any trial, what only the network or the shards can tell to be impossible at an end of a
    range.
    """
    for path, value, variant in variants(params):
        if path.startswith("finetune.strong."):
            for entry in mix.train:
                refuse_stronger(entry.dir, read_manifest(entry.dir, "train"), variant.finetune.strong)
        if path.startswith("model.") or path == "finetune.freeze":
            try:
                check_network(variant)
            except (RuntimeError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise UserError(
                    f"params.yaml: search.space.{path}: no network with {value} works: {reason}"
                ) from None


def check_network(params: Params) -> None:
    """One forward pass without numbers, in no time; raises what the network raises."""
    width, height = params.input_size
    points = load_skeleton(params.finetune.skeleton).num_keypoints
    with torch.device("meta"):
        net = build_model(params.model, points, params.input_size)
        net(torch.empty(2, 3, height, width))
    freeze(net, params.finetune.freeze)


def run_trials(params: Params, mix: Path, init: Path, folder: Path, name: str, fresh: bool) -> None:
    """All trials of the search in `folder` that have not ended; in MLflow the search is a run and each trial
    its child.
    """
    adopt_checkout()
    with locked(folder.parent / f"{folder.name}.lock", wait=15):
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        ledger = Ledger(folder / "ledger.jsonl")
        tags = {"stage": "search"} | registry.lineage_tags(Path("dvc.lock"), mix, name)
        run_id = open_run(folder, "search", tags)
        with registry.finished(run_id):
            registry.log_params_flat(run_id, params.model_dump(mode="json"))
            runs = TrialRuns(run_id, tags)
            if complete(params, ledger):
                say(f"run {name} is finished already; its result is handed over again")
            else:
                _tune(params, mix, init, folder, run_id, ledger, runs)
            assert complete(params, ledger), "Tune has run every trial to its end"
            trials = wanted(params, ledger)
            for trial in trials:
                runs.log(trial)
            if len(trials) not in registry.logged_steps(run_id, "best_AP"):
                registry.log_metrics(
                    run_id, {"best_AP": best_of([row(trial) for trial in trials])["AP"]}, step=len(trials)
                )


def _tune(
    params: Params, mix: Path, init: Path, folder: Path, run_id: str, ledger: Ledger, runs: TrialRuns
) -> None:
    from rtmpose.search.tune import tune_trials  # which imports Ray

    # Trials have a current folder of their own, and inside a job perhaps a machine that has not the job's
    # files.
    hardware = params.hardware.model_copy(update={"cache": str(home(params.hardware.cache))})
    job = Job(
        stage="finetune",
        params=params.model_copy(update={"hardware": hardware}),
        mix=shared_mix(mix),
        store=folder,
        token="",  # nobody takes over: the driver holds a lock, and trials write nothing but their own file
        run_id=run_id,
        tracking_uri=registry.tracking_uri(),
        init=shared_file(init, folder),
        tau=params.finetune.tau,
        sigma=params.finetune.sigma,
    )
    if ledger.trials:
        say(f"resuming with {len(ledger.trials)} trials known, {len(ledger.running())} of them unfinished")
    try:
        tune_trials(job, ledger, runs)
    except BaseException:
        for trial in ledger.running():
            runs.log(trial, "FAILED")
        raise


def say(text: str) -> None:
    print(f"search    {text}", flush=True)


def search_device(params: Params) -> torch.device:
    """Where the warm-up and the trials compute, as `hardware.gpus_per_worker` says."""
    if not params.hardware.gpus_per_worker:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "params.yaml: hardware.gpus_per_worker: the search finds no CUDA device here; set it to 0"
        )
    return torch.device("cuda")


def trial_threads(params: Params) -> int:
    """A trial's share of one worker's CPUs."""
    return max(int(params.hardware.cpus_per_worker / params.search.concurrent), 1)


def report_steps(steps: int, reports: int) -> list[int]:
    """After which of `steps` updates to evaluate: `reports` equal shares, rounded, the last one at
    the end.
    """
    reports = min(reports, steps)
    return [round(steps * (index + 1) / reports) for index in range(reports)]


def batches(stream: TrainStream, augment: AugmentConfig, steps: int, start: int = 0) -> Iterator[Batch]:
    """The batches of the updates from `start` to before `steps`, over as many epochs as that takes."""
    while start < steps:
        epoch, first = divmod(start, stream.steps_per_epoch)
        for batch in stream.epoch(epoch, augment, first):
            yield batch
            start += 1
            if start == steps:
                return


def updates(
    job: Job,
    task: Task,
    steps: int,
    place: Place,
    *,
    seed: int,
    decay: bool,
    state: dict[str, Any] | None = None,
) -> Iterator[tuple[int, Updater]]:
    """Train `task` for `steps` updates, yielding after each; the second half decays the rate if asked.

    With the `snapshot` of an earlier, equal run as `state` it goes on behind it.
    """
    params, train = job.params, job.train
    check_split(train, place.world, "search.workers")
    seeded = params.model_copy(update={"seed": seed})
    stream = open_stream(seeded, train, job.mix, udp=task.codec.udp, rank=place.rank, world=place.world)
    task.model.train()
    optim = train.optim.model_copy(update={"warmup_steps": min(train.optim.warmup_steps, max(steps // 4, 1))})
    updater = Updater(
        task,
        device=place.device,
        precision=params.hardware.precision,
        global_batch=train.batch_size,
        world=place.world,
        weight_decay=params.model.weight_decay,
        optim=optim,
        ema_momentum=0.0,
        accumulate=train.accumulate,
        frozen=train.freeze,
    )
    if state is not None:
        task.model.load_state_dict(state["model"])
        updater.optimizer.load_state_dict(state["optimizer"])
    start = state["step"] if state is not None else 0
    for step, batch in enumerate(batches(stream, train.strong, steps, start), start):
        lr = learning_rate(
            step, optim=optim, epochs=2, steps_per_epoch=max(steps // 2, 1) if decay else steps
        )
        updater.step(batch, lr)
        yield step + 1, updater


def snapshot(path: Path, step: int, updater: Updater, **more: Any) -> None:
    """Write what `updates` needs to go on after `step` updates."""
    state = {
        "step": step,
        "model": updater.task.model.state_dict(),
        "optimizer": updater.optimizer.state_dict(),
    }
    save_tensors(path, state | more)


def read_snapshot(path: Path) -> dict[str, Any] | None:
    """What `snapshot` wrote, None where there is nothing."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


def warm_up(job: Job, place: Place) -> Path:
    """Where all trials of the job's network start: the pretrained backbone after `warmup_steps` of SimCC
    training.

    Whoever needs it first makes it, with the recipe's values for everything but the network; others wait. A
    killed one goes on from its last quarter.
    """
    path = warm_file(job)
    part = path.with_suffix(".part")
    with locked(path.with_suffix(".lock")) if place.rank == 0 else nullcontext():
        if agreed(path.exists(), place.device, place.world):
            return path
        task, steps = build_task(job), job.params.search.warmup_steps
        state, start = read_snapshot(part), time.perf_counter()
        first = state["step"] if state is not None else 0
        for step, updater in updates(job, task, steps, place, seed=job.params.seed, decay=False, state=state):
            if step in report_steps(steps, 4) and place.rank == 0:
                seconds = time.perf_counter() - start
                rate = (step - first) * job.train.batch_size / seconds
                minutes, rest = divmod(int(seconds / (step - first) * (steps - step)), 60)
                note(
                    job.store,
                    f"warm-up step {step:6d}/{steps}  {rate:.0f} samples/s  {minutes}m{rest:02d}s left",
                )
                snapshot(part, step, updater)
        if place.rank == 0:
            save_tensors(path, {key: value.cpu() for key, value in task.model.state_dict().items()})
            part.unlink(missing_ok=True)
        agreed(True, place.device, place.world)  # it is there before anybody reads it
    return path


def warm_file(job: Job) -> Path:
    """Where the trials of the job's network start."""
    shape = {name: getattr(job.params.model, name) for name in ARCHITECTURE}
    return job.store / f"warm-{fingerprint(**shape)}.pt"


def note(folder: Path, text: str) -> None:
    """Leave a line for the driver to say: the worker may be on another machine."""
    with (folder / "notes.txt").open("a") as file:
        file.write(f"{text}\n")


def trial_reports(spec: Spec, job: Job, place: Place) -> Generator[Report]:
    """Train one point from the warmed-up network; its reports from the first on that is not known yet.

    One that may not be stopped reports only its end. What it computes depends on the point and the seed
    alone. Of several workers rank 0 evaluates; the others' reports have no figures.
    """
    recipe, search = job.params, job.params.search
    params = with_values(recipe, resolved(recipe, spec.point))
    network = {name: getattr(params.model, name) for name in ARCHITECTURE}
    warm = warm_up(
        replace(job, params=recipe.model_copy(update={"model": recipe.model.model_copy(update=network)})),
        place,
    )
    job = replace(job, params=params, tau=params.finetune.tau, sigma=params.finetune.sigma, init=None)
    task = build_task(job)
    load_weights(task.model, warm)
    evaluate = tuning_ap(job, task, place.device)
    steps = max(round(search.trial_steps * recipe.finetune.batch_size / params.finetune.batch_size), 1)
    due = report_steps(steps, search.reports if spec.judged else 1)
    path = trial_file(job.store, spec.number)
    state = read_snapshot(path)
    reports: list[Report] = state["reports"] if state is not None else []
    yield from reports[spec.known :]
    for step, updater in updates(
        job, task, steps, place, seed=recipe.seed + 1 + spec.seed, decay=True, state=state
    ):
        if step in due:
            figures = evaluate(updater.task.model) if place.rank == 0 else {}
            updater.task.model.train()
            updater.rest()
            last = step == steps
            index = (
                search.reports if last else len(reports) + 1
            )  # the last one's is the same for all, however many there were
            finite = {
                key: float(figures[key]) for key in FIGURES if math.isfinite(figures.get(key, math.nan))
            }
            reports.append({"report": index, "step": step, "AP": 0.0} | finite)
            if not last and place.rank == 0:
                snapshot(path, step, updater, reports=reports)
            if len(reports) > spec.known:
                yield reports[-1]


def trial_file(folder: Path, number: int | str) -> Path:
    """An unfinished trial at its last report."""
    return folder / f"trial-{number}.pt"
