"""How often the search for a slowdown errs: A against A, and against A with 5 % more work, 100 times each.

    python benchmarks/regression.py [--model FILE.onnx] [--cells 100] [--planted 0.05]

A cell has three sides with the same model in ONNX Runtime, one thread, batch 1: A, A again, and one that does
more work in every call, products of small matrices that take the planted share of a call. They take turns of
so many calls in an order drawn by chance, until `rtmpose.deploy.statistics.Watch` has a verdict on both:
"slower" where an interval for the ratio lies above 1.01 as a whole, "not slower" where it lies below 1.05.
Every turn is a new process. Two processes with the same model can differ lastingly by where their memory lies
(Mytkowicz et al., ASPLOS 2009): turns of the same two would repeat that difference instead of averaging it.

Without --model it is RTMPose-t at 128x96 with random weights. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rtmpose.config import setup_environment
from rtmpose.deploy.comparison import Finding, compare
from rtmpose.deploy.machine import machine
from rtmpose.deploy.runtimes.base import Infer, ModelFiles, Placement
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.deploy.statistics import Watch
from rtmpose.deploy.workers import THREAD_VARIABLES, Change, Configuration, Outputs, Turn, Worker
from rtmpose.files import UserError
from rtmpose.machine import cpu_line

CALLS = 9
ONE = Configuration("onnxruntime", "fp32", Placement("cpu", 1), 1)
# Imported once, in the process that all others are copies of.
PRELOADED = [
    "rtmpose.deploy.runtimes.onnxruntime",
    "rtmpose.deploy.runtimes.session",
    "rtmpose.deploy.comparison",
]
SAME, PLANTED = "A again", "A with more work"


def calls_of_products(infer: Infer, images: np.ndarray, share: float) -> int:
    """How many products of two small matrices take that share of a call here."""
    calls, units = [], []
    for _ in range(60):  # by turns, so that both meet the same machine
        start = time.perf_counter()
        infer(images)
        middle = time.perf_counter()
        multiply(10)
        calls.append(middle - start)
        units.append((time.perf_counter() - middle) / 10)
    return max(1, round(share * float(np.median(calls)) / float(np.median(units))))


def multiply(count: int) -> None:
    """Products of two small matrices: a busy machine slows them down as it does the network."""
    left, right = np.ones((2, 48, 48), np.float32)
    for _ in range(count):
        np.matmul(left, right)


def slowed(infer: Infer, images: np.ndarray, products: int) -> Infer:
    """`infer` with so many products before every call."""

    def more(batch: np.ndarray) -> Outputs:
        multiply(products)
        return infer(batch)

    return more


@dataclass(frozen=True)
class Renewed:
    """A side whose every turn is another process: what lasts in one process averages out over the rounds."""

    files: ModelFiles
    images: np.ndarray
    change: Change | None = None

    def turn(self, seconds: float, calls: int) -> Turn:
        worker = Worker(ONE, self.files, self.images, warmup=10, change=self.change, start="forkserver")
        try:
            if isinstance(answer := worker.opened(), str):
                raise UserError(f"{ONE}: {answer}")
            return worker.turn(seconds, calls)
        finally:
            worker.end()


def cell(files: ModelFiles, images: np.ndarray, watch: Watch, planted: float, seed: int) -> dict[str, Any]:
    """Three sides compared -> what was found of each, and how long it took."""
    began = time.perf_counter()
    session = open_session(ONE.runtime, files, ONE.precision, ONE.placement, ONE.batch)
    products = calls_of_products(session, images, planted)
    more = Renewed(files, images, partial(slowed, products=products))
    others = {SAME: Renewed(files, images), PLANTED: more}
    found = compare(Renewed(files, images), others, watch, calls=CALLS, seed=seed)
    return {"found": found, "seconds": time.perf_counter() - began}


def describe(number: int, one: dict[str, Any]) -> str:
    def words(name: str) -> str:
        finding: Finding = one["found"][name]
        ratio = finding.ratio
        return (
            f"{name}: {finding.verdict}, {ratio.estimate:.4f} [{ratio.low:.4f}, {ratio.high:.4f}] "
            f"after {ratio.rounds} rounds"
        )

    return f"cell {number + 1:3d}  {words(SAME)}; {words(PLANTED)}; {one['seconds']:.1f} s"


def summary(cells: list[dict[str, Any]], watch: Watch, planted: float) -> dict[str, Any]:
    """The figures of the JSON line."""
    line: dict[str, Any] = {"name": "regression", "cells": len(cells), "planted": planted}
    for key, name in (("same", SAME), ("slowed", PLANTED)):
        found = [one["found"][name] for one in cells]
        ratios = [finding.ratio.estimate for finding in found]
        line[key] = {
            "alarms": sum(finding.verdict == "slower" for finding in found),
            "undecided": sum(finding.verdict == "undecided" for finding in found),
            "ratio_median": round(float(np.median(ratios)), 4),
            "ratio_5_to_95": [round(float(end), 4) for end in np.quantile(ratios, [0.05, 0.95])],
            "rounds_median": float(np.median([finding.ratio.rounds for finding in found])),
        }
    seconds = [one["seconds"] for one in cells]
    return line | {
        "ours": line["slowed"]["alarms"] / len(cells),
        "peer": line["same"]["alarms"] / len(cells),
        "ratio": None,
        "unit": f"share of cells with an alarm: planted {planted:.0%} / the same twice",
        "seconds_per_cell": {
            "median": round(float(np.median(seconds)), 2),
            "most": round(max(seconds), 2),
        },
        "watch": {
            "looks": watch.looks,
            "tolerated": watch.tolerated,
            "effect": watch.effect,
            "alpha": watch.alpha,
        },
        "machine": machine(),
    }


def exported(folder: Path) -> Path:
    """RTMPose-t at 128x96 with random weights."""
    import torch

    from rtmpose.config import Architecture
    from rtmpose.deploy.card import ModelCard
    from rtmpose.deploy.export import export_onnx

    torch.manual_seed(0)
    card = ModelCard.of(Architecture(size="t"), (96, 128), "coco17")
    return export_onnx(card.network(), card.input_size, folder / "rtmpose.onnx", card=card)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="an exported model")
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--planted", type=float, default=0.05, help="share of a call that is added")
    options = parser.parse_args()
    from rtmpose.deploy.samples import noise  # here, since it imports PyTorch, which workers do without

    setup_environment()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(ONE.placement.threads)))
    multiprocessing.set_forkserver_preload(PRELOADED)
    print(f"machine: {cpu_line()}; load average before: {os.getloadavg()[0]:.2f}", flush=True)
    watch, cells = Watch(), []
    with tempfile.TemporaryDirectory() as name:
        path = options.model or exported(Path(name))
        images = noise(read_card(path).input_size, 1)
        for number in range(options.cells):
            cells.append(cell(ModelFiles(path), images, watch, options.planted, seed=number))
            print(describe(number, cells[-1]), flush=True)
    line = summary(cells, watch, options.planted)
    print(f"\nalarms: the same twice {line['same']['alarms']} of {len(cells)}, ", end="")
    print(f"planted {options.planted:.0%} {line['slowed']['alarms']} of {len(cells)}")
    print(f"a cell took {line['seconds_per_cell']['median']:.1f} s (median); load {os.getloadavg()[0]:.2f}")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
