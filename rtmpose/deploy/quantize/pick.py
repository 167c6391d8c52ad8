"""Which runtime and precision a target gets: the fastest of those that the gate lets pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rtmpose.config import Strict
from rtmpose.deploy.quantize.attempt import EXACTNESS, Attempt, Latency, refused
from rtmpose.deploy.report import broken
from rtmpose.deploy.runtimes.base import DeviceKind, tried_name
from rtmpose.deploy.targets import Budget


class Pick(Strict):
    """What a target gets (None: nothing passes) for calls of one batch size on one number of threads, and
    every attempt with its latency there and the reasons against it.
    """

    picked: str | None
    batch: int
    threads: int
    attempts: tuple[Attempt, ...]


Broken = Mapping[str, Sequence[str]]  # the limits that an attempt breaks, by its name


def pick(
    attempts: Sequence[Attempt],
    latencies: Mapping[str, Latency],
    limits: Broken | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
) -> Pick:
    """The fastest attempt, by p50, that passes; `latencies` and broken `limits` by the attempts' names.

    Refused are what was not measured, what breaks a limit, and what gives up exactness without being faster
    than the same runtime in a more exact precision that passes.
    """
    last = {one.name: number for number, one in enumerate(attempts)}
    timed = [
        _timed(one, latencies.get(one.name), (limits or {}).get(one.name, ()))
        if last[one.name] == number
        else refused(one, "another attempt's file has taken its place")
        for number, one in enumerate(attempts)
    ]
    timed = [_worth_it(one, timed) for one in timed]
    best = min((one for one in timed if not one.refused), key=_speed, default=None)
    return Pick(picked=best.name if best else None, batch=batch, threads=threads, attempts=tuple(timed))


def _speed(attempt: Attempt) -> float:
    assert attempt.latency is not None
    return attempt.latency.p50_ms


def _timed(attempt: Attempt, latency: Latency | None, limits: Sequence[str]) -> Attempt:
    if latency is None:
        return refused(attempt, "its latency was not measured on this target")
    return refused(attempt.model_copy(update={"latency": latency}), *limits)


def _worth_it(attempt: Attempt, others: Sequence[Attempt]) -> Attempt:
    """Refused where a more exact precision of the same runtime passes and is as fast."""
    if attempt.latency is None or attempt.refused:
        return attempt
    for other in others:
        exacter = EXACTNESS.index(other.precision) < EXACTNESS.index(attempt.precision)
        passes = not other.refused and other.latency is not None
        if other.runtime == attempt.runtime and exacter and passes and _speed(other) <= _speed(attempt):
            return refused(
                attempt,
                f"is no faster ({_speed(attempt):.2f} ms) than {other.precision} ({_speed(other):.2f} ms), "
                "which is more exact",
            )
    return attempt


def picks_of(
    attempts: Sequence[Attempt],
    report: Mapping[str, Any],
    budgets: Sequence[Budget] = (),
    device: DeviceKind = "cpu",
) -> list[Pick]:
    """A pick among the attempts on the target's `device` for each batch size and number of threads of its
    benchmark's report. The target's own comes first: single images on all threads.

    budgets: the target's; every limit counts where batch, threads, runtime and precision fit.
    """
    cells = sorted({(row["batch"], -row["threads"]) for row in report["results"]})
    attempts = [one for one in attempts if one.device == device]
    found = []
    for batch, negative in cells:
        threads = -negative
        rows = [row for row in report["results"] if (row["batch"], row["threads"]) == (batch, threads)]
        names = [tried_name(row["runtime"], row["precision"], device) for row in rows]
        latencies = {name: _latency(row) for name, row in zip(names, rows, strict=True)}
        limits = {name: broken(row, budgets) for name, row in zip(names, rows, strict=True)}
        found.append(pick(attempts, latencies, limits, batch=batch, threads=threads))
    return found


def refuse_elsewhere(attempts: Sequence[Attempt], judged_on: str, target: str) -> list[Attempt]:
    """Attempts that were judged on the architecture `judged_on`, for a `target` of another one: kernels of
    low precision differ there, and only float32 counts on both.
    """
    if judged_on == target:
        return list(attempts)
    reason = (
        f"its AP was measured on {judged_on}, not on {target}: run the stage `benchmark` there, with the "
        "evaluation shards"
    )
    return [one if one.precision == "fp32" else refused(one, reason) for one in attempts]


def _latency(row: Mapping[str, Any]) -> Latency:
    return Latency(p50_ms=row["p50_ms"], p95_ms=row["p95_ms"], p99_ms=row.get("p99_ms"))
