"""Who is who: the assignment, and what a box alone shows."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtmpose.motion.identity.association import (
    Matches,
    anothers,
    assigned,
    felt,
    foreign,
    in_rounds,
    shown_twice,
)
from rtmpose.motion.identity.likeness import Likeness

Floats = NDArray[np.float64]
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def worths(seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.random((rng.integers(1, 5), rng.integers(1, 5)))


def best_sum(worth: Floats, least: float) -> float:
    """Of all assignments that leave out what they like, by trying each."""
    wide = worth if worth.shape[0] <= worth.shape[1] else worth.T
    usable = np.where(wide >= least, wide, 0.0)
    orders = permutations(range(wide.shape[1]), wide.shape[0])
    return max(float(usable[range(len(order)), order].sum()) for order in orders)


@few
@given(seeds, st.floats(0.01, 0.9))
def test_the_assignment_is_the_best_of_all(seed: int, least: float) -> None:
    worth = worths(seed)
    rows, columns = assigned(worth, least)
    assert np.isclose(worth[rows, columns].sum(), best_sum(worth, least))
    assert (worth[rows, columns] >= least).all()
    assert len(set(rows.tolist())) == len(rows) and len(set(columns.tolist())) == len(columns)


@few
@given(seeds)
def test_the_order_of_people_does_not_matter(seed: int) -> None:
    worth, rng = worths(seed), np.random.default_rng(seed)
    by_row, by_column = rng.permutation(worth.shape[0]), rng.permutation(worth.shape[1])
    pairs = set(zip(*(part.tolist() for part in assigned(worth, 0.2)), strict=True))
    rows, columns = assigned(worth[np.ix_(by_row, by_column)], 0.2)
    assert set(zip(by_row[rows].tolist(), by_column[columns].tolist(), strict=True)) == pairs


def test_a_pose_that_is_like_somebody_elses_is_theirs() -> None:
    # Pose 1 was to continue person 1 but lies on person 0, whom pose 0 continues already.
    likely = np.array([[0.9, 0.85, 0.1], [0.3, 0.35, 0.2]])
    alike = np.array([[1, 0.8, 0.1], [0.8, 1, 0.1], [0.1, 0.1, 1]])
    pairs = np.array([0, 1])
    assert shown_twice(likely, alike, pairs, pairs).tolist() == [False, True, False]
    apart = np.eye(3)
    assert not shown_twice(likely, apart, pairs, pairs).any()


@few
@given(seeds)
def test_a_later_round_gets_what_the_earlier_ones_left(seed: int) -> None:
    rng = np.random.default_rng(seed)
    worth = rng.random((2, 4, 5))
    of, to = rng.random((2, 4)) < 0.7, rng.random((2, 5)) < 0.7
    rounds = list(zip(of, to, worth, strict=True))
    rows, columns = in_rounds(rounds, 0.3)
    first = set(zip(*(part.tolist() for part in in_rounds(rounds[:1], 0.3)), strict=True))
    pairs = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert first <= pairs and len(set(rows.tolist())) == len(set(columns.tolist())) == len(pairs)
    assert all(of[1][row] and to[1][column] and worth[1][row, column] >= 0.3 for row, column in pairs - first)


def test_a_pose_that_is_clearly_somebody_elses_does_not_continue_the_box() -> None:
    pose = np.array([[0.05, 0.05, 0.5], [0.9, 0.3, 0.9]])
    assert anothers(pose).tolist() == [[True, False, False], [False, False, False]]


def test_a_pose_that_neither_continues_nor_fills_its_box_is_anothers() -> None:
    pose = np.array([[0.0, 0.0, 0.6]])
    like = Likeness(pose, pose, np.ones((1, 3)))
    rows = np.zeros(3, np.int64)
    assert foreign(like, np.array([0.3, 0.8, 0.3]), rows, np.arange(3)).tolist() == [True, False, False]


def test_a_box_that_is_nobodys_shows_who_is_behind() -> None:
    # Pose 0 continues person 0 but lies in the box of person 1; box 1 is that of a newcomer.
    box = np.array([[0.3, 0.2, 0.0], [0.9, 0.8, 0.4]])
    like = Likeness(box, box, box)
    zero, one = np.array([0]), np.array([1])
    rows, columns = felt(like, zero, zero, one)
    assert rows.tolist() == [1] and columns.tolist() == [0]
    own = Likeness(box, box, np.array([[0.9, 0.2, 0.0], [0.9, 0.8, 0.4]]))
    assert not len(felt(own, zero, zero, one)[0])


def test_a_box_belongs_to_whom_it_continues_best() -> None:
    # Person 0 is known by pose 0, in a box that is more like the one of person 1, who is not seen.
    box = np.array([[0.6], [0.9]])
    like = Likeness(box, box, box)
    zero, none = np.array([0]), np.zeros(0, np.int64)
    rows, columns = felt(like, zero, zero, none)
    assert rows.tolist() == [1] and columns.tolist() == [0]
    assert Matches(zero, zero, none, rows, columns).borrowed().tolist() == [True]
    assert not len(felt(Likeness(box, box, box[::-1]), zero, zero, none)[0])
