"""What an exported model costs in several runtimes on this machine, and how far each is from PyTorch in fp32.

Every configuration is a process of its own. All of them stay up and take turns in short rounds, in a new
order each round, so that whatever else the machine does hits every configuration alike; a configuration is
compared with the reference round by round. CPU time per wall time is reported, which shows whether a thread
count held.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from rtmpose.config import setup_environment
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.machine import gpu_name, machine
from rtmpose.deploy.meters import energy_counters
from rtmpose.deploy.report import check_budgets, short
from rtmpose.deploy.rival import Rival
from rtmpose.deploy.runtimes.base import ModelFiles, tried_name
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.deploy.sizes import file_mb, sources
from rtmpose.deploy.statistics import paired_ratio, quantile_interval
from rtmpose.deploy.targets import Reference, Target
from rtmpose.deploy.workers import (
    Asked,
    Configuration,
    Measured,
    Measurement,
    Opened,
    Outputs,
    Turn,
    Worker,
    all_outputs,
    started,
)
from rtmpose.files import UserError, sha256_of

DUEL = 4  # times as many rounds for the calls in which a rival is compared: the interval halves
P99_CALLS = 100  # fewer calls have no such quantile but their largest
LONGER = 2.5  # times as long as the others may the target's own calls take, to be so many
# What is kept of every configuration under the report's top level, by name: DVC and MLflow compare these.
COMPARED = (
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "images_per_s",
    "ratio",
    "memory_mb",
    "gpu_memory_mb",
    "startup_s",
    "file_mb",
    "joules_per_image",
)


def run(
    target: Target,
    files: ModelFiles,
    images: np.ndarray,
    ap_loss: Mapping[str, float] | None = None,
    rival: Rival | None = None,
) -> dict[str, Any]:
    """Measure every configuration of `target` on this machine.

    images: normalised float32 (N, 3, H, W), both the timed input and the one on which outputs are compared;
    fewer than the largest batch are repeated. ap_loss: lost points of AP by `tried_name`, where they were
    measured. rival: another model that takes its turns among them. Returns {target, measured_at, machine,
    protocol, reference, compared_with, energy, results, skipped, budgets, files, rival} and the figures of
    `COMPARED` by configuration; `files` are hashes.
    """
    target.refuse_elsewhere()
    card = read_card(files.onnx)  # a damaged file is the user's to mend, no reason to skip all configurations
    setup_environment()
    images = np.resize(images, (max(*target.batch_sizes, len(images)), *images.shape[1:]))
    asked = _asked(target, files, images, rival)
    hashes = _hashes(
        asked
    )  # before: a file that is written anew meanwhile must not pass for the measured one
    began, load, duel = time.time(), os.getloadavg()[0], DUEL if rival else 1
    with started(asked, target.warmup) as (ready, skipped):
        measured = _take_turns(target, ready, duel)
    own = [one for one in measured if not one.model]
    if not own:
        raise UserError(f"target {target.name}: nothing could be measured; {skipped[0]}")
    reference = _reference(files, images)
    results = [_row(one, measured, target.reference, card, reference) for one in own]
    for one, row in zip(own, results, strict=True):
        row["file_mb"] = file_mb(files, one.runtime, one.precision)
        row["files"] = [path.name for path in sources(files, one.runtime, one.precision)]
        row["beside_rival"] = None if rival is None else rival.costs(one, measured, row["file_mb"])
        row["ap_loss"] = (ap_loss or {}).get(tried_name(row["runtime"], row["precision"], target.device))
    compared, gpu = target.reference, {"gpu": gpu_name()} if target.device == "gpu" else {}
    return {
        "target": target.name,
        "measured_at": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "machine": machine() | gpu | {"load_average_before": round(load, 2)},
        "protocol": _protocol(target, images, time.time() - began, duel),
        "reference": "pytorch fp32" if reference else None,
        "compared_with": f"{compared.runtime} {compared.precision} at the same threads and batch",
        "energy": _energy(results),
        "results": results,
        "skipped": skipped,
        "budgets": check_budgets(target.budgets, results),
        "files": hashes,
        "rival": None if rival is None else rival.report(measured, skipped),
    } | {name: {short(row): row[name] for row in results if row[name] is not None} for name in COMPARED}


def _asked(target: Target, files: ModelFiles, images: np.ndarray, rival: Rival | None) -> Asked:
    """Every configuration of the target, and the rival's for the same calls."""
    own = [
        Configuration(runtime.name, precision, placement, batch)
        for runtime in target.runtimes
        for placement in target.placements()
        for precision in runtime.precisions
        for batch in target.batch_sizes
    ]
    asked = dict.fromkeys(own, (files, images))
    if rival is not None:
        theirs = rival.files, np.resize(rival.images, (len(images), *rival.images.shape[1:]))
        asked |= dict.fromkeys(map(rival.beside, own), theirs)
    return asked


def _hashes(asked: Asked) -> dict[str, str]:
    """Of every file that the model's own configurations are opened from, by its name."""
    own = [(one, files) for one, (files, _) in asked.items() if not one.model]
    paths = {path for one, files in own for path in sources(files, one.runtime, one.precision)}
    return {path.name: sha256_of(path) for path in sorted(paths)}


