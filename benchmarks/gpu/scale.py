"""How large the checks are, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large the checks are; tests take less."""

    size: str = "m"
    input_size: tuple[int, int] = (192, 256)
    rows: int = 256
    steps: int = 20
    slices: int = 7
    ways: tuple[str, ...] = ("bf16", "compiled", "amp")
    images: int = 1500
    loader_workers: int = 8
    calls: int = 200


class LeftOut(Exception):
    """A check that cannot be made here; the text says why."""


def ratio(usual: list[float], ours: list[float]) -> Result:
    """How many times as fast ours is."""
    try:
        from rtmpose.deploy.statistics import paired_ratio
    except ImportError:
        return {"ratio": round(median(a / b for a, b in zip(usual, ours, strict=True)), 3)}
    return paired_ratio(usual, ours).facts()
