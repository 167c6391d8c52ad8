"""Damaged and hostile files of every kind, read as a user would have them read.

    python -m tests.faults.fuzz [--seed 1] [--count 1000] [--workers 2] [--kind NAME] [--show]

Each input is read in a worker process with a limit of time and memory. The last line is one JSON object: how
many were tried; `clear`: refused in one line that names the file; `fine`: read, and the result is right;
`traceback`: any other exception, a message that names no file, or the end of the process; `silent`: read, but
the result is wrong; `hang`: no end within the time.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType

import cv2
import numpy as np
import psutil
import torch

from rtmpose.files import UserError
from tests.faults.inputs import kinds
from tests.faults.kind import Kind
from tests.faults.mutations import MARK

SECONDS = 20  # for one input; twice as long before its process is ended from outside
MEMORY = 2 << 30  # bytes beyond what a worker starts with
OUTCOMES = ("clear", "fine", "traceback", "silent", "hang")
Result = tuple[int, str, str]  # number, outcome, what to show of it
# (seed, count, workers, kind) -> the line, and what went wrong
Attempt = Callable[[int, int, int, str], tuple[dict[str, int], list[str]]]


class TooSlow(BaseException):
    """The time for one input is over; no `except Exception` on the way may take it for damage."""


def main(description: str | None = __doc__, attempt: Attempt | None = None) -> None:
    """The command line of a fuzzer: `attempt` tries the inputs, `fuzz` by default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kind", default="", help="only kinds whose name begins so")
    parser.add_argument("--show", action="store_true", help="say more of what went wrong")
    options = parser.parse_args()
    line, wrong = (attempt or fuzz)(options.seed, options.count, options.workers, options.kind)
    for text in wrong:
        print(text if options.show else text.splitlines()[0], file=sys.stderr)
    print(json.dumps(line))
    sys.exit(1 if any(line[name] for name in OUTCOMES[2:]) else 0)


def fuzz(seed: int, count: int, workers: int = 2, only: str = "") -> tuple[dict[str, int], list[str]]:
    """Try `count` inputs -> the line, and what went wrong. The same seed tries the same inputs."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    before = Path.cwd()
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            found += _spread(Path(folder), seed, count, workers, only)
        finally:
            os.chdir(before)
        if list(Path(folder).rglob(MARK)):
            raise AssertionError("a file was executed")
    counts = Counter(outcome for _, outcome, _ in found)
    wrong = [
        f"{number} {outcome}: {text}" for number, outcome, text in sorted(found) if outcome in OUTCOMES[2:]
    ]
    return {"tried": len(found)} | {name: counts[name] for name in OUTCOMES}, wrong


def _spread(folder: Path, seed: int, count: int, workers: int, only: str) -> Iterator[Result]:
    """Every worker takes each n-th input; one that ends is followed by another, which goes on behind it."""
    running = {}
    for which in range(workers):
        place = folder / str(which)
        place.mkdir()
        made = [kind for kind in kinds(place) if kind.name.startswith(only)]
        running[which] = _Worker(made, place, seed, range(which, count, workers))
    while running:
        ready = wait([worker.connection for worker in running.values()], timeout=1.0)
        for which, worker in list(running.items()):
            if worker.connection in ready:
                try:
                    yield worker.received()
                except EOFError:
                    if worker.next is not None:
                        yield worker.died()
            elif worker.is_late():
                yield worker.stopped()
            if worker.next is None:
                worker.end()
                del running[which]


class _Worker:
    """A forked process that tries inputs one after another, and a new one in its place when it ends."""

    def __init__(self, made: list[Kind], folder: Path, seed: int, numbers: range) -> None:
        self.made, self.folder, self.seed, self.numbers = made, folder, seed, numbers
        self.done = 0
        self._start()

    @property
    def next(self) -> int | None:
        return self.numbers[self.done] if self.done < len(self.numbers) else None

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        rest = self.numbers[self.done :]
        self.process: ForkProcess = context.Process(
            target=_work, args=(theirs, self.made, self.folder, self.seed, rest), daemon=True
        )
        self.process.start()
        theirs.close()
        self.since = time.monotonic()

    def received(self) -> Result:
        result: Result = self.connection.recv()
        self.done += 1
        self.since = time.monotonic()
        return result

    def is_late(self) -> bool:
        return time.monotonic() - self.since > 2 * SECONDS + 10

    def died(self) -> Result:
        self.process.join()
        return self._lost("traceback", f"the process ended with {self.process.exitcode}")

    def stopped(self) -> Result:
        self.process.kill()
        self.process.join()
        return self._lost("hang", "the process had to be ended")

    def _lost(self, outcome: str, text: str) -> Result:
        number = self.numbers[self.done]
        kind, _ = drawn(self.made, self.seed, number)
        self.done += 1
        self.connection.close()
        if self.next is not None:
            self._start()
        return number, outcome, f"{kind.name}: {text}"

    def end(self) -> None:
        self.process.join(10)
        self.connection.close()


def drawn(made: list[Kind], seed: int, number: int) -> tuple[Kind, np.random.Generator]:
    """The kind of an input, and the generator of its damage."""
    rng = np.random.default_rng((seed, number))
    shares = np.array([kind.share for kind in made])
    return made[rng.choice(len(made), p=shares / shares.sum())], rng


def _work(connection: Connection, made: list[Kind], folder: Path, seed: int, numbers: range) -> None:
    os.chdir(folder)
    warnings.simplefilter("ignore")
    limit = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _too_slow)
    for number in numbers:
        kind, rng = drawn(made, seed, number)
        connection.send((number, *attempt(kind, rng)))


def _too_slow(_: int, __: FrameType | None) -> None:
    raise TooSlow


def attempt(kind: Kind, rng: np.random.Generator) -> tuple[str, str]:
    """Damage an input and read it -> the outcome, and what to show of it."""
    try:
        path = kind.spoil(rng)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            right = kind.read()
        return ("fine", kind.name) if right else ("silent", kind.name)
    except UserError as error:
        text = str(error)
        if "\n" in text or path.name not in text:
            return "traceback", f"{kind.name}: no clear line: {text[:300]!r}"
        return "clear", kind.name
    except TooSlow:
        return "hang", f"{kind.name}\n{traceback.format_exc()}"
    except BaseException as error:
        return "traceback", f"{kind.name}: {error!r:.300}\n{traceback.format_exc()}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
