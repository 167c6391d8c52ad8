"""Whether one configuration has become slower than another: a search that ends as soon as it can tell."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rtmpose.deploy.statistics import Ratio, Verdict, Watch
from rtmpose.deploy.workers import Turn


class Side(Protocol):
    """What can be timed by turns, such as a `Worker`."""

    def turn(self, seconds: float, calls: int) -> Turn: ...


@dataclass(frozen=True)
class Finding:
    """What was found of one side: the verdict, its time as a ratio to the reference's, and after how many
    rounds.
    """

    verdict: Verdict
    ratio: Ratio


def compare(
    reference: Side, others: Mapping[str, Side], watch: Watch, *, calls: int = 5, seed: int = 0
) -> dict[str, Finding]:
    """Time all sides by turns until `watch` has a verdict on each of `others`, or its last look is over.

    A round times every side once, `calls` calls, in an order drawn by chance; its figure is their median.
    A side that has its verdict takes no further turns.
    """
    chance = random.Random(seed)
    sides = {"": reference, **others}
    medians: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, Finding] = {}
    for look in watch.looks:
        while len(medians[""]) < look:
            open_sides = [name for name in sides if name not in found]
            for name in chance.sample(open_sides, len(open_sides)):
                medians[name].append(float(np.median(sides[name].turn(0.0, calls).milliseconds)))
        for name in others:
            if name not in found:
                verdict, ratio = watch.judge(medians[name], medians[""])
                if verdict != "undecided" or look == watch.looks[-1]:
                    found[name] = Finding(verdict, ratio)
        if len(found) == len(others):
            break
    return found
