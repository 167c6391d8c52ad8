"""The load of the machine that trains, as curves in MLflow.

They are for people: whatever goes wrong here costs a point of a curve, never the run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from rtmpose.files import UserError
from rtmpose.tracking import runs

INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"  # MLflow's own variable, seconds


@contextmanager
def system_metrics(run_id: str) -> Iterator[None]:
    """Log this machine's load to MLflow while the block runs, every ten seconds and at its end: `system/…` by
    seconds since the run began, so that a resumed run goes on where it was.

    The figures are those of MLflow's own monitor, with GPUs where nvidia-ml-py is installed. That monitor
    ends for good when the server does not answer once; this one leaves out the point.
    """
    every = float(os.environ.get(INTERVAL) or 10)
    done = threading.Event()
    thread = threading.Thread(
        target=_sample, args=(run_id, _monitors(), every, done), daemon=True, name="system-metrics"
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)  # a server that hangs keeps no finished run waiting


def _monitors() -> list[Any]:
    """MLflow's collectors for CPU and memory, disk, network and NVIDIA GPUs, as far as the machine
    has them.
    """
    with suppress(UserError):
        runs.client()  # sets MLflow up, quiet and without telemetry
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = []
    for kind in (CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor):
        with suppress(Exception):  # each says in its own way that there is no such thing here
            monitors.append(kind())
    return monitors


def _sample(run_id: str, monitors: list[Any], every: float, done: threading.Event) -> None:
    psutil.cpu_percent()  # its first reading has nothing to compare with
    began: float | None = None
    ended = False
    while not ended:
        ended = done.wait(every)
        figures: dict[str, float] = {}
        for monitor in monitors:
            with suppress(Exception):  # drivers and counters fail in their own ways: a point is missing then
                monitor.collect_metrics()
                figures |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
        try:
            began = runs.run_started(run_id) if began is None else began
            runs.log_metrics(run_id, figures, step=int(time.time() - began))
        except UserError:
            continue  # the run's reports say so already
