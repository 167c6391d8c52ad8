"""A trial repeated and resumed, and a search whose driver is killed: both are what they would have been.

And a search that a user's mistake ends, met in a trial.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from ray.tune.schedulers import TrialScheduler

from rtmpose.config import load_params
from rtmpose.precision import choose_here
from rtmpose.search.ledger import Ledger
from rtmpose.search.plan import new_trial
from rtmpose.search.trial import TrialSpec, Worker, trial_reports
from rtmpose.search.tune import Halving
from rtmpose.tracking.runs import client
from rtmpose.training.job import Job, shared_mix
from tests.search.searching import Silent, children
from tests.search.stage import PATIENCE, result, search
from tests.training.ranks import on_ranks
from tests.workspace import Workspace

pytestmark = pytest.mark.slow
ALONE = Worker(torch.device("cpu"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums depend on how many threads share them: as many as a trial has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def job_in(workspace: Workspace, store: Path) -> Job:
    params = load_params(workspace.folder / "params.yaml")
    store.mkdir(exist_ok=True)
    return Job(
        stage="finetune", params=params, precision=choose_here(params, on_gpu=False).precision,
        mix=shared_mix(workspace.folder / "data/mix.json"), store=store, token="", run_id="",
        tracking_uri="", init=workspace.folder / "models/pretrain.pt", tau=params.finetune.tau,
        sigma=params.finetune.sigma,
    )  # fmt: skip


def test_a_trial_is_a_function_of_its_point_and_seed(
    prepared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """Equal to the bit when repeated, when resumed behind a report, and when its driver has not heard of the
    last one.
    """
    monkeypatch.chdir(prepared.folder)
    job, spec = (
        job_in(prepared, tmp_path / "a"),
        TrialSpec(7, {"finetune.tau": 0.08, "model.kernel": 5}, 0, judged=True),
    )
    whole = list(trial_reports(spec, job, ALONE))
    assert [(report["report"], report["step"]) for report in whole] == [(1, 2), (2, 4), (3, 6)]
    last = torch.load(tmp_path / "a/trial-7.pt", weights_only=True)
    assert last["step"] == 4 and last["reports"] == whole[:2]

    again = job_in(prepared, tmp_path / "b")
    killed = trial_reports(spec, again, ALONE)
    assert [next(killed), next(killed)] == whole[:2]
    killed.close()
    other = torch.load(tmp_path / "b/trial-7.pt", weights_only=True)
    assert all(torch.equal(value, other["model"][key]) for key, value in last["model"].items())
    assert list(trial_reports(replace(spec, known=1), again, ALONE)) == whole[1:]
    (tmp_path / "b/trial-7.pt").unlink()
    assert list(trial_reports(replace(spec, known=2), again, ALONE)) == whole[2:]
    assert len(list((tmp_path / "a").glob("warm-*.pt"))) == 1 and not list((tmp_path / "a").glob("*.part"))


def test_another_batch_size_sees_as_many_samples(
    prepared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.folder)
    reports = list(
        trial_reports(
            TrialSpec(0, {"finetune.batch_size": 16}, 0, judged=False),
            job_in(prepared, tmp_path / "a"),
            ALONE,
        )
    )
    assert [(report["report"], report["step"]) for report in reports] == [(3, 3)]


def reports_of_a_rank(job: Job, spec: TrialSpec, rank: int, world: int) -> list[dict[str, Any]]:
    return list(trial_reports(spec, job, Worker(torch.device("cpu"), rank, world)))


def test_two_workers_report_what_one_does(
    prepared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """After a warm-up of the two, which is that of one, too. At a high rate, sums in another order soon lead
    elsewhere.
    """
    monkeypatch.chdir(prepared.folder)
    spec = TrialSpec(7, {"finetune.tau": 0.08, "finetune.optim.lr": 1e-6}, 0, judged=True)
    # In float32: bf16 rounds sums in another order to other values at once.
    one, two = (replace(job_in(prepared, tmp_path / name), precision="fp32") for name in ("one", "two"))
    alone = list(trial_reports(spec, one, ALONE))
    first, second = on_ranks(2, tmp_path / "two", partial(reports_of_a_rank, two, spec))
    assert [report["step"] for report in first] == [report["step"] for report in second] == [2, 4, 6]
    assert all(
        found == pytest.approx(expected, abs=0.01) for found, expected in zip(first, alone, strict=True)
    )
    for path in (tmp_path / "one").glob("*.pt"):
        weights, same = (
            torch.load(folder / path.name, weights_only=True)
            for folder in (tmp_path / "one", tmp_path / "two")
        )
        if path.name.startswith("trial"):
            weights, same = weights["model"], same["model"]
        assert all(torch.allclose(value, same[key], atol=2e-3) for key, value in weights.items()), path.name


def ledger_of(workspace: Workspace) -> Ledger | None:
    found = list((workspace.folder / "runs").glob("search-*/ledger.jsonl"))
    return Ledger(found[0]) if found else None


def kill_search_when(workspace: Workspace, reports: int) -> None:
    """Start the search and `kill -9` its driver, and nothing else, once its ledger holds so many reports."""
    process = workspace.start(sys.executable, "-m", "pipelines.search")
    while (ledger := ledger_of(workspace)) is None or len(ledger.history) < reports:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not trials_of(process.pid), "no trial outlives its driver")


def trials_of(session: int) -> list[psutil.Process]:
    """The trials' processes of a search whose driver led this session."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            title = process.cmdline()[:1] or [""]  # Ray's own agents take a minute to notice
            if os.getsid(process.pid) == session and title[0].startswith("ray::") and "Agent" not in title[0]:
                found.append(process)
    return found


