"""Ratios and their intervals: what must hold for any times, and how often they err on simulated ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rtmpose.deploy.statistics import Floats, Verdict, Watch, paired_ratio, quantile_interval

TIMES = st.lists(st.floats(0.1, 100.0), min_size=6, max_size=40).map(np.array)


@given(TIMES, st.floats(0.2, 5.0))
@settings(max_examples=50, deadline=None)
def test_a_common_factor_is_the_ratio_and_a_rounds_own_factor_cancels(times: Floats, factor: float) -> None:
    ratio = paired_ratio(times * factor, times)
    assert ratio.estimate == pytest.approx(factor) and ratio.low == pytest.approx(ratio.high)


@given(TIMES)
@settings(max_examples=50, deadline=None)
def test_sides_and_rounds_can_be_swapped(times: Floats) -> None:
    other = times[::-1].copy()
    there, back = paired_ratio(times, other), paired_ratio(other, times)
    assert there.low <= there.estimate <= there.high
    assert there.estimate == pytest.approx(1 / back.estimate)
    assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low))
    order = np.random.default_rng(len(times)).permutation(len(times))
    again = paired_ratio(times[order], other[order])
    assert (again.estimate, again.low) == pytest.approx((there.estimate, there.low))


@given(TIMES, st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_an_interval_grows_with_its_level_and_one_wild_round_moves_it_little(
    times: Floats, wild: float
) -> None:
    chance = np.random.default_rng(0)
    other = times * np.exp(chance.normal(0, 0.01, len(times)))
    narrow, wide = paired_ratio(times, other, 0.8), paired_ratio(times, other, 0.95)
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    spoilt = times.copy()
    spoilt[0] *= wild
    assert 0.95 < paired_ratio(spoilt, other).estimate < 1.05


@pytest.mark.parametrize("rounds", [6, 12, 25])
def test_the_interval_is_the_signed_rank_test_turned_round(rounds: int) -> None:
    """A ratio just inside the interval is not refused by SciPy's exact test, one just outside is."""
    chance = np.random.default_rng(rounds)
    ours, other = np.exp(chance.normal(0.1, 0.1, rounds)), np.exp(chance.normal(0, 0.1, rounds))
    found = paired_ratio(ours, other)
    for edge, outside in ((found.low, -1e-9), (found.high, 1e-9)):
        for step, refused in ((outside, True), (-outside, False)):
            shifted = np.log(ours / other) - math.log(edge) - step
            test = stats.wilcoxon(shifted, method="exact")
            assert (test.pvalue <= 0.05) == refused


def test_too_few_rounds_have_no_interval() -> None:
    few = paired_ratio([1.0] * 5, [1.0] * 5)
    assert (few.low, few.high) == (0.0, math.inf)
    assert few.facts() == {"ratio": 1.0, "ratio_interval": None}
    assert quantile_interval([[1.0]] * 5, 0.5) is None
    for ours, other in (([1.0], [1.0, 2.0]), ([], []), ([0.0], [1.0]), ([1.0], [math.nan])):
        with pytest.raises(ValueError, match=r"pair up|above 0"):
            paired_ratio(ours, other)


def test_a_quantiles_interval_is_as_wide_as_rounds_differ() -> None:
    """The calls of a round share its noise: were they drawn one by one, the interval would be far too
    narrow.
    """
    covered, chance = 0, np.random.default_rng(3)
    for _ in range(100):
        rounds = [level + chance.normal(0, 0.01, 30) for level in chance.normal(5.0, 0.3, 20)]
        low, high = quantile_interval(rounds, 0.5, times=200) or (math.nan, math.nan)
        covered += low <= 5.0 <= high
    assert 88 <= covered <= 99


def simulated(chance: np.random.Generator, rounds: int, slowdown: float) -> tuple[Floats, Floats]:
    """Rounds of two sides in random order on a busy machine: the speed drifts by some 10 % and jumps between
    two levels; within a round the later side gets what has drifted since; noise has heavy tails, and every
    twelfth figure met something that took up to several times as long.
    """
    level = np.exp(np.cumsum(chance.normal(0, 0.01, 2 * rounds)))
    level *= np.where((np.arange(2 * rounds) // 15 + chance.integers(2)) % 2, 1.0, 1.3)
    noise = np.exp(0.015 * chance.standard_t(3, 2 * rounds))
    met = np.where(chance.random(2 * rounds) < 1 / 12, 1 + chance.pareto(1.5, 2 * rounds), 1.0)
    times = (2.0 * level * noise * met).reshape(rounds, 2)
    first = chance.random(rounds) < 0.5
    ours, other = np.where(first, times[:, 0], times[:, 1]), np.where(first, times[:, 1], times[:, 0])
    return ours * slowdown, other


def verdicts(slowdown: float, cells: int) -> list[Verdict]:
    watch, chance = Watch(), np.random.default_rng(11)
    found: list[Verdict] = []
    for _ in range(cells):
        ours, other = simulated(chance, watch.looks[-1], slowdown)
        for look in watch.looks:
            verdict, _ratio = watch.judge(ours[:look], other[:look])
            if verdict != "undecided":
                break
        found.append(verdict)
    return found


def test_the_same_side_twice_gives_no_alarm_and_a_slowdown_of_5_percent_is_found() -> None:
    same = verdicts(1.0, 400)
    assert same.count("slower") <= 4 and same.count("not slower") >= 380
    slower = verdicts(1.05, 200)
    assert slower.count("slower") >= 190, slower.count("slower")


def test_without_tolerance_the_chance_of_an_alarm_is_what_it_says() -> None:
    """Alarms at a ratio of exactly what is tolerated come at most as often as alpha says, over all looks."""
    watch, chance, alarms, cells = Watch((12, 24, 48), 1.0, 1.05, 0.05), np.random.default_rng(5), 0, 600
    for _ in range(cells):
        ours, other = simulated(chance, 48, 1.0)
        alarms += any(watch.judge(ours[:look], other[:look])[0] == "slower" for look in watch.looks)
    assert 0 < alarms <= 0.05 * cells + 2 * math.sqrt(0.05 * 0.95 * cells)


def test_more_comparisons_make_each_more_careful() -> None:
    one, many = Watch(), Watch(comparisons=10)
    assert 1 - many.level == pytest.approx((1 - one.level) / 10)
    ours, other = simulated(np.random.default_rng(0), 192, 1.05)
    assert many.judge(ours, other)[1].low < one.judge(ours, other)[1].low
