"""What MLflow shows of a run besides its curves: pictures of predictions as it learns, and the machine it
runs on.

Both are for people: whatever goes wrong here costs a picture or a point of a curve, never the run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import psutil

from rtmpose.config import TrainParams
from rtmpose.drawing import draw_predictions
from rtmpose.evaluation.evaluator import Results, sample_images
from rtmpose.files import UserError
from rtmpose.skeleton import Skeleton
from rtmpose.tracking import runs
from rtmpose.training.checkpoint import Store

SHOWN, CELL = 12, (320, 240)  # images of the tuning split, and the (w, h) px that each is drawn in
INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"  # MLflow's own variable, seconds


class Pictures:
    """Predictions on the same dozen images of the tuning split, every `picture_every` epochs: PNG files in
    the store, which go on to MLflow as one image with a slider over steps.

    They are drawn from the results of the last evaluation, so they cost no forward pass. MLflow is asked what
    it has; what a killed process had only drawn, or what a server that did not answer has missed, is sent
    with the next picture.
    """

    def __init__(
        self,
        stage: str,
        run_id: str,
        store: Store,
        train: TrainParams,
        tune: Path,
        skeleton: Skeleton,
        steps_per_epoch: int,
    ) -> None:
        self.key, self.run_id, self.store, self.train = f"{stage}/predictions", run_id, store, train
        self.folder = store.folder / "pictures"
        self.tune, self.skeleton, self.steps_per_epoch = tune, skeleton, steps_per_epoch
        self.results: Results = []
        self.sent: set[int] | None = None

    def remember(self, results: Results) -> None:
        """Keep the results of an evaluation, until the next one, for the picture of its step."""
        self.results = results

    def due(self, step: int) -> bool:
        """Whether the evaluation at `step` gets a picture: the first one of every `picture_every` epochs, and
        the last.
        """
        epoch, every = step // self.steps_per_epoch, self.train.picture_every
        return every is not None and (epoch % every < self.train.evaluate_every or epoch == self.train.epochs)

    def __call__(self, step: int) -> None:
        """Draw what was remembered at `step`, where a picture is due, and send what MLflow does not have."""
        if not self.due(step):
            return
        try:
            images = sample_images(self.tune, SHOWN)
            draw_predictions(images, self.results, self.skeleton, self.folder / f"{step:08d}.png", cell=CELL)
            self._send()
        except Exception as error:  # stores of artifacts raise classes of their own, and none is worth a run
            reason = str(error).partition("\n")[0]
            self.store.warn(f"step {step}: the picture of predictions is not logged ({reason})")

    def _send(self) -> None:
        if self.sent is None:
            self.sent = runs.image_steps(self.run_id, self.key)
        for path in sorted(self.folder.glob("*.png")):
            step = int(path.stem)
            if step not in self.sent:
                pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
                runs.log_image(self.run_id, pixels, self.key, step)
                self.sent.add(step)


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
