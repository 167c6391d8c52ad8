"""Configurations that are measured, each in a process of its own, which waits for its turn.

So a thread count holds from the process's first moment, its peak of memory is its own, and its start is one
that a user would see. Nothing here imports a runtime, or torch, before the process knows its threads.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, Literal

import numpy as np

from rtmpose.config import setup_environment
from rtmpose.deploy.meters import Counter, energy_counters, gpu_memory_mb, peak_memory_mb
from rtmpose.deploy.preparation import Preparation
from rtmpose.deploy.runtimes.base import (
    Infer,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    RuntimeName,
    Session,
    Spent,
)
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.files import UserError, one_line

ANSWER_TIMEOUT = 300.0  # seconds a worker may take for one answer before it counts as hung
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Start = Literal["spawn", "forkserver"]
STARTS: dict[Start, SpawnContext | ForkServerContext] = {
    "spawn": multiprocessing.get_context("spawn"),
    "forkserver": multiprocessing.get_context("forkserver"),
}

Outputs = tuple[np.ndarray, ...]
Change = Callable[[Infer, np.ndarray], Infer]  # of a model, which may try it on a batch


@dataclass(frozen=True)
class Configuration:
    """What is measured: a runtime in one precision, in one place, on batches of one size. `model` names
    another model that is measured beside.
    """

    runtime: RuntimeName
    precision: Precision
    placement: Placement
    batch: int
    model: str = ""

    def __str__(self) -> str:
        whose = f"{self.model} " if self.model else ""
        return f"{whose}{self.runtime} {self.precision} threads={self.placement.threads} batch={self.batch}"


@dataclass(frozen=True)
class Opened:
    """A worker is ready: its outputs for the probe images, what it runs in, and how long its first answer
    took, s: from the start of the process, and from when the runtime began to open the file.
    """

    outputs: Outputs
    version: str
    device: str
    startup_s: float
    open_s: float


@dataclass(frozen=True)
class Turn:
    """One round of one configuration: ms of each call; CPU, wall seconds and joules (None: not told) in
    all.
    """

    milliseconds: list[float]
    cpu: float
    wall: float
    joules: float | None


@dataclass(frozen=True)
class Memory:
    """The most that the process had, MB, and the one that its runtime is in, where that is another; and what
    it holds of a GPU (None: not told).
    """

    peak_mb: float
    gpu_mb: float | None


@dataclass(frozen=True)
class Measurement:
    """Raw results of one configuration: how it started, one turn for each round, and its memory."""

    opened: Opened
    turns: list[Turn]
    memory: Memory

    @property
    def milliseconds(self) -> list[list[float]]:
        """Of each call, by rounds."""
        return [turn.milliseconds for turn in self.turns]

    @property
    def medians(self) -> list[float]:
        """Of each round, ms."""
        return [float(np.median(calls)) for calls in self.milliseconds]


Measured = dict[Configuration, Measurement]
Asked = Mapping[Configuration, tuple[ModelFiles, np.ndarray]]  # the model of each, and its images


class Worker:
    """The process of one configuration, and what is asked of it."""

    def __init__(
        self,
        one: Configuration,
        files: ModelFiles,
        images: np.ndarray,
        warmup: int,
        change: Change | None = None,
        start: Start = "spawn",
    ) -> None:
        """Start the process; images (N, 3, H, W) are the probes, N at least the batch. `change` is made to
        what is timed, in the process itself. `start` is how multiprocessing starts it.
        """
        self.one = one
        context = STARTS[start]
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, one, files, images, warmup, change, time.monotonic())
        self.process: BaseProcess = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()  # else a worker's death would not be seen as the end of its pipe

    def opened(self) -> Opened | str:
        """What it says when it is ready; the reason as text when it cannot run, died or hangs."""
        answer: Opened | str = self._answer()
        return answer

    def turn(self, seconds: float, calls: int) -> Turn:
        """Time it for at least so many seconds and calls; UserError where it died or hangs."""
        answer: Turn = self._ask(("time", seconds, calls))
        return answer

    def memory(self) -> Memory:
        answer: Memory = self._ask(("memory",))
        return answer

    def end(self) -> None:
        if self.process.is_alive():  # else its number may be that of another process by now
            self.process.kill()
        self.process.join()
        self.pipe.close()

    def _ask(self, question: tuple[Any, ...]) -> Any:
        try:
            self.pipe.send(question)
            answer = self._answer()
        except OSError:
            answer = "its process died"
        if isinstance(answer, str):
            raise UserError(f"{self.one}: stopped during the measurement: {answer}")
        return answer

    def _answer(self) -> Any:
        try:
            if not self.pipe.poll(ANSWER_TIMEOUT):
                return f"no answer within {ANSWER_TIMEOUT:.0f} s"
            return self.pipe.recv()
        except (EOFError, OSError):
            return "its process died"


@contextmanager
def started(asked: Asked, warmup: int) -> Iterator[tuple[dict[Worker, Opened], list[str]]]:
    """Start one worker after the other, so that no start disturbs another, each when what it opens has been
    made; those that are ready, and why the others are not. All are gone when the block is left, however it is
    left.
    """
    ready: dict[Worker, Opened] = {}
    skipped: list[str] = []
    preparation = Preparation()
    try:
        for one, (files, images) in asked.items():
            reason = preparation.reason(one.runtime, files, one.precision, one.placement, one.batch)
            if reason is not None:
                skipped.append(f"{one}: {reason}")
                continue
            worker = Worker(one, files, images, warmup)
            answer: Opened | str = "not asked yet"
            try:
                answer = worker.opened()
            finally:
                if isinstance(answer, str):
                    worker.end()
            if isinstance(answer, str):
                skipped.append(f"{one}: {answer}")
            else:
                ready[worker] = answer
        yield ready, skipped
    finally:
        for worker in ready:
            worker.end()


def work(
    pipe: Connection,
    one: Configuration,
    files: ModelFiles,
    images: np.ndarray,
    warmup: int,
    change: Change | None,
    began: float,
) -> None:
    """A worker process: open the configuration, then answer until it is ended. `began`: when it was started,
    by the monotonic clock, which all processes share.
    """
    setup_environment()
    # Before the runtime is imported: OpenMP and BLAS read these once.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(one.placement.threads)))
    try:
        session, opened = _open(one, files, images, warmup, began)
        infer = session if change is None else change(session, images[: one.batch])
        elsewhere = session.elsewhere or _nothing
        counters, _ = energy_counters()
        pipe.send(opened)
        while True:
            question, *arguments = pipe.recv()
            if question == "time":
                pipe.send(_time(infer, images[: one.batch], counters, elsewhere, *arguments))
            else:
                pipe.send(Memory(peak_memory_mb() + elsewhere().peak_mb, gpu_memory_mb()))
    except EOFError:
        return
    except NotPossible as reason:
        pipe.send(str(reason))
    except Exception as error:  # reported as the reason why this configuration is left out
        pipe.send(f"{type(error).__name__}: {one_line(error)[:300]}")


def _open(
    one: Configuration, files: ModelFiles, images: np.ndarray, warmup: int, began: float
) -> tuple[Session, Opened]:
    opening = time.monotonic()
    session = open_session(one.runtime, files, one.precision, one.placement, one.batch)
    session(images[: one.batch])
    now = time.monotonic()
    outputs = all_outputs(session, images, one.batch, warmup)
    return session, Opened(outputs, session.version, session.device, now - began, now - opening)


def all_outputs(infer: Infer, images: np.ndarray, batch: int, warmup: int = 0) -> Outputs:
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


def _nothing() -> Spent:
    """What is spent elsewhere by a runtime of this very process."""
    return Spent(0.0, 0.0)


def _time(
    infer: Infer,
    images: np.ndarray,
    counters: Sequence[Counter],
    elsewhere: Callable[[], Spent],
    seconds: float,
    calls: int,
) -> Turn:
    """One turn. Its first call finds the caches as the others have left them: it is not timed."""
    infer(images)
    before = [counter.read() for counter in counters]
    milliseconds: list[float] = []
    cpu = elsewhere().cpu_s + time.process_time()
    start = time.perf_counter()
    now = start
    while now - start < seconds or len(milliseconds) < calls:
        infer(images)
        last, now = now, time.perf_counter()
        milliseconds.append(1000 * (now - last))
    spent = time.process_time() + elsewhere().cpu_s - cpu
    joules = sum(counter.since(first) for counter, first in zip(counters, before, strict=True))
    return Turn(milliseconds, spent, now - start, joules if counters else None)
