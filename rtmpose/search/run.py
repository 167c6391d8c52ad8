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
their last report. A trial depends on its point and seed; a suggested point on the seed, its number and the
ledger. So with `search.concurrent: 1` a killed search has the result of an undisturbed one, equal to the bit
on a CPU (CUDA kernels may add in another order). With more at a time only the first ten points are sure to be
the same, since TPE draws those at random: later suggestions, and decisions to stop, depend on which trial
reported first, as they do in any such search.

A trial is one process on one worker. Where a batch does not fit it, `search.workers` of them share each
batch, as in a run of Ray Train within the trial; that changes no result beyond the order of sums.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from rtmpose.checkout import home, shared
from rtmpose.cluster.devices import agreed_precision
from rtmpose.cluster.submit import forced, job_server, not_here, point_to, run_job, run_of
from rtmpose.config import Params, Precision
from rtmpose.data.shards.manifest import read_manifest, refuse_stronger
from rtmpose.data.stream.mix import Mix
from rtmpose.data.stream.pixels import check_pixels
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError, locked, read_json, write_atomic
from rtmpose.fingerprint import code_version, fingerprint, lineage_tags
from rtmpose.models import build_model
from rtmpose.precision import Chosen
from rtmpose.search.choice import Choice
from rtmpose.search.ledger import Ledger
from rtmpose.search.plan import as_row, best_of, choose, counted_trials, is_complete
from rtmpose.search.report import TrialRuns, draw, write_table
from rtmpose.search.space import check_space, resolved, variants
from rtmpose.search.trial import say
from rtmpose.tracking import runs
from rtmpose.training.job import Job, job_fingerprint, shared_file, shared_mix
from rtmpose.training.optim import freeze
from rtmpose.training.reporter import RUN_FILE, open_run

SEARCH_CODE = ("search",)  # besides `TRAINING_CODE`, which names each trial's job


def run_search(params: Params, *, mix: Path, init: Path, out: Path, table: Path, picture: Path) -> Choice:
    """Search as `params.search` says; write the choice to `out`, every trial to `table` (CSV) and to
    `picture` (PNG).
    """
    check_space(params)
    content: dict[str, Any] = {"store": None, "run_id": None}
    rows: list[dict[str, Any]] = []
    choice = Choice({}, "search off, the recipe's values are kept")
    if params.search.enabled:
        check_pixels(params)
        check_variants(params, shared_mix(mix))
        folder = searched(params, mix, init)
        ledger = Ledger(folder / "ledger.jsonl")
        if not is_complete(params, ledger):
            raise not_here(folder, "search")
        rows = [as_row(trial) for trial in counted_trials(params, ledger)]
        best = choose(rows)
        choice = Choice(resolved(params, best.values), best.note)
        content = {"store": str(folder), "run_id": read_json(folder / RUN_FILE)["run_id"]}
    write_table(table, list(params.search.space), rows)
    draw(picture, params.search.space, rows, choice)
    if content["run_id"] is not None and job_server(params.hardware) is None:
        runs.log_file(content["run_id"], picture, "figures")
    result = {"chosen": choice.values, "note": choice.note} | content | {"trials": rows}
    write_atomic(out, json.dumps(result, indent=1) + "\n")
    return choice


def searched(params: Params, mix: Path, init: Path) -> Path:
    """The folder of the search, which was made here or by a job."""
    root, fresh = shared(params.hardware.storage), forced()
    task = root / f"search-{search_fingerprint(params, mix, init)}"
    server = job_server(params.hardware)
    if server is not None:
        if fresh or not is_complete(params, Ledger(run_of(task) / "ledger.jsonl")):
            run_job("search", server, task.name, fresh=fresh)
        return run_of(task)
    chosen = agreed_precision("search", params)
    name = search_fingerprint(params, mix, init, chosen.precision)
    folder = root / f"search-{name}"
    point_to(task, folder)
    run_trials(params, chosen, mix, init, folder, name, fresh)
    return folder


def search_fingerprint(params: Params, mix: Path, init: Path, precision: Precision | None = None) -> str:
    """Names a search by everything that its trials depend on; `precision`: see `job_fingerprint`.

    How many trials there are, and how many run at a time, is not part of it: more trials continue a search.
    """
    finetune = params.finetune
    return fingerprint(
        search=params.search.model_dump(exclude={"enabled", "trials", "concurrent", "workers"}),
        job=job_fingerprint("finetune", params, mix, init, finetune.tau, finetune.sigma, precision),
        code=code_version(SEARCH_CODE),
    )


def check_variants(params: Params, mix: Mix) -> None:
    """Refuse, before any trial, an end of a range that the shards or the network do not allow: a rotation
    beyond what the crops show, a kernel of even size.
    """
    for path, value, variant in variants(params):
        if path.startswith("finetune.strong."):
            check_pixels(variant)
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


def run_trials(
    params: Params, chosen: Chosen, mix: Path, init: Path, folder: Path, name: str, fresh: bool
) -> None:
    """All trials of the search in `folder` that have not ended; in MLflow the search is a run and each trial
    its child.
    """
    with locked(folder.parent / f"{folder.name}.lock", wait=15):
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        ledger = Ledger(folder / "ledger.jsonl")
        tags = {"stage": "search", "precision": chosen.precision}
        tags |= lineage_tags(Path("dvc.lock"), mix, name)
        run_id = open_run(folder, "search", tags)
        with runs.finished(run_id):
            runs.log_params_flat(run_id, params.model_dump(mode="json") | chosen.facts())
            trial_runs = TrialRuns(run_id, tags)
            if is_complete(params, ledger):
                say(f"run {name} is finished already; its result is handed over again")
            else:
                _tune(params, chosen.precision, mix, init, folder, run_id, ledger, trial_runs)
            assert is_complete(params, ledger), "Tune has run every trial to its end"
            trials = counted_trials(params, ledger)
            for trial in trials:
                trial_runs.log(trial)
            if len(trials) not in runs.logged_steps(run_id, "best_AP"):
                runs.log_metrics(
                    run_id,
                    {"best_AP": best_of([as_row(trial) for trial in trials])["AP"]},
                    step=len(trials),
                )


def _tune(
    params: Params,
    precision: Precision,
    mix: Path,
    init: Path,
    folder: Path,
    run_id: str,
    ledger: Ledger,
    trial_runs: TrialRuns,
) -> None:
    from rtmpose.search.tune import tune_trials  # which imports Ray

    # Trials have a current folder of their own, and inside a job perhaps a machine that has not the job's
    # files.
    hardware = params.hardware.model_copy(update={"cache": str(home(params.hardware.cache))})
    job = Job(
        stage="finetune",
        params=params.model_copy(update={"hardware": hardware}),
        precision=precision,
        mix=shared_mix(mix),
        store=folder,
        token="",  # nobody takes over: the driver holds a lock, and trials write nothing but their own file
        run_id=run_id,
        tracking_uri=runs.tracking_uri(),
        init=shared_file(init, folder),
        tau=params.finetune.tau,
        sigma=params.finetune.sigma,
    )
    if ledger.trials:
        say(f"resuming with {len(ledger.trials)} trials known, {len(ledger.running())} of them unfinished")
    try:
        tune_trials(job, ledger, trial_runs)
    except BaseException:
        for trial in ledger.running():
            trial_runs.log(trial, "FAILED")
        raise