def until(done: Callable[[], bool], what: str) -> None:
    """Wait for a condition, for as long as the slowest machine may take."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.1)


def events(ledger: Ledger) -> list[tuple[Any, ...]]:
    return [
        (trial.point, trial.kind, trial.seed, trial.status, trial.reports)
        for _, trial in sorted(ledger.trials.items())
    ]


def test_a_killed_search_ends_as_an_undisturbed_one(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """Also: in MLflow each trial is one child with one curve; pictures and tables are there; a finished one
    is not repeated.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_URI", prepared.environment["MLFLOW_TRACKING_URI"])
    kill_search_when(
        prepared, 3
    )  # the reference has ended under both seeds, the first searched trial has reported once
    killed = ledger_of(prepared)
    assert killed is not None and not (prepared.folder / "models/search.json").exists()
    resumed = search(prepared)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "resuming with" in resumed.stdout and "warm-up" not in resumed.stdout
    found, ledger = result(prepared), ledger_of(prepared)
    assert ledger is not None and ledger.history[: len(killed.history)] == killed.history
    assert [trial["trial"] for trial in found["trials"]] == [0, 1, 2, 3]

    runs = children(found["run_id"])
    assert sorted(run.data.tags["mlflow.runName"] for run in runs) == [
        f"trial {number}" for number in range(4)
    ]
    for run in runs:
        trial = found["trials"][int(run.data.tags["trial"])]
        for key in ("AP", "error"):
            curve = [(point.step, point.value) for point in client().get_metric_history(run.info.run_id, key)]
            assert curve == [(report["step"], report[key]) for report in trial["reports"]]
        assert run.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[trial["status"]]
        assert run.data.params["model.kernel"] == str(trial["point"]["model.kernel"])
    assert client().get_run(found["run_id"]).info.status == "FINISHED"
    assert [file.path for file in client().list_artifacts(found["run_id"], "figures")] == [
        "figures/search.png"
    ]
    with (prepared.folder / "metrics/search.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 4 and all(
        line["finetune.tau"] and line["model.kernel"] and line["AP"] for line in table
    )
    assert not list(Path(found["store"]).glob("trial-*.pt")) and not (Path(found["store"]) / "tune").exists()

    again = search(prepared)
    assert again.returncode == 0 and "finished already" in again.stdout, again.stdout + again.stderr
    assert result(prepared) == found
    assert sorted(run.info.run_id for run in children(found["run_id"])) == sorted(
        run.info.run_id for run in runs
    )
    monkeypatch.chdir(prepared.folder)
    assert events(undisturbed(prepared, prepared.folder / "runs/undisturbed")) == events(ledger)


