"""How far apart two latencies are, and how sure that is, on a machine that others use too.

What is compared takes turns: in every round each side is timed once, one directly after the other and in an
order drawn by chance. A round gives one figure a side. Whatever else the machine does meets both sides of a
round alike, and where it does not, chance decides which side it meets: without a difference between the
sides, a round's log-ratio is as likely above zero as below, whatever the noise and however rounds resemble
their neighbours. That symmetry is all that is assumed, and it is what the signed-rank distribution rests on.

The estimate is the median of all pairwise means of log-ratios (Hodges and Lehmann, Annals of Mathematical
Statistics 34, 1963), its interval the signed-rank test turned round (Hollander, Wolfe and Chicken,
Nonparametric Statistical Methods, section 3.3). Up to 29 % of rounds can be arbitrarily wrong before the
estimate is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Verdict = Literal["slower", "not slower", "undecided"]
LEAST_ROUNDS = 6  # fewer signs cannot be told from chance at 95 %


@dataclass(frozen=True)
class Ratio:
    """How many times as long one side takes as the other, and the interval at `level`; 0 and infinity where
    there are too few rounds for that level.
    """

    estimate: float
    low: float
    high: float
    level: float
    rounds: int

    def facts(self) -> dict[str, float | list[float] | None]:
        """As JSON, which has no infinity: the interval is null where there are too few rounds."""
        known = self.low > 0 and math.isfinite(self.high)
        interval = [round(self.low, 4), round(self.high, 4)] if known else None
        return {"ratio": round(self.estimate, 4), "ratio_interval": interval}


def paired_ratio(ours: ArrayLike, reference: ArrayLike, level: float = 0.95) -> Ratio:
    """Times as long as the reference; both (R,) are positive, such as ms, one figure for each round."""
    mine, other = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if mine.shape != other.shape or mine.ndim != 1 or not len(mine):
        raise ValueError(f"rounds do not pair up: {mine.shape} and {other.shape}")
    if not (mine > 0).all() or not (other > 0).all():
        raise ValueError("times must be above 0")
    difference = np.log(mine) - np.log(other)
    first, second = np.triu_indices(len(difference))
    means = np.sort((difference[first] + difference[second]) / 2)  # (R (R + 1) / 2,) Walsh averages
    outside = _outside(len(difference), (1 - level) / 2)
    low, high = (means[outside - 1], means[-outside]) if outside else (-math.inf, math.inf)
    middle, low, high = (math.exp(float(value)) for value in (np.median(means), low, high))
    return Ratio(middle, low, high, level, len(difference))


def quantile_interval(
    rounds: Sequence[ArrayLike], share: float, level: float = 0.95, times: int = 1000
) -> tuple[float, float] | None:
    """Interval of a quantile over all calls, such as 0.5 for p50: whole rounds are drawn again with
    replacement, since calls of one round share its noise (Davison and Hinkley, Bootstrap Methods, section
    3.8). None below six rounds.
    """
    if len(rounds) < LEAST_ROUNDS:
        return None
    calls = [np.asarray(each, np.float64) for each in rounds]
    draws = np.random.default_rng(0).integers(0, len(calls), (times, len(calls)))
    drawn = [np.quantile(np.concatenate([calls[index] for index in row]), share) for row in draws]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Watch:
    """How a slowdown is looked for: after so many rounds (`looks`), each time with an interval.

    An alarm is an interval that lies above `tolerated` as a whole; the search ends without one as soon as an
    interval lies below `effect`. `alpha` bounds the chance of any alarm without a slowdown over all looks and
    all `comparisons` together, by Bonferroni's inequality: the sides of each interval get equal parts of it.
    """

    looks: tuple[int, ...] = (24, 48, 96, 192, 384, 768)
    tolerated: float = 1.01
    effect: float = 1.05
    alpha: float = 0.005
    comparisons: int = 1

    @property
    def level(self) -> float:
        """Of each interval: alpha's part lies on either side of it."""
        return 1 - 2 * self.alpha / (len(self.looks) * self.comparisons)

    def judge(self, ours: ArrayLike, reference: ArrayLike) -> tuple[Verdict, Ratio]:
        """What the rounds up to a look say; "undecided" asks for the rounds of the next one."""
        ratio = paired_ratio(ours, reference, self.level)
        if ratio.low > self.tolerated:
            return "slower", ratio
        return ("not slower" if ratio.high < self.effect else "undecided"), ratio


def _outside(rounds: int, share: float) -> int:
    """How many Walsh averages lie outside of an interval on either side, for this share of chance there."""
    return int(np.searchsorted(_signed_rank(rounds), share, side="right"))


@cache
def _signed_rank(rounds: int) -> Floats:
    """P(T <= t) of Wilcoxon's signed-rank sum T for t = 0, 1, …: each rank counts or not, by a fair coin."""
    chance = np.zeros(rounds * (rounds + 1) // 2 + 1)
    chance[0] = 1.0
    for rank in range(1, rounds + 1):
        shifted = np.zeros_like(chance)
        shifted[rank:] = chance[:-rank]
        chance = (chance + shifted) / 2
    return np.cumsum(chance)
