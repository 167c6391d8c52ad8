"""A stage as a Ray job on a cluster: submitted once, found again while it runs, followed to its end.

A job runs `python -m pipelines.STAGE` in a copy of the working directory (`.rayignore` says without what),
with RTMPOSE_HOME naming the checkout that it was copied from: shards and run stores are read and written
there, on storage that all machines see. The job's result is the finished run in that storage; so a submitter
may come, go and come back.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtmpose.checkout import JOB_HOME, home, in_job
from rtmpose.config import HardwareParams
from rtmpose.files import UserError, write_atomic
from rtmpose.fingerprint import forced_by_dvc, git_commit
from rtmpose.tracking import runs
from rtmpose.tracking.answers import without_password

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

FRESH = "RTMPOSE_FRESH"  # set to 1 in a job whose stage is to start anew
RUN_KEY = "rtmpose_run"  # the metadata key by which the jobs of one run are found
POINTER = ".run"  # of the file that holds a run's name, after the name of its task
PAUSE, RETRIES = 5.0, 60  # seconds between attempts to reach the job server again, and how many
SUBMISSIONS = 6  # attempts to hand in a job; the server itself waits for an agent before each refusal


def job_server(hardware: HardwareParams) -> str | None:
    """Where stages are submitted: RAY_ADDRESS, else `hardware.jobs`; None without either, and inside
    a job.
    """
    return None if in_job() else os.environ.get("RAY_ADDRESS") or hardware.jobs


def forced() -> bool:
    """Whether the stage is to start anew: `dvc … -f` here, or where the job was submitted."""
    return os.environ.get(FRESH) == "1" if in_job() else forced_by_dvc()


def job_environment(fresh: bool) -> dict[str, str]:
    """What travels with a job: the commit (a job has no .git), the checkout, and MLflow without
    its password.
    """
    environment = {
        "RTMPOSE_GIT_COMMIT": git_commit(),
        JOB_HOME: str(home()),
        "MLFLOW_TRACKING_URI": without_password(runs.tracking_uri()),
    }
    return environment | ({FRESH: "1"} if fresh else {})


def run_job(stage: str, server: str, run: str, *, fresh: bool) -> None:
    """Run `pipelines.STAGE` as a job of the run `run`, or join the one that runs already, and print its log
    to its end.

    `fresh` stops a running one and starts anew. UserError when the job fails or is stopped, when the server
    does not answer, and on Ctrl-C, which leaves the job running.
    """
    with _server_errors(server):
        client = connect(server)
        jobs = [job for job in client.list_jobs() if (job.metadata or {}).get(RUN_KEY) == run]
        running = [job.submission_id for job in jobs if not job.status.is_terminal()]
        if fresh:
            for name in running:
                stop(client, name)
            running = []
        if running:
            name = running[0]
            print(f"{stage}: following job {name}, which runs already", flush=True)
        else:
            name = f"{run}-{len(jobs) + 1}"  # taken by another submitter at the same moment, it is refused
            start(
                client, stage, name, {RUN_KEY: run}, {"working_dir": ".", "env_vars": job_environment(fresh)}
            )
            print(f"{stage}: submitted job {name} to {server}", flush=True)
    try:
        follow(client, name)
        _conclude(client, name)
    except KeyboardInterrupt:
        raise UserError(
            f"job {name} goes on without us; run the stage again to follow it, or end it with "
            f"`ray job stop {name}` (a stopped run resumes when the stage is run again)"
        ) from None


def point_to(task: Path, run: Path) -> None:
    """Inside a job, leave word in the storage where the run of a task is: its name holds the precision that
    the cluster's machines have, which the submitter does not know.
    """
    if in_job() and task != run:
        write_atomic(task.with_name(f"{task.name}{POINTER}"), run.name)


def run_of(task: Path) -> Path:
    """The folder of the run that a job made of a task, as far as this machine knows."""
    pointer = task.with_name(f"{task.name}{POINTER}")
    return task.with_name(pointer.read_text().strip()) if pointer.exists() else task


def not_here(folder: Path, what: str) -> UserError:
    """What to raise where a job has succeeded and its result is not in the storage as this machine
    sees it.
    """
    return UserError(
        f"params.yaml: hardware.storage: the job has ended, but {folder} holds no finished {what} here; "
        "name a folder that this machine sees under the same path as the cluster"
    )


def connect(server: str) -> JobSubmissionClient:
    """A client of the job server; it sends the token of `~/.ray/auth_token` or RAY_AUTH_TOKEN where there is
    one.
    """
    # All of it is read when ray is imported or packs the folder. What git ignores is needed: weights,
    # data/mix.json.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"
    import logging

    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)
    for name in ("sdk", "dashboard_sdk"):
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.ERROR)
    return JobSubmissionClient(server)


def start(
    client: JobSubmissionClient, stage: str, name: str, metadata: dict[str, str], environment: dict[str, Any]
) -> None:
    """Submit a job; a cluster that has just been started takes its time to accept one."""
    entrypoint = f"python -m pipelines.{stage}"
    for attempt in range(SUBMISSIONS):
        try:
            client.submit_job(
                entrypoint=entrypoint, submission_id=name, metadata=metadata, runtime_env=environment
            )
            return
        except RuntimeError as error:
            if "No available agent" not in str(error) or attempt + 1 == SUBMISSIONS:
                raise
        time.sleep(PAUSE)


def stop(client: JobSubmissionClient, name: str, seconds: float = 60.0) -> None:
    """Stop a job and wait until it has ended."""
    client.stop_job(name)
    deadline = time.monotonic() + seconds
    while not client.get_job_status(name).is_terminal():
        if time.monotonic() > deadline:
            raise UserError(
                f"job {name} does not stop; end it with `ray job stop {name}` and run the stage again"
            )
        time.sleep(0.5)


class Log:
    """A job's log on its way to the terminal: each character once, however often the connection is
    made anew.
    """

    def __init__(self, client: JobSubmissionClient, name: str) -> None:
        self.client, self.name, self.printed = client, name, 0

    async def tail(self) -> None:
        """Print what the log gains until the connection ends; the server sends it from its beginning."""
        seen = 0
        async for text in self.client.tail_job_logs(self.name):
            self._print(text, seen)
            seen += len(text)

    def rest(self) -> None:
        """Print what is left of an ended job's log."""
        self._print(self.client.get_job_logs(self.name), 0)

    def _print(self, text: str, start: int) -> None:
        print(text[max(self.printed - start, 0) :], end="", flush=True)
        self.printed = max(self.printed, start + len(text))


