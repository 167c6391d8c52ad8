"""Who is who over time, against a known truth: identity switches and IDF1.

Switches are those of CLEAR MOT (Bernardin and Stiefelhagen, EURASIP JIVP 2008, section 2.1), IDF1 is that of
arXiv 1609.01775 (section 3), both at an intersection over union of 0.5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rtmpose.motion.boxes import Floats, overlaps

Ints = NDArray[np.int64]
SAME = 0.5  # intersection over union from which a box shows a person


@dataclass(frozen=True, eq=False)
class Moment:
    """The people of one frame: who they are, (N,), and their boxes (N, 4) xyxy px."""

    identity: Ints
    boxes: Floats


@dataclass(frozen=True)
class Identities:
    """What is right and wrong of the identities of a film, and who was taken for whom in each frame."""

    switches: int  # times that somebody has another identity than when found before
    idf1: float  # 1 is best; NaN where nobody is there and nobody found
    pairs: list[list[tuple[int, int]]]  # per frame: rows of the truth and of the found people


def identities(truth: Sequence[Moment], found: Sequence[Moment]) -> Identities:
    """Compare found people with the truth, frame by frame; both have the same number of frames."""
    last: dict[int, int] = {}  # of somebody: the identity when found last
    switches, pairs = 0, []
    together: Counter[tuple[int, int]] = Counter()
    for true, seen in zip(truth, found, strict=True):
        likeness = overlaps(true.boxes, seen.boxes) if len(seen.boxes) else np.zeros((len(true.boxes), 0))
        matched = _matched(true, seen, likeness, last)
        for row, column in matched:
            who, named = int(true.identity[row]), int(seen.identity[column])
            switches += last.get(who, named) != named
            last[who] = named
        pairs.append(matched)
        rows, columns = np.nonzero(likeness >= SAME)
        together.update(zip(true.identity[rows].tolist(), seen.identity[columns].tolist(), strict=True))
    return Identities(switches, _idf1(truth, found, together), pairs)


def _matched(true: Moment, seen: Moment, likeness: Floats, last: dict[int, int]) -> list[tuple[int, int]]:
    """The best pairs of one frame; who has the identity of before keeps it where the boxes allow that."""
    before = np.array([last.get(int(one), 0) for one in true.identity])
    keeps = (before[:, None] == seen.identity[None]) & (before[:, None] > 0)
    worth = np.where(likeness >= SAME, likeness + keeps * (1.0 + len(before)), 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [
        (int(row), int(column)) for row, column in zip(rows, columns, strict=True) if worth[row, column] > 0
    ]


def _idf1(truth: Sequence[Moment], found: Sequence[Moment], together: Counter[tuple[int, int]]) -> float:
    """Frames in which each person has the one identity that fits best over the whole film, by the mean number
    of frames in the truth and in what was found.
    """
    total = sum(len(one.identity) for one in (*truth, *found))
    if not total:
        return float("nan")
    people, names = sorted({who for who, _ in together}), sorted({name for _, name in together})
    counts = np.array([[together[who, name] for name in names] for who in people]).reshape(
        len(people), len(names)
    )
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(2 * counts[rows, columns].sum() / total)
