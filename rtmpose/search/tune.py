"""The glue between a search's ledger and Ray Tune.

Tune places trials on workers and hears their reports. The ledger decides what is tried next and which trial
is stopped early (ASHA, arXiv 1810.05934). So a search can be killed and started again at any time.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
import ray.train.torch
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from rtmpose.cluster.mistakes import as_value, raised
from rtmpose.cluster.session import joins_cluster, ray_cluster
from rtmpose.cluster.workers import run_workers
from rtmpose.config import Params, setup_environment
from rtmpose.files import UserError
from rtmpose.search.ledger import Ledger, Report, report_of
from rtmpose.search.plan import counted_trials, is_complete, new_trial, trials_left
from rtmpose.search.report import TrialRuns, trial_line
from rtmpose.search.trial import (
    TrialSpec,
    Worker,
    say,
    search_device,
    trial_file,
    trial_reports,
    trial_threads,
    warm_file,
    warm_up,
)
from rtmpose.training.job import Job


class Suggestions(Searcher):
    """Gives Tune the ledger's unfinished trials first, then new ones; `count` of them in all."""

    def __init__(self, params: Params, ledger: Ledger) -> None:
        super().__init__(metric="AP", mode="max")
        self.params, self.ledger = params, ledger
        self.unfinished = [trial for trial in counted_trials(params, ledger) if trial.status == "running"]
        self.count = len(self.unfinished) + trials_left(params, ledger)

    def suggest(self, trial_id: str) -> Any:
        trial = self.unfinished.pop(0) if self.unfinished else new_trial(self.params, self.ledger)
        if trial is None:
            return Searcher.FINISHED
        return {
            "spec": TrialSpec(
                trial.number, trial.point, trial.seed, trial.kind == "searched", len(trial.reports)
            )
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The scheduler has written everything down by then."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger is what a search goes on from; Tune wants a file nevertheless."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""


class Halving(ASHAScheduler):
    """ASHA over the reports in the ledger: at report 1, 2, 4, … it stops a trial whose AP is below the median
    of the trials that came so far.

    The reports of earlier attempts are replayed first, and every new one is written down before it is judged.
    The reference and the repeats report their end only, which is compared with nothing.
    """

    def __init__(self, params: Params, ledger: Ledger, runs: TrialRuns) -> None:
        super().__init__(
            time_attr="report",
            metric="AP",
            mode="max",
            max_t=params.search.reports,
            grace_period=1,
            reduction_factor=2,
        )
        self.params, self.ledger, self.runs = params, ledger, runs
        stopped = {}
        for number in ledger.trials:
            super().on_trial_add(None, _stand_in(number))
        for number, report in ledger.history:
            stopped[number] = self._judge(number, report) == TrialScheduler.STOP
        for trial in ledger.running():  # a kill came between its report and its end
            if stopped.get(trial.number):
                self._end(trial.number)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        number = trial.config["spec"].number
        super().on_trial_add(tune_controller, _stand_in(number))
        self.runs.log(self.ledger.trials[number])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["spec"].number
        report = report_of(result)
        known = self.ledger.trials[number].reports
        if known and report["report"] <= known[-1]["report"]:  # said again after its worker had died
            return str(TrialScheduler.CONTINUE)
        self.ledger.report(number, report)
        decision = self._judge(number, report)
        if decision == TrialScheduler.STOP:
            self._end(number)
        self.runs.log(self.ledger.trials[number])
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The last report has ended the trial already."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """The last report has ended the trial already."""

    def _judge(self, number: int, report: Report) -> str:
        return str(super().on_trial_result(None, _stand_in(number), report))

    def _end(self, number: int) -> None:
        trial = self.ledger.trials[number]
        finished = trial.reports[-1]["report"] == self.params.search.reports
        self.ledger.end(number, "finished" if finished else "stopped")
        trial_file(self.ledger.path.parent, number).unlink(missing_ok=True)
        say(trial_line(trial))


class OnMistake(Stopper):
    """Ends the search, and keeps the reason, as soon as a trial has met a user's mistake: no second attempt
    would mend it.
    """

    def __init__(self) -> None:
        self.mistake: str | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.mistake = self.mistake or result.get("mistake")
        return self.mistake is not None  # Tune then asks the scheduler nothing

    def stop_all(self) -> bool:
        return self.mistake is not None


def _stand_in(number: int) -> Any:
    """What ASHA needs of a trial, by the ledger's number: Tune's own ids differ in each attempt."""
    return SimpleNamespace(trial_id=str(number))


def tune_trials(job: Job, ledger: Ledger, runs: TrialRuns) -> None:
    """Run all trials that have not ended. One whose worker dies goes on elsewhere, up to
    `hardware.max_failures` times; one that fails for good, or that meets a user's mistake, ends the search
    with its error.
    """
    search, hardware = job.params.search, job.params.hardware
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own tables; each trial is one line of ours
    # Of trials that fail beside the first one, which ends the search.
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
    if not joins_cluster():
        search_device(job.params)  # without a GPU trials would wait for one forever
    say(
        f"{search.reference_seeds} runs of the reference and {search.trials} trials of "
        f"{search.trial_steps} steps, {search.concurrent} at a time"
    )
    # They print the traceback of a failed trial, which is raised here, and of a search that is interrupted
    # while Ray writes its own notes, which nobody reads.
    for name in ("tune", "execution.tune_controller", "execution.experiment_state"):
        logging.getLogger(f"ray.tune.{name}").setLevel(logging.CRITICAL)
    # The workers of a distributed trial are left behind without the dashboard's agents.
    cpus = search.workers * max(hardware.cpus_per_worker, search.concurrent)
    cpus += search.concurrent if search.workers > 1 else 0
    with ray_cluster(cpus, dashboard=search.workers > 1):
        prepare(job)
        while True:  # all trials, then the best one's repeats
            # It may end the last trial that a kill left open.
            scheduler = Halving(job.params, ledger, runs)
            if is_complete(job.params, ledger):
                break
            fit(job, Suggestions(job.params, ledger), scheduler)
    shutil.rmtree(scratch(job), ignore_errors=True)
    # Workers that went on while they were stopped have written some again.
    for path in job.store.glob(trial_file(job.store, "*").name):
        path.unlink()


def scratch(job: Job) -> Path:
    """The folder of Ray's own notes of trials and workers, which nobody reads: the ledger counts."""
    return job.store / "tune"


def fit(job: Job, suggestions: Suggestions, scheduler: Halving) -> None:
    """Let Tune run the trials that the ledger still wants."""
    stopper, search = OnMistake(), job.params.search
    shutil.rmtree(scratch(job), ignore_errors=True)
    config = tune.TuneConfig(
        num_samples=suggestions.count,
        search_alg=suggestions,
        scheduler=scheduler,
        max_concurrent_trials=search.concurrent,
        trial_dirname_creator=lambda trial: trial.trial_id,
        reuse_actors=search.workers == 1,  # workers of a stopped trial end with its process alone
    )
    run = tune.RunConfig(
        name="trials",
        storage_path=str(scratch(job)),
        verbose=0,
        stop=stopper,
        failure_config=tune.FailureConfig(max_failures=job.params.hardware.max_failures),
    )
    own = {"CPU": 1.0} if search.workers > 1 else resources(job.params, trial_threads(job.params))
    trainable = tune.with_resources(tune.with_parameters(trial, job=job), own)
    results = tune.Tuner(trainable, tune_config=config, run_config=run).fit()
    if stopper.mistake is not None:
        raise UserError(stopper.mistake)
    for error in results.errors:
        # A text is what Ray has kept of an error that it could not pickle.
        raise error if isinstance(error, Exception) else RuntimeError(error)
    trials = counted_trials(job.params, scheduler.ledger)
    # Tune returns from Ctrl-C as from its end.
    if len(results) < suggestions.count or any(trial.status == "running" for trial in trials):
        raise UserError("the search was interrupted; run the stage again to go on")


def resources(params: Params, cpus: float) -> dict[str, float]:
    """What Ray is to reserve for a trial or the warm-up."""
    gpus = params.hardware.gpus_per_worker
    return {"CPU": cpus} | ({"GPU": gpus} if gpus else {})


def prepare(job: Job) -> None:
    """Run the warm-up of the recipe's network, which most trials start from, with the CPUs of a whole worker.

    A trial of another network makes its own.
    """
    if warm_file(job).exists():
        return
    several = job.params.search.workers > 1
    needed = {"CPU": 1.0} if several else resources(job.params, job.params.hardware.cpus_per_worker)
    retries = job.params.hardware.max_failures  # of a worker that died; it goes on from its last quarter
    remote = ray.remote(num_cpus=needed["CPU"], num_gpus=needed.get("GPU", 0), max_retries=retries)(as_value)
    task = remote.remote(_warm_up, job)
    notes = job.store / "notes.txt"
    notes.unlink(missing_ok=True)
    said, waiting = 0, [task]
    while waiting:
        _, waiting = ray.wait([task], timeout=1.0)
        lines = notes.read_text().splitlines() if notes.exists() else []
        for line in lines[said:]:
            say(line)
        said = len(lines)
    raised(ray.get(task))


def _warm_up(job: Job) -> None:
    setup_environment()
    params = job.params
    if params.search.workers > 1:
        on_workers(partial(_warm_up_rank, job), job, "warm-up", params.hardware.cpus_per_worker)
    else:
        torch.set_num_threads(max(int(params.hardware.cpus_per_worker), 1))
        warm_up(job, Worker(search_device(params)))


def trial(config: dict[str, Any], job: Job) -> None:
    """One trial in its process. A mistake of the user becomes a report, which `OnMistake` raises again."""
    setup_environment()
    ended = as_value(_trial, config["spec"], job)
    if isinstance(ended, UserError):
        tune.report({"mistake": str(ended), "AP": 0.0})  # Tune refuses a report without the metric


def _trial(spec: TrialSpec, job: Job) -> None:
    threads = trial_threads(job.params)
    if job.params.search.workers > 1:
        work = partial(_trial_rank, spec, job)
        on_workers(work, job, f"trial-{spec.number}", threads, TuneReportCallback())
        return
    torch.set_num_threads(threads)
    for report in trial_reports(spec, job, Worker(search_device(job.params))):
        tune.report(report)


def on_workers(work: Callable[[], None], job: Job, name: str, cpus: float, *callbacks: Any) -> None:
    """`work` in each of `search.workers` workers with so many CPUs, in one process group."""
    folder = scratch(job) / name
    folder.mkdir(parents=True, exist_ok=True)
    hardware = job.params.hardware.model_copy(update={"cpus_per_worker": cpus})
    run_workers(work, hardware, workers=job.params.search.workers, folder=folder, callbacks=callbacks)


def _worker(threads: float) -> Worker:
    """This worker of Ray Train."""
    torch.set_num_threads(max(int(threads), 1))
    context = ray.train.get_context()
    return Worker(ray.train.torch.get_device(), context.get_world_rank(), context.get_world_size())


def _warm_up_rank(job: Job) -> None:
    warm_up(job, _worker(job.params.hardware.cpus_per_worker))


def _trial_rank(spec: TrialSpec, job: Job) -> None:
    for report in trial_reports(spec, job, _worker(trial_threads(job.params))):
        ray.train.report(report)
