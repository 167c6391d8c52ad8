"""Latency of an exported model in several runtimes on this machine, and how far each is from PyTorch in fp32.

Each runtime × thread count lives in a process of its own, started with that many threads, so a count holds
from the process's first moment. All processes stay up and take turns in short rounds, so that whatever else
the machine does hits every configuration alike; CPU time per wall time is reported, which shows whether a
thread count held.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rtmpose.config import setup_environment
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.machine import machine
from rtmpose.deploy.runtimes.base import Infer, ModelFiles, NotPossible, Placement, Precision, RuntimeName
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.deploy.targets import Target, thread_count
from rtmpose.files import UserError

ANSWER_TIMEOUT = 300.0  # seconds a worker may take for one answer before it counts as hung
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Outputs = tuple[np.ndarray, ...]
Workers = dict[tuple[RuntimeName, Placement], Connection]


@dataclass(frozen=True)
class Configuration:
    """What is measured: a runtime in one precision, in one place, on batches of one size."""

    runtime: RuntimeName
    precision: Precision
    placement: Placement
    batch: int

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision} threads={self.placement.threads} batch={self.batch}"


@dataclass
class Measurement:
    """Raw results of one configuration: ms per call, CPU and wall seconds, outputs for the probe images."""

    outputs: Outputs
    milliseconds: list[float] = field(default_factory=list)
    cpu: float = 0.0
    wall: float = 0.0


def run(target: Target, files: ModelFiles, images: np.ndarray) -> dict[str, Any]:
    """Measure every configuration of `target` on this machine.

    images: normalised float32 (N, 3, H, W), both the timed input and the one on which outputs are compared;
    fewer than the largest batch are repeated. Returns {target, machine, protocol, reference, results,
    skipped, budgets, p50_ms}.
    """
    if platform.machine() != target.architecture:
        raise UserError(
            f"target {target.name}: is for {target.architecture}, this machine is {platform.machine()}"
        )
    card = read_card(files.onnx)  # a damaged file is the user's to mend, no reason to skip all configurations
    setup_environment()
    images = np.resize(images, (max(*target.batch_sizes, len(images)), *images.shape[1:]))
    started, load = time.time(), os.getloadavg()[0]
    with _workers(target, files, images) as workers:
        measured, skipped = _prepare(target, workers)
        _measure(target, workers, measured)
    if not measured:
        raise UserError(f"target {target.name}: nothing could be measured; {skipped[0]}")
    reference = _reference(files, images)
    results = [_summary(configuration, of, card, reference) for configuration, of in measured.items()]
    return {
        "target": target.name,
        "machine": machine() | {"load_average_before": round(load, 2)},
        "protocol": target.model_dump(include={"warmup", "rounds", "seconds", "min_repeats"})
        | {"took_seconds": round(time.time() - started, 1), "input": list(images.shape[1:])}
        # Waiting threads sleep unless the user says otherwise: spinning ones are quicker on an idle machine
        # only.
        | {"omp_wait_policy": os.environ["OMP_WAIT_POLICY"]},
        "reference": "pytorch fp32" if reference else None,
        "results": results,
        "skipped": skipped,
        "budgets": _check_budgets(target, results),
        "p50_ms": {_short(result): result["p50_ms"] for result in results},
    }


def table(report: dict[str, Any]) -> str:
    """The report as text: one line per configuration, then what was skipped and why, then the budgets."""
    head = f"{'runtime':<12}{'prec':<6}{'threads':>7}{'batch':>6}{'p50 ms':>9}{'p95 ms':>9}{'images/s':>10}"
    lines = [f"{head}{'cores':>7}{'max diff':>10}{'px mean':>9}{'px max':>8}"]
    for r in report["results"]:
        lines.append(
            f"{r['runtime']:<12}{r['precision']:<6}{r['threads']:>7}{r['batch']:>6}{r['p50_ms']:>9.2f}{r['p95_ms']:>9.2f}"
            f"{r['images_per_s']:>10.1f}{r['cores_used']:>7.2f}{_cell(r['max_diff'], 10, '.1e')}"
            f"{_cell(r['keypoints_px_mean'], 9, '.3f')}{_cell(r['keypoints_px_max'], 8, '.2f')}"
        )
    lines += [f"skipped: {line}" for line in report["skipped"]]
    lines += [
        f"budget {'kept' if b['kept'] else 'BROKEN'}: {b['configuration']} p50 {b['measured_ms']} of "
        f"{b['p50_ms']} ms"
        for b in report["budgets"]
    ]
    return "\n".join(lines)


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


def _short(result: dict[str, Any]) -> str:
    return f"{result['runtime']}_{result['precision']}_threads{result['threads']}_batch{result['batch']}"


@contextmanager
def _workers(target: Target, files: ModelFiles, images: np.ndarray) -> Iterator[Workers]:
    """One process per runtime and thread count; all are gone when the block is left, however it is left."""
    context = multiprocessing.get_context("spawn")
    pipes: Workers = {}
    processes = []
    try:
        for runtime in target.runtimes:
            for placement in target.placements():
                ours, theirs = context.Pipe()
                arguments = (theirs, runtime.name, files, placement, images)
                process = context.Process(target=_work, args=arguments, daemon=True)
                process.start()
                theirs.close()  # else a worker's death would not be seen as the end of its pipe
                processes.append(process)
                pipes[runtime.name, placement] = ours
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _prepare(target: Target, workers: Workers) -> tuple[dict[Configuration, Measurement], list[str]]:
    """Load and warm up every configuration, all workers at once; those that cannot run give a reason
    instead.
    """
    asked = [
        Configuration(runtime.name, precision, placement, batch)
        for runtime in target.runtimes
        for placement in target.placements()
        for precision in runtime.precisions
        for batch in target.batch_sizes
    ]
    # Requests are small: a large one would wait for a worker that waits for its own answer to be read.
    for one in asked:
        with suppress(OSError):  # a worker that died already is noticed, and named, when its answer is read
            workers[one.runtime, one.placement].send(("load", one, target.warmup))
    measured: dict[Configuration, Measurement] = {}
    skipped: list[str] = []
    for one in asked:
        answer = _answer(workers[one.runtime, one.placement])
        if isinstance(answer, str):
            skipped.append(f"{one}: {answer}")
        else:
            measured[one] = Measurement(outputs=answer)
    return measured, skipped


def _measure(target: Target, workers: Workers, measured: dict[Configuration, Measurement]) -> None:
    """All configurations take turns, in a new order each round (seeded: the order itself is no source of
    noise).
    """
    order = list(measured)
    seconds, repeats = target.seconds / target.rounds, -(-target.min_repeats // target.rounds)
    for turn in range(target.rounds):
        random.Random(turn).shuffle(order)
        for one in order:
            connection = workers[one.runtime, one.placement]
            connection.send(("time", one, seconds, repeats))
            answer = _answer(connection)
            if isinstance(answer, str):
                raise UserError(f"{one}: stopped during the measurement: {answer}")
            milliseconds, cpu, wall = answer
            measured[one].milliseconds += milliseconds
            measured[one].cpu += cpu
            measured[one].wall += wall


def _answer(connection: Connection) -> Any:
    """A worker's answer; the reason as text when it died or hangs."""
    try:
        if not connection.poll(ANSWER_TIMEOUT):
            return f"no answer within {ANSWER_TIMEOUT:.0f} s"
        return connection.recv()
    except (EOFError, OSError):
        return "its process died"


