"""The Ray cluster that heavy work runs on: the one that RAY_ADDRESS names, else a small local one that ends
with us.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

import psutil

from rtmpose.cluster.mistakes import as_value, raised
from rtmpose.config import setup_environment
from rtmpose.ending import Signalled, signals_later
from rtmpose.files import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

RETRIES = 3  # of a task whose worker process died
STARTS = 3  # tries to start Ray
# What Ray says of a start that is worth another try; the last one where another cluster took the port.
GAVE_UP = (
    "timed out during startup",
    "Failed to start GCS",
    "Failed to connect to GCS",
    "match persisted value",
)


def joins_cluster() -> bool:
    """Whether RAY_ADDRESS names a cluster to join; a job server's URL takes jobs, and other work then stays
    here.
    """
    return not os.environ.get("RAY_ADDRESS", "http://").startswith(("http://", "https://"))


@contextmanager
def ray_cluster(cpus: float, *, dashboard: bool = False) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, else start a small local one; the one we started ends with us.

    Where this process has joined one already, that is used and stays.
    """
    setup_environment()
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if not joins_cluster():
        # Ray's own minute is for the head of a cluster that somebody starts again.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
    with signals_later():
        import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {}
    if not joins_cluster():
        # Ray Train's watcher is for machines that a provider takes away. It takes two seconds to start.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Workers that start with Ray are of no use to Ray Train, which starts its own.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        # "local": without it Ray joins whatever cluster somebody has started on this machine.
        options = {"address": "local", "num_cpus": max(int(cpus), 1), "include_dashboard": dashboard}
        options["object_store_memory"] = 200 << 20
    try:
        _start_here(options) if options else _start(options)
        yield
    finally:
        ray.shutdown()


def _start_here(options: dict[str, Any]) -> None:
    """Start Ray on this machine, and try again where Ray gives up: on a busy machine its processes may take
    longer than it waits, and any program may take the port that was found free. UserError after `STARTS`.
    """
    for left in reversed(range(STARTS)):
        with known_by_address() as address:
            try:
                return _start(options)
            except Exception as error:
                if not any(reason in str(error) for reason in GAVE_UP):
                    raise
                _end_processes_of(address)
                if not left:
                    raise UserError(
                        f"Ray did not start in {STARTS} tries: is this machine too busy? Run it again when "
                        f"less runs beside it; what Ray says is in its folder session_*_{os.getpid()}/logs"
                    ) from error
        print("ray       did not start in the time that it allows itself: trying again", flush=True)


def _end_processes_of(address: str) -> None:
    """Kill what a start that failed has left of the cluster at `address`. What its raylet left behind ends by
    itself.
    """
    left: list[psutil.Process] = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.environ().get("RAY_ADDRESS") == address:
                left += [child, *child.children(recursive=True)]  # which may hide their environment
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)  # some containers never bury a process that lost its parent


@contextmanager
def known_by_address() -> Iterator[str]:
    """A local cluster that starts during the block tells its processes where it is, by RAY_ADDRESS, which is
    what the block is given.

    Parts of Ray look for "the" cluster of the machine otherwise, and fail where there are two: a placement
    group then outlives its trial, and the next trial waits for its cores without end.
    """
    import ray

    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    address = {
        "RAY_GCS_SERVER_PORT": str(port),
        "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}",
    }
    before = {name: os.environ.get(name) for name in address}
    os.environ.update(address)
    try:
        yield address["RAY_ADDRESS"]
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _start(options: dict[str, Any]) -> None:
    """Start or join Ray, and keep this process's own answer to SIGTERM, which Ray replaces by one of its own.

    A signal while Ray starts ends what was started already, and is then told as any other.
    """
    import ray

    answer = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level="error", log_to_driver=False, **options)
    except SystemExit:  # Ray's own answer
        raise Signalled(signal.SIGTERM) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, answer)


def map_on_cluster(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: int | None = None
) -> Generator[Result]:
    """Yields `work(task)` of every task, in the order in which they end. Each has one core; at most `workers`
    run at a time (None: as many as the cluster has cores). Close the iterator to stop early.

    In this process where there is one task, one worker or one core: starting Ray takes seconds. Tasks and
    results are pickled. A task whose worker dies is tried again; a UserError of `work` is raised here as it
    is.
    """
    if workers is None and not joins_cluster():
        workers = len(os.sched_getaffinity(0))
    if len(tasks) <= 1 or workers == 1:
        yield from map(work, tasks)
        return
    with ray_cluster(min(workers or 1, len(tasks))):
        import ray

        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(as_value)
        cores = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        # Where all cores are allowed, twice as many tasks are handed out: no core waits for its next one.
        limit = workers if workers and workers < cores else 2 * cores
        waiting = iter(tasks)
        running = [remote.remote(work, task) for task in islice(waiting, limit)]
        while running:
            (ended,), running = ray.wait(running)
            running += [remote.remote(work, task) for task in islice(waiting, 1)]
            yield _result(ended)


def _result(ended: Any) -> Any:
    import ray

    try:
        result = ray.get(ended)
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"a worker process died {RETRIES + 1} times over the same task; use fewer workers ({reason})"
        ) from error
    return raised(result)
