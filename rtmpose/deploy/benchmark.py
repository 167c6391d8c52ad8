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
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from rtmpose.config import Precision, Strict, parse, setup_environment
from rtmpose.deploy.runtimes.base import (
    Infer,
    ModelFiles,
    NotPossible,
    RuntimeName,
    bf16_instructions,
    cpu_flags,
    cpu_name,
    open_session,
)
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import UserError, data_file, read_yaml

ANSWER_TIMEOUT = 300.0  # seconds a worker may take for one answer before it counts as hung
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class RuntimeSpec(Strict):
    """One runtime and the precisions to try in it."""

    name: RuntimeName
    precisions: tuple[Precision, ...] = Field(min_length=1)


class Budget(Strict):
    """The largest p50 latency, ms per call, that a configuration may have."""

    runtime: RuntimeName
    precision: Precision
    batch: int = Field(ge=1)
    threads: PositiveInt | Literal["all"]
    p50_ms: float = Field(gt=0)


class Target(Strict):
    """A `deploy_targets/*.yaml`: hardware, runtimes × precisions to try, batch sizes, threads, how long,
    budgets.
    """

    name: str
    hardware: str
    architecture: Literal["x86_64", "aarch64"]
    runner: str
    runtimes: tuple[RuntimeSpec, ...] = Field(min_length=1)
    batch_sizes: tuple[PositiveInt, ...] = Field(min_length=1)
    threads: tuple[PositiveInt | Literal["all"], ...] = Field(min_length=1)
    warmup: int = Field(5, ge=0)
    rounds: int = Field(6, ge=1)
    seconds: float = Field(0.6, gt=0)
    min_repeats: int = Field(12, ge=1)
    budgets: tuple[Budget, ...] = ()

    def thread_counts(self) -> tuple[int, ...]:
        """Thread counts on this machine, each once: `all` is every core this process may use."""
        return tuple(dict.fromkeys(_threads(count) for count in self.threads))


Workers = dict[tuple[RuntimeName, int], Connection]


@dataclass(frozen=True)
class Cell:
    """One configuration."""

    runtime: RuntimeName
    precision: Precision
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision} threads={self.threads} batch={self.batch}"


@dataclass
class Measurement:
    """Raw results of one cell: ms per call, CPU and wall seconds, outputs for the probe images."""

    outputs: tuple[np.ndarray, np.ndarray]
    milliseconds: list[float] = field(default_factory=list)
    cpu: float = 0.0
    wall: float = 0.0


def load_target(name: str) -> Target:
    """Read `deploy_targets/<name>.yaml`, or the file `name` itself; UserError naming file and key."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else data_file(f"deploy_targets/{name}.yaml")
    return parse(Target, read_yaml(path), path)


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
    read_card(files.onnx)  # a damaged file is the user's to mend, not a reason to skip every configuration
    setup_environment()
    images = np.resize(images, (max(*target.batch_sizes, len(images)), *images.shape[1:]))
    started, load = time.time(), os.getloadavg()[0]
    with _workers(target, files, images) as workers:
        cells, skipped = _prepare(target, workers)
        _measure(target, workers, cells)
    if not cells:
        raise UserError(f"target {target.name}: nothing could be measured; {skipped[0]}")
    reference = _reference(files, images)
    results = [_summary(cell, measured, reference) for cell, measured in cells.items()]
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


def machine() -> dict[str, Any]:
    """The CPU, its cores and relevant instruction sets, the system, and the versions measured."""
    versions = {}
    for package in ("torch", "onnxruntime", "openvino", "onnx", "numpy"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    relevant = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "sve"} & cpu_flags()
    return {
        "cpu": cpu_name(),
        "cores": _threads("all"),
        "cores_online": os.cpu_count(),
        "flags": sorted(relevant | bf16_instructions()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
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


def _threads(count: int | Literal["all"]) -> int:
    return len(os.sched_getaffinity(0)) if count == "all" else count


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
            for threads in target.thread_counts():
                ours, theirs = context.Pipe()
                arguments = (theirs, runtime.name, files, threads, images)
                process = context.Process(target=_work, args=arguments, daemon=True)
                process.start()
                theirs.close()  # else a worker's death would not be seen as the end of its pipe
                processes.append(process)
                pipes[runtime.name, threads] = ours
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _prepare(target: Target, workers: Workers) -> tuple[dict[Cell, Measurement], list[str]]:
    """Load and warm up every configuration, all workers at once; those that cannot run give a
    reason instead.
    """
    asked: list[Cell] = []
    skipped: list[str] = []
    for runtime in target.runtimes:
        for threads in target.thread_counts():
            for precision in runtime.precisions:
                asked += [Cell(runtime.name, precision, threads, batch) for batch in target.batch_sizes]
    for cell in (
        asked
    ):  # requests are small: a large one would wait for a worker that waits for its answer to be read
        with suppress(OSError):  # a worker that died already is noticed, and named, when its answer is read
            workers[cell.runtime, cell.threads].send(("load", cell, target.warmup))
    cells: dict[Cell, Measurement] = {}
    for cell in asked:
        answer = _answer(workers[cell.runtime, cell.threads])
        if isinstance(answer, str):
            skipped.append(f"{cell}: {answer}")
        else:
            cells[cell] = Measurement(outputs=answer)
    return cells, skipped


def _measure(target: Target, workers: Workers, cells: dict[Cell, Measurement]) -> None:
    """All configurations take turns, in a new order each round (seeded: the order itself is no source of
    noise).
    """
    order = list(cells)
    seconds, repeats = target.seconds / target.rounds, -(-target.min_repeats // target.rounds)
    for turn in range(target.rounds):
        random.Random(turn).shuffle(order)
        for cell in order:
            connection = workers[cell.runtime, cell.threads]
            connection.send(("time", cell, seconds, repeats))
            answer = _answer(connection)
            if isinstance(answer, str):
                raise UserError(f"{cell}: stopped during the measurement: {answer}")
            milliseconds, cpu, wall = answer
            cells[cell].milliseconds += milliseconds
            cells[cell].cpu += cpu
            cells[cell].wall += wall


def _answer(connection: Connection) -> Any:
    """A worker's answer; the reason as text when it died or hangs."""
    try:
        if not connection.poll(ANSWER_TIMEOUT):
            return f"no answer within {ANSWER_TIMEOUT:.0f} s"
        return connection.recv()
    except (EOFError, OSError):
        return "its process died"