def undisturbed(workspace: Workspace, folder: Path) -> Ledger:
    """The same search in this process, one trial after another."""
    job, ledger = job_in(workspace, folder), Ledger(folder / "ledger.jsonl")
    judge = Halving(job.params, ledger, Silent())
    while trial := new_trial(job.params, ledger):
        spec = TrialSpec(trial.number, trial.point, trial.seed, trial.kind == "searched")
        place = SimpleNamespace(config={"spec": spec})
        judge.on_trial_add(None, place)
        for report in trial_reports(spec, job, ALONE):
            if judge.on_trial_result(None, place, report) == TrialScheduler.STOP:
                break
    return ledger


def test_a_trial_that_leads_runs_again_and_an_interrupted_search_goes_on(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the ledger of the finished search above a trial's AP is raised: what leads by luck does not under
    the other seed.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_URI", prepared.environment["MLFLOW_TRACKING_URI"])
    ledger = ledger_of(prepared)
    assert ledger is not None
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    last = max(
        number for number, line in enumerate(lines) if line["event"] == "report" and line["trial"] == 2
    )
    lines[last]["AP"] = 0.9
    ledger.path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    process = prepared.start(sys.executable, "-m", "pipelines.search")
    until(lambda: len(Ledger(ledger.path).trials) == 5 or process.poll() is not None, "the repeat starts")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert (
        process.returncode == 2
        and "error: the search was interrupted; run the stage again to go on" in output
    ), output
    assert "Traceback" not in output
    resumed = search(prepared)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    found = result(prepared)
    assert (
        found["chosen"] == {}
        and "beats the reference's" in found["note"]
        and "only, the recipe's values" in found["note"]
    )
    repeat = found["trials"][-1]
    assert (repeat["kind"], repeat["seed"], repeat["point"]) == ("repeat", 1, found["trials"][2]["point"])
    (run,) = [run for run in children(found["run_id"]) if run.data.params["kind"] == "repeat"]
    assert run.info.status == "FINISHED" and run.data.metrics["AP"] == repeat["AP"]


def test_a_mistake_in_a_trial_ends_the_search_with_its_one_line(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a shard that is damaged within; the warm-up, of no steps, has not read it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", prepared.environment["MLFLOW_TRACKING_URI"])
    shard = prepared.folder / "data/shards/coco17/train/train-000000.tar"
    before = set((prepared.folder / "runs").glob("search-*/run.json"))
    whole = shard.read_bytes()
    prepared.set(search__warmup_steps=0, search__concurrent=2)
    try:
        shard.write_bytes(bytes(byte ^ 0xFF for byte in whole))
        failed = search(prepared)
    finally:
        shard.write_bytes(whole)
        prepared.set(search__warmup_steps=2, search__concurrent=1)
    assert failed.returncode == 2, failed.stdout + failed.stderr
    lines = failed.stderr.splitlines()
    assert lines[-1].startswith("error: ") and "train-000000.tar" in lines[-1] and "damaged" in lines[-1], (
        failed.stderr
    )
    assert "Traceback" not in failed.stdout + failed.stderr
    (run_file,) = set((prepared.folder / "runs").glob("search-*/run.json")) - before
    ledger = Ledger(run_file.with_name("ledger.jsonl"))
    assert {trial.status for trial in ledger.trials.values()} == {"running"} and not ledger.history
    parent = json.loads(run_file.read_text())["run_id"]
    assert client().get_run(parent).info.status == "FAILED"
    assert [run.info.status for run in children(parent)] == ["FAILED"] * len(ledger.trials)
