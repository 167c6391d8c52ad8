"""Who is who: assignment and likeness."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtmpose.motion.identity.association import assigned, shown_twice
from rtmpose.motion.identity.likeness import Body, combined, pose_similarity
from rtmpose.motion.identity.returning import return_similarity
from tests.motion.walkers import COCO17, Walker, truth

Floats = NDArray[np.float64]
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
BODY = Body(np.array(COCO17.sigmas), np.array(COCO17.flip))


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


@few
@given(seeds, st.floats(0.2, 5), st.floats(-500, 500))
def test_likeness_knows_neither_place_nor_distance_nor_side(seed: int, larger: float, by: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0, 200, (2, 3, 17, 2))
    weights, size, elapsed = rng.random((3, 17)), rng.uniform(50, 150, 3), np.array([0.0, 0.5, 2.0])
    found, _ = pose_similarity(first, second, weights, size, elapsed, BODY)
    again, _ = pose_similarity(
        first * larger + by, second * larger + by, weights, size * larger, elapsed, BODY
    )
    assert np.allclose(found, again, atol=1e-9) and (found >= 0).all() and (found <= 1).all()
    evenly = np.ones((3, 17))
    mirrored, _ = pose_similarity(first, second[:, BODY.flip], evenly, size, elapsed, BODY)
    assert np.allclose(mirrored, pose_similarity(first, second, evenly, size, elapsed, BODY)[0])


def test_likeness_to_oneself_is_one_and_fades_with_time_out_of_sight() -> None:
    points = truth(Walker((300, 500)), [0.0, 0.0, 0.0])
    elapsed = np.array([0.0, 0.3, 0.9])
    found, evidence = pose_similarity(points, points, np.full((3, 17), 0.5), np.full(3, 170.0), elapsed, BODY)
    assert found[0] == 1 and found[0] > found[1] > found[2] > 0
    assert evidence.tolist() == [8.5] * 3


def test_without_seen_points_the_box_decides() -> None:
    pose, overlap = np.array([[0.9]]), np.array([[0.3]])
    assert combined(pose, np.zeros((1, 1)), overlap) == 0.3
    assert np.isclose(combined(pose, np.full((1, 1), 9.0), overlap), 0.6)


def test_who_returns_went_on_or_stood_and_did_not_turn_back() -> None:
    last, onward = np.zeros((1, 1, 2)), np.array([[[3.0, 0.0]]])
    places = np.array([[[3.0, 0], [1.5, 0], [0, 0], [-2, 0], [1.5, 3]]])
    found = return_similarity(last, onward, places, np.ones((1, 5)), np.array([1.0]))[0]
    assert found[0] == 1 and found[0] > found[1] > found[2] > 0.4 and (found[3:] < 0.2).all()
    halved = return_similarity(last, onward, places[:, :1], np.full((1, 1), 0.5), np.array([1.0]))
    assert halved < 0.1


def test_a_pose_that_is_like_somebody_elses_is_theirs() -> None:
    # Pose 1 was to continue person 1 but lies on person 0, whom pose 0 continues already.
    likely = np.array([[0.9, 0.85, 0.1], [0.3, 0.35, 0.2]])
    alike = np.array([[1, 0.8, 0.1], [0.8, 1, 0.1], [0.1, 0.1, 1]])
    pairs = np.array([0, 1])
    assert shown_twice(likely, alike, pairs, pairs).tolist() == [False, True, False]
    apart = np.eye(3)
    assert not shown_twice(likely, apart, pairs, pairs).any()