def _work(
    connection: Connection, runtime: RuntimeName, files: ModelFiles, placement: Placement, images: np.ndarray
) -> None:
    """A worker process: load and time configurations on request until it is ended."""
    setup_environment()
    # Before the runtime is imported: OpenMP and BLAS read these once.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(placement.threads)))
    sessions: dict[Configuration, Infer] = {}
    while True:
        try:
            command, asked, *arguments = connection.recv()
        except EOFError:
            return
        try:
            if command == "load":
                session = open_session(runtime, files, asked.precision, placement, asked.batch)
                connection.send(_load(session, images, asked.batch, *arguments))
                sessions[asked] = session
            else:
                connection.send(_time(sessions[asked], images[: asked.batch], *arguments))
        except NotPossible as reason:
            connection.send(str(reason))
        except Exception as error:  # reported as the reason why this configuration is left out
            connection.send(
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            )


def _load(infer: Infer, images: np.ndarray, batch: int, warmup: int) -> Outputs:
    """Outputs for all images, computed `batch` at a time (the last batch is filled up by repeating), and
    warm-up.
    """
    parts = []
    for start in range(0, len(images), batch):
        part = np.resize(images[start : start + batch], (batch, *images.shape[1:]))
        parts.append([np.array(output) for output in infer(part)])  # copies: a runtime may reuse its buffers
    for _ in range(warmup):
        infer(images[:batch])
    return tuple(np.concatenate(output)[: len(images)] for output in zip(*parts, strict=True))


def _time(infer: Infer, images: np.ndarray, seconds: float, repeats: int) -> tuple[list[float], float, float]:
    """ms of each call, during at least `seconds` and at least `repeats` calls; CPU and wall seconds
    in all.
    """
    milliseconds: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    now = start
    while now - start < seconds or len(milliseconds) < repeats:
        infer(images)
        before, now = now, time.perf_counter()
        milliseconds.append(1000 * (now - before))
    return milliseconds, time.process_time() - cpu, now - start


def _reference(files: ModelFiles, images: np.ndarray) -> Outputs | None:
    """What PyTorch computes in fp32, image by image; None without weights."""
    if files.weights is None:
        return None
    return _load(open_session("pytorch", files), images, batch=1, warmup=0)


def _summary(
    configuration: Configuration, measured: Measurement, card: ModelCard, reference: Outputs | None
) -> dict[str, Any]:
    """The published figures of one configuration."""
    p50, p95 = np.percentile(measured.milliseconds, [50, 95])
    row: dict[str, Any] = {
        "runtime": configuration.runtime,
        "precision": configuration.precision,
        "threads": configuration.placement.threads,
        "batch": configuration.batch,
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
        "min_ms": round(min(measured.milliseconds), 3),
        "images_per_s": round(1000 * configuration.batch / float(p50), 1),
        "repeats": len(measured.milliseconds),
        "cores_used": round(measured.cpu / measured.wall, 2),
        "max_diff": None,
        "keypoints_px_mean": None,
        "keypoints_px_max": None,
    }
    if reference is None:
        return row
    # Late: it imports torch, which a worker must not do before it has set its number of threads.
    from rtmpose.deploy.export import differences

    return row | differences(measured.outputs, reference, card.codec())


def _check_budgets(target: Target, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each budget beside what was measured; a configuration that was not measured has not kept its budget."""
    checked = []
    for budget in target.budgets:
        name = _short(budget.model_dump() | {"threads": thread_count(budget.threads)})
        measured = next((result["p50_ms"] for result in results if _short(result) == name), None)
        kept = measured is not None and measured <= budget.p50_ms
        checked.append(
            {"configuration": name, "p50_ms": budget.p50_ms, "measured_ms": measured, "kept": kept}
        )
    return checked