def follow(client: JobSubmissionClient, name: str) -> None:
    """Print the job's log until the job ends; UserError when its server does not answer, or knows it no more,
    for long.
    """
    from aiohttp import ClientError

    log, failures = Log(client, name), 0
    while True:
        try:
            asyncio.run(log.tail())
            if client.get_job_status(name).is_terminal():
                log.rest()
                return
            failures = 0
        except (ClientError, OSError, RuntimeError) as error:  # requests' errors are OSErrors
            failures += 1
            if failures > RETRIES:
                raise UserError(
                    f"job {name} is lost ({_first_line(error)}); run the stage again to resume it"
                ) from None
            print(f"warning: job {name}: {_first_line(error)}; trying again", file=sys.stderr, flush=True)
        time.sleep(PAUSE)


def _conclude(client: JobSubmissionClient, name: str) -> None:
    """UserError unless the job has succeeded: with the stage's own last line where that was an error."""
    from ray.job_submission import JobStatus

    info = client.get_job_info(name)
    if info.status == JobStatus.STOPPED:
        raise UserError(f"job {name} was stopped; run the stage again to resume it")
    if info.status == JobStatus.FAILED:
        lines = [line for line in client.get_job_logs(name).splitlines() if line.startswith("error: ")]
        reason = (
            lines[-1].removeprefix("error: ") if lines else _first_line(info.message or "no reason given")
        )
        raise UserError(f"job {name} failed: {reason}")


@contextmanager
def _server_errors(server: str) -> Iterator[None]:
    """A job server that refuses or does not answer is the user's to mend."""
    try:
        yield
    except Exception as error:
        from ray.exceptions import AuthenticationError

        if not isinstance(error, (OSError, RuntimeError, AuthenticationError)):
            raise
        raise UserError(
            f"hardware.jobs or RAY_ADDRESS: {server}: {_first_line(error)} (see docs/cluster.md)"
        ) from None


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0][:300]
