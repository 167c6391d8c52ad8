"""The search for a slowdown, on simulated sides; `benchmarks/regression.py` makes it on real ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rtmpose.deploy.comparison import compare
from rtmpose.deploy.statistics import Watch
from rtmpose.deploy.workers import Turn
from tests.support import ROOT


class Machine:
    """Its speed drifts with every call that anything makes; now and then a call meets something else."""

    def __init__(self, seed: int, noise: float) -> None:
        self.chance, self.noise, self.level, self.order = np.random.default_rng(seed), noise, 0.0, ""

    def call(self, milliseconds: float) -> float:
        self.level = 0.999 * self.level + self.chance.normal(0, 0.004)
        spike = 1 + self.chance.pareto(1.5) if self.chance.random() < 0.05 else 1.0
        return milliseconds * spike * math.exp(self.level + self.noise * self.chance.standard_t(3))


class Side:
    def __init__(self, machine: Machine, name: str, milliseconds: float) -> None:
        self.machine, self.name, self.milliseconds, self.turns = machine, name, milliseconds, 0

    def turn(self, seconds: float, calls: int) -> Turn:
        self.turns += 1
        self.machine.order += self.name
        times = [self.machine.call(self.milliseconds) for _ in range(calls)]
        return Turn(times, 0.0, sum(times) / 1000, None)


def found(seed: int, noise: float, slowdown: float) -> tuple[str, Side, Machine]:
    machine = Machine(seed, noise)
    reference, other = Side(machine, "a", 2.0), Side(machine, "b", 2.0 * slowdown)
    return compare(reference, {"b": other}, Watch(), seed=seed)["b"].verdict, other, machine


@pytest.mark.parametrize("noise", [0.005, 0.03])
def test_a_slowdown_is_found_and_none_is_made_up(noise: float) -> None:
    assert sum(found(seed, noise, 1.0)[0] == "slower" for seed in range(40)) == 0
    assert sum(found(seed, noise, 1.05)[0] == "slower" for seed in range(40)) >= 38


def test_a_quiet_machine_takes_few_rounds_and_a_busy_one_more() -> None:
    assert found(0, 0.002, 1.2)[1].turns == Watch().looks[0]
    _, other, machine = found(0, 0.1, 1.03)
    assert other.turns > Watch().looks[0]
    pairs = {machine.order[start : start + 2] for start in range(0, len(machine.order), 2)}
    assert pairs == {"ab", "ba"}  # every round has both, in an order drawn by chance


def test_a_side_that_has_its_verdict_takes_no_further_turns() -> None:
    machine = Machine(1, 0.05)
    clear, close = Side(machine, "c", 4.0), Side(machine, "d", 2.06)
    verdicts = compare(Side(machine, "a", 2.0), {"clear": clear, "close": close}, Watch())
    assert verdicts["clear"].verdict == "slower" and 1.9 < verdicts["clear"].ratio.estimate < 2.1
    assert clear.turns == Watch().looks[0] < close.turns == verdicts["close"].ratio.rounds


def test_what_is_planted_changes_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(ROOT) / "benchmarks"))
    import regression

    calls = []
    monkeypatch.setattr(np, "matmul", lambda left, right: calls.append(left.shape))
    images = np.ones((1, 3, 4, 4), np.float32)

    def infer(batch: np.ndarray) -> tuple[np.ndarray, ...]:
        return (sum(float(np.sin(batch).sum()) for _ in range(200)) * batch,)

    half = regression.calls_of_products(infer, images, 0.5)
    assert half >= 1 and 5 * half < regression.calls_of_products(infer, images, 50.0)
    calls.clear()
    np.testing.assert_array_equal(regression.slowed(infer, images, half)(images)[0], infer(images)[0])
    assert len(calls) == half