def _take_turns(target: Target, ready: Mapping[Worker, Opened], duel: int) -> Measured:
    """All configurations take turns, in a new order each round: chance, not a place in the order, decides
    what meets whom. Seeded, so that a run can be repeated. The target's own calls get `duel` times the
    rounds, and are enough for a p99 where that does not take too long.
    """
    order: Sequence[Worker] = list(ready)
    turns: dict[Worker, list[Turn]] = {worker: [] for worker in order}
    seconds, calls = target.seconds / target.rounds, -(-target.min_repeats // target.rounds)
    own = [worker for worker in order if target.is_own_call(worker.one.placement, worker.one.batch)]
    chance, rounds = random.Random(0), target.rounds * duel
    for number in range(rounds):
        if number == target.rounds:
            order = own
        for worker in chance.sample(order, len(order)):
            more = calls_for_p99(turns[worker], rounds - number, seconds) if worker in own else 0
            turns[worker].append(worker.turn(seconds, max(calls, more)))
    return {
        worker.one: Measurement(opened, turns[worker], worker.memory()) for worker, opened in ready.items()
    }


def calls_for_p99(turns: Sequence[Turn], left: int, seconds: float) -> int:
    """How many calls each of the turns that are left has to take for a p99; 0 where that is not known yet, or
    would take too long beside the `seconds` of a turn.
    """
    if not turns:
        return 0
    wanted = -(-(P99_CALLS - sum(len(turn.milliseconds) for turn in turns)) // left)
    typical = float(np.median(turns[-1].milliseconds)) / 1000
    return max(wanted, 0) if wanted * typical <= LONGER * seconds else 0


def _reference(files: ModelFiles, images: np.ndarray) -> Outputs | None:
    """What PyTorch computes in fp32, image by image; None without weights."""
    if files.weights is None:
        return None
    return all_outputs(open_session("pytorch", files), images, batch=1)


def _row(
    one: Configuration,
    measured: Measured,
    reference: Reference,
    card: ModelCard,
    outputs: Outputs | None,
) -> dict[str, Any]:
    """The published figures of one configuration."""
    mine = measured[one]
    row: dict[str, Any] = {
        "runtime": one.runtime,
        "precision": one.precision,
        "threads": one.placement.threads,
        "batch": one.batch,
        "version": mine.opened.version,
        "device": mine.opened.device,
        **_times(mine, one.batch),
        "startup_s": round(mine.opened.startup_s, 3),
        "open_s": round(mine.opened.open_s, 3),
        "memory_mb": round(mine.memory.peak_mb, 1),
        "gpu_memory_mb": None if mine.memory.gpu_mb is None else round(mine.memory.gpu_mb, 1),
        "ratio": None,
        "ratio_interval": None,
        "max_diff": None,
        "keypoints_px_mean": None,
        "keypoints_px_max": None,
    }
    other = measured.get(Configuration(reference.runtime, reference.precision, one.placement, one.batch))
    if other is not None:
        row |= paired_ratio(mine.medians, other.medians).facts()
    if outputs is None:
        return row
    # Late: it imports torch, which a worker must not do before it has set its number of threads.
    from rtmpose.deploy.export import differences

    return row | differences(mine.opened.outputs, outputs, card.codec())


def _times(mine: Measurement, batch: int) -> dict[str, Any]:
    """Latency, throughput, cores and energy over all calls; p99 is None where there are too few."""
    calls = np.concatenate(mine.milliseconds)
    wall, joules = sum(turn.wall for turn in mine.turns), [turn.joules for turn in mine.turns]
    told = [each for each in joules if each is not None]
    interval = quantile_interval(mine.milliseconds, 0.5)
    return {
        "p50_ms": round(float(np.median(calls)), 3),
        "p50_interval": None if interval is None else [round(end, 3) for end in interval],
        "p95_ms": round(float(np.quantile(calls, 0.95)), 3),
        "p99_ms": round(float(np.quantile(calls, 0.99)), 3) if len(calls) >= P99_CALLS else None,
        "min_ms": round(float(calls.min()), 3),
        "images_per_s": round(batch * len(calls) / wall, 1),
        "repeats": len(calls),
        "cores_used": round(sum(turn.cpu for turn in mine.turns) / wall, 2),
        "joules_per_image": round(sum(told) / (batch * len(calls)), 6) if len(told) == len(joules) else None,
    }


def _protocol(target: Target, images: np.ndarray, seconds: float, duel: int) -> dict[str, Any]:
    return target.model_dump(include={"warmup", "rounds", "seconds", "min_repeats"}) | {
        "rounds_of_own_calls": target.rounds * duel,
        "took_seconds": round(seconds, 1),
        "input": list(images.shape[1:]),
        # Waiting threads sleep unless the user says otherwise: spinning ones are quicker on an idle machine
        # only.
        "omp_wait_policy": os.environ["OMP_WAIT_POLICY"],
    }


def _energy(results: Sequence[Mapping[str, Any]]) -> str:
    """What `joules_per_image` counts, or why there is none."""
    counters, reason = energy_counters()
    if any(row["joules_per_image"] is not None for row in results):
        return f"{', '.join(counter.name for counter in counters)}, other programs' share included"
    return f"not told: {reason or 'a turn without a counter'}"
