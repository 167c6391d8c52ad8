"""Another model that takes its turns in the same benchmark, so that costs are compared by rounds and not
across days: the champion, beside a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtmpose.deploy.runtimes.base import ModelFiles, Precision, RuntimeName
from rtmpose.deploy.sizes import file_mb
from rtmpose.deploy.statistics import paired_ratio
from rtmpose.deploy.workers import Configuration, Measured

RIVAL = "champion"


@dataclass(frozen=True)
class Rival:
    """A model in the one runtime and precision that it is deployed in; `images` (N, 3, H, W) are of its own
    input size. `facts` say in the report who it is.
    """

    files: ModelFiles
    runtime: RuntimeName
    precision: Precision
    images: np.ndarray
    facts: Mapping[str, Any]

    def beside(self, one: Configuration) -> Configuration:
        """What it is measured as for the calls of a configuration."""
        return Configuration(self.runtime, self.precision, one.placement, one.batch, RIVAL)

    def report(self, measured: Measured, skipped: list[str]) -> dict[str, Any]:
        """Who it is, what it cost, and why it could not be measured."""
        mine = {one: each for one, each in measured.items() if one.model == RIVAL}
        return {
            **self.facts,
            "runtime": self.runtime,
            "precision": self.precision,
            "skipped": [line for line in skipped if line.startswith(RIVAL)],
            "p50_ms": {
                str(one): round(float(np.median(np.concatenate(each.milliseconds))), 3)
                for one, each in mine.items()
            },
        }

    def costs(self, one: Configuration, measured: Measured, megabytes: float) -> dict[str, Any] | None:
        """What a configuration, whose files have so many MB, costs in times of the rival: latency paired by
        rounds with its interval, peak memory, what is held of a GPU where that was told of both, and size;
        None where the rival was not measured for such calls.
        """
        other, mine = measured.get(self.beside(one)), measured[one]
        if other is None:
            return None
        ratio = paired_ratio(mine.medians, other.medians).facts()
        low, high = ratio["ratio_interval"] or (None, None)  # type: ignore[misc]
        memory, size = other.memory.peak_mb, file_mb(self.files, self.runtime, self.precision)
        ours, theirs = mine.memory.gpu_mb, other.memory.gpu_mb
        gpu = {"gpu_memory": {"ratio": round(ours / theirs, 4)}} if ours and theirs else {}
        return {
            "latency": {"ratio": ratio["ratio"], "low": low, "high": high},
            "memory": {"ratio": round(mine.memory.peak_mb / memory, 4)},
            "size": {"ratio": round(megabytes / size, 4)},
            **gpu,
        }