def _work(
    connection: Connection, runtime: RuntimeName, files: ModelFiles, threads: int, images: np.ndarray
) -> None:
    """A worker process: load and time configurations on request until it is ended."""
    setup_environment()
    # Before the runtime is imported: OpenMP and BLAS read these once.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    sessions: dict[Cell, Infer] = {}
    while True:
        try:
            command, cell, *arguments = connection.recv()
        except EOFError:
            return
        try:
            if command == "load":
                sessions[cell] = open_session(runtime, files, cell.precision, threads, cell.batch)
                connection.send(_load(sessions[cell], images, cell.batch, *arguments))
            else:
                connection.send(_time(sessions[cell], images[: cell.batch], *arguments))
        except NotPossible as reason:
            connection.send(str(reason))
        except Exception as error:  # reported as the reason why this configuration is left out
            connection.send(
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            )


def _load(infer: Infer, images: np.ndarray, batch: int, warmup: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs for all images, computed `batch` at a time (the last batch is filled up by repeating), and
    warm-up.
    """
    x, y = [], []
    for start in range(0, len(images), batch):
        part = np.resize(images[start : start + batch], (batch, *images.shape[1:]))
        outputs = infer(part)
        x.append(np.array(outputs[0]))  # copies: a runtime may reuse its output buffers
        y.append(np.array(outputs[1]))
    for _ in range(warmup):
        infer(images[:batch])
    return np.concatenate(x)[: len(images)], np.concatenate(y)[: len(images)]


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


def _reference(files: ModelFiles, images: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """What PyTorch computes in fp32, image by image; None without weights."""
    if files.weights is None:
        return None
    infer = open_session("pytorch", files, "fp32", threads=1, batch=1)
    return _load(infer, images, batch=1, warmup=0)


def _summary(
    cell: Cell, measured: Measurement, reference: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, Any]:
    """The published figures of one configuration."""
    p50, p95 = np.percentile(measured.milliseconds, [50, 95])
    row: dict[str, Any] = {
        "runtime": cell.runtime,
        "precision": cell.precision,
        "threads": cell.threads,
        "batch": cell.batch,
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
        "min_ms": round(min(measured.milliseconds), 3),
        "images_per_s": round(1000 * cell.batch / float(p50), 1),
        "repeats": len(measured.milliseconds),
        "cores_used": round(measured.cpu / measured.wall, 2),
        "max_diff": None,
        "keypoints_px_mean": None,
        "keypoints_px_max": None,
    }
    if reference is None:
        return row
    from rtmpose.deploy.export import (
        differences,  # late: it imports torch, which the workers must do themselves
    )

    return row | differences(measured.outputs, reference)


def _check_budgets(target: Target, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each budget beside what was measured; a configuration that was not measured has not kept its budget."""
    checked = []
    for budget in target.budgets:
        name = _short(budget.model_dump() | {"threads": _threads(budget.threads)})
        measured = next((result["p50_ms"] for result in results if _short(result) == name), None)
        kept = measured is not None and measured <= budget.p50_ms
        checked.append(
            {"configuration": name, "p50_ms": budget.p50_ms, "measured_ms": measured, "kept": kept}
        )
    return checked
