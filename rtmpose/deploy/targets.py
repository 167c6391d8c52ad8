"""Deploy targets: the hardware, which runtimes and precisions to try on it, and what is fast enough."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from rtmpose.config import Strict, parse
from rtmpose.deploy.runtimes.base import Placement, Precision, RuntimeName
from rtmpose.files import data_file, read_yaml

Threads = PositiveInt | Literal["all"]


class RuntimeSpec(Strict):
    """One runtime and the precisions to try in it."""

    name: RuntimeName
    precisions: tuple[Precision, ...] = Field(min_length=1)


class Budget(Strict):
    """The largest p50 latency, ms per call, that a configuration may have."""

    runtime: RuntimeName
    precision: Precision
    batch: int = Field(ge=1)
    threads: Threads
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
    threads: tuple[Threads, ...] = Field(min_length=1)
    device: Literal["cpu", "gpu"] = "cpu"
    warmup: int = Field(5, ge=0)
    rounds: int = Field(6, ge=1)
    seconds: float = Field(0.6, gt=0)
    min_repeats: int = Field(12, ge=1)
    budgets: tuple[Budget, ...] = ()

    def placements(self) -> tuple[Placement, ...]:
        """The places on this machine, one for each number of threads."""
        return tuple(
            Placement(self.device, count) for count in dict.fromkeys(map(thread_count, self.threads))
        )


def load_target(name: str) -> Target:
    """Read `deploy_targets/<name>.yaml`, or the file `name` itself; UserError naming file and key."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else data_file(f"deploy_targets/{name}.yaml")
    return parse(Target, read_yaml(path), path)


def thread_count(threads: Threads) -> int:
    """A number of threads on this machine: `all` is every core that this process may use."""
    return len(os.sched_getaffinity(0)) if threads == "all" else threads
