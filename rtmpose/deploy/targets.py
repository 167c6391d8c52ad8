"""Deploy targets: the hardware, which runtimes and precisions to try on it, and what is good enough."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from rtmpose.config import Strict, parse
from rtmpose.deploy.runtimes.base import DeviceKind, Placement, Precision, RuntimeName
from rtmpose.files import UserError, data_file, read_yaml
from rtmpose.machine import cores

Threads = PositiveInt | Literal["all"]
System = Literal["Linux", "Darwin", "Android"]
# What a board with a device tree calls itself, and what it is compatible with, such as `rockchip,rk3588`.
BOARD = Path("/proc/device-tree/model"), Path("/proc/device-tree/compatible")
ANDROID = Path("/system/build.prop")


class RuntimeSpec(Strict):
    """One runtime and the precisions to try in it."""

    name: RuntimeName
    precisions: tuple[Precision, ...] = Field(min_length=1)


class Reference(Strict):
    """What every configuration is compared with, at the same threads and batch."""

    runtime: RuntimeName = "onnxruntime"
    precision: Precision = "fp32"


class Budget(Strict):
    """What a configuration may cost: the most ms, MB and lost points of AP, and the fewest images/s.

    Without `runtime` or `precision` it is a budget of the target, which one configuration with that batch and
    thread count has to keep as a whole.
    """

    runtime: RuntimeName | None = None
    precision: Precision | None = None
    batch: int = Field(1, ge=1)
    threads: Threads = 1
    p50_ms: float | None = Field(None, gt=0)
    p95_ms: float | None = Field(None, gt=0)
    images_per_s: float | None = Field(None, gt=0, description="at least")
    file_mb: float | None = Field(None, gt=0)
    memory_mb: float | None = Field(None, gt=0, description="the most memory of the process")
    gpu_memory_mb: float | None = Field(
        None, gt=0, description="what the process holds of a GPU, by NVML; of a target with `device: gpu`"
    )
    ap_loss: float | None = Field(None, ge=0, description="points of AP, the interval's unfavourable end")

    @model_validator(mode="after")
    def _limits_something(self) -> Budget:
        if not self.limits():
            raise ValueError(f"limits nothing; give one of {', '.join(LIMITS)}")
        return self

    def limits(self) -> dict[str, float]:
        """The limits that it sets, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    def concerns(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of a report, with `runtime`, `precision`, `batch` and `threads`, has to keep it."""
        return (
            self.runtime in (None, row["runtime"])
            and self.precision in (None, row["precision"])
            and self.batch == row["batch"]
            and thread_count(self.threads) == row["threads"]
        )

    def __str__(self) -> str:
        who = " ".join(filter(None, (self.runtime or "any runtime", self.precision)))
        return f"{who} threads={self.threads} batch={self.batch}"


LIMITS = ("p50_ms", "p95_ms", "images_per_s", "file_mb", "memory_mb", "gpu_memory_mb", "ap_loss")
AT_LEAST = frozenset({"images_per_s"})  # all other limits are upper ones


class Target(Strict):
    """A `deploy_targets/*.yaml`: hardware, runtimes × precisions to try, batch sizes, threads, how long,
    budgets.

    `runner` holds the labels that a machine of continuous integration has to have. `board` is text that
    stands in the name of the board or in what it is compatible with, by its device tree.
    """

    name: str
    hardware: str
    architecture: Literal["x86_64", "aarch64", "arm64"]
    system: System = "Linux"
    board: str | None = None
    runner: tuple[str, ...] = Field(min_length=1)
    runtimes: tuple[RuntimeSpec, ...] = Field(min_length=1)
    batch_sizes: tuple[PositiveInt, ...] = Field(min_length=1)
    threads: tuple[Threads, ...] = Field(min_length=1)
    device: DeviceKind = "cpu"
    reference: Reference = Reference()
    warmup: int = Field(5, ge=0, description="calls that are not timed, after the first answer")
    rounds: int = Field(12, ge=1, description="in which all configurations take turns")
    seconds: float = Field(1.2, gt=0, description="of each configuration, over all rounds")
    min_repeats: int = Field(12, ge=1, description="calls of each configuration, over all rounds")
    budgets: tuple[Budget, ...] = ()

    @model_validator(mode="after")
    def _budgets_are_of_what_is_tried(self) -> Target:
        tried = {(spec.name, precision) for spec in self.runtimes for precision in spec.precisions}
        counts = set(map(thread_count, self.threads))
        for number, budget in enumerate(self.budgets):
            names = [
                pair
                for pair in tried
                if budget.runtime in (None, pair[0]) and budget.precision in (None, pair[1])
            ]
            if budget.gpu_memory_mb is not None and self.device != "gpu":
                raise ValueError(f"budgets.{number}: gpu_memory_mb: this target's device is {self.device}")
            fits = budget.batch in self.batch_sizes and thread_count(budget.threads) in counts
            if not names or not fits:
                raise ValueError(f"budgets.{number}: {budget}: is not among what this target tries")
        return self

    def placements(self) -> tuple[Placement, ...]:
        """The places on this machine, one for each number of threads."""
        return tuple(
            Placement(self.device, count) for count in dict.fromkeys(map(thread_count, self.threads))
        )

    def is_own_call(self, placement: Placement, batch: int) -> bool:
        """Whether calls are those that the target is judged by: the smallest batch on the most threads."""
        most = max(map(thread_count, self.threads))
        return batch == min(self.batch_sizes) and placement.threads == most

    def tried(self) -> list[tuple[RuntimeName, Precision, DeviceKind]]:
        """Each runtime in each precision, with where it computes."""
        return [
            (spec.name, precision, self.device) for spec in self.runtimes for precision in spec.precisions
        ]

    def refuse_elsewhere(self) -> None:
        """UserError on a machine of another kind: its figures would stand under this target's name."""
        here, wanted = f"{system()} on {platform.machine()}", f"{self.system} on {self.architecture}"
        if here != wanted:
            raise UserError(f"target {self.name}: is for {wanted}, this machine is {here}")
        if self.board is not None and self.board.lower() not in (board := board_name()).lower():
            raise UserError(
                f"target {self.name}: is for a {self.board}, this machine is {board or 'no board'}; write a "
                "target of its own for it (board:)"
            )


def load_target(name: str) -> Target:
    """Read `deploy_targets/<name>.yaml`, or the file `name` itself; UserError naming file and key."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else data_file("deploy_targets", name)
    return parse(Target, read_yaml(path), path)


def thread_count(threads: Threads) -> int:
    """A number of threads on this machine: `all` is every core that this process may use."""
    return cores() if threads == "all" else threads


def system() -> str:
    """The operating system; a Linux userland on a phone still runs on Android."""
    return "Android" if "ANDROID_ROOT" in os.environ or ANDROID.exists() else platform.system()


def board_name() -> str:
    """What a board calls itself, such as "Raspberry Pi 5 Model B Rev 1.0, raspberrypi,5-model-b"; empty where
    there is none.
    """
    texts = [path.read_text(errors="replace") for path in BOARD if path.is_file()]
    return ", ".join(part.strip() for text in texts for part in text.split("\0") if part.strip())
