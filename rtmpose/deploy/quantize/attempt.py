"""What is recorded of a runtime and precision that were tried: accuracy, latency, and reasons against it."""

from __future__ import annotations

from pydantic import Field

from rtmpose.config import Strict
from rtmpose.deploy.runtimes.base import DeviceKind, Precision, RuntimeName, tried_name

EXACTNESS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")  # from the most exact down


class Figure(Strict):
    """A figure and its 95 % interval, points of 100."""

    value: float
    low: float
    high: float


class SetFigures(Strict):
    """AP on one evaluation set, and the difference to PyTorch fp32 on the same images, points of 100."""

    images: int
    ap: Figure
    difference: Figure


class Latency(Strict):
    """ms for one call, as a benchmark measured it."""

    p50_ms: float
    p95_ms: float
    p99_ms: float | None = None


class Attempt(Strict):
    """One runtime and precision that was tried: how the file was made, what it costs, and why it is refused.

    `precisions` names the convolutions and matrix products, or the modules, that compute in int8 and in
    float32; None: all compute in `precision`. No reason in `refused` means that it passes.
    """

    runtime: RuntimeName
    precision: Precision
    device: DeviceKind = "cpu"
    recipe: str
    megabytes: float | None = None
    sets: dict[str, SetFigures] = Field(default_factory=dict)
    precisions: dict[str, list[str]] | None = None
    latency: Latency | None = None
    refused: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As the benchmark names it."""
        return tried_name(self.runtime, self.precision, self.device)


def refused(attempt: Attempt, *reasons: str) -> Attempt:
    """The attempt with further reasons against it."""
    return attempt.model_copy(update={"refused": (*attempt.refused, *reasons)})
