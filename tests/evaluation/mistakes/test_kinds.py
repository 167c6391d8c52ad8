"""Kinds of errors are what their names say, whatever the pose."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtmpose.evaluation.mistakes.kinds import (
    CLOSE,
    GOOD,
    INVERSION,
    JITTER,
    MISS,
    NEAR,
    NOT_LABELLED,
    SWAP,
    error_kinds,
)

SIGMAS, FLIP, AREA = (0.05, 0.06, 0.06, 0.08, 0.08), (0, 2, 1, 4, 3), 10_000.0
SIDED = [1, 2, 3, 4]
# Far apart: no point is like another one of the same person.
POSE = np.array([[100.0, 20], [160, 90], [40, 90], [140, 200], [60, 200]])
FAR = np.array([1000.0, 0.0])


def at(similarity: float, sigma: float, area: float = AREA) -> float:
    """The distance in px at which a point is that similar."""
    return float(2 * sigma * np.sqrt(area) * np.sqrt(-2 * np.log(similarity)))


def labelled(points: NDArray[np.floating] = POSE, visible: float = 2.0) -> NDArray[np.float64]:
    return np.column_stack([points, np.full(len(points), visible)])


def kinds(points: NDArray[np.floating], *others: NDArray[np.floating]) -> list[int]:
    crowd = [(labelled(other), AREA) for other in others]
    return error_kinds(points, labelled(), AREA, crowd, SIGMAS, FLIP).tolist()


def test_perfect_points_are_good() -> None:
    assert kinds(POSE) == [GOOD] * 5
    assert kinds(POSE, POSE + FAR, POSE + 1) == [GOOD] * 5, "near others, too"


def test_left_for_right_is_an_inversion_and_the_middle_has_no_other_side() -> None:
    assert kinds(POSE[list(FLIP)]) == [GOOD, *[INVERSION] * 4]


def test_another_persons_points_are_a_swap() -> None:
    assert kinds(POSE + FAR, POSE + FAR) == [SWAP] * 5
    mirrored = (POSE + FAR)[list(FLIP)]
    assert kinds(mirrored, POSE + FAR) == [SWAP] * 5, "on that one's other side, too"
    assert kinds(POSE + FAR) == [MISS] * 5, "nobody is there"


def test_an_unlabelled_point_is_judged_and_attracts_by_nothing() -> None:
    hidden = labelled()
    hidden[1, 2] = 0
    moved = POSE[list(FLIP)]
    found = error_kinds(moved, hidden, AREA, [], SIGMAS, FLIP).tolist()
    assert found == [GOOD, NOT_LABELLED, MISS, INVERSION, INVERSION]
    other = labelled(POSE + FAR)
    other[:, 2] = 0
    assert error_kinds(POSE + FAR, labelled(), AREA, [(other, AREA)], SIGMAS, FLIP).tolist() == [MISS] * 5


def test_of_two_that_are_near_the_nearer_counts() -> None:
    """A point between the own other side and somebody else's."""
    target = POSE[2]  # left_…, point 1, is predicted where the own right one is
    step = np.array([at(0.7, SIGMAS[2]), 0.0])
    points = POSE.copy()
    points[1] = target
    near = POSE + (target + step - POSE[1])  # somebody else's point 1 is a step away
    assert kinds(points, near)[1] == INVERSION
    points[1] = target + step
    assert kinds(points, near)[1] == SWAP


@settings(max_examples=40, deadline=None)
@given(
    similarity=st.floats(0.02, 0.999),
    angle=st.floats(0, 6.28),
    point=st.integers(0, 4),
    zoom=st.floats(0.1, 30),
)
def test_the_distance_alone_decides_between_good_jitter_and_miss(
    similarity: float, angle: float, point: int, zoom: float
) -> None:
    """At every size of the person."""
    if min(abs(similarity - NEAR), abs(similarity - CLOSE)) < 1e-6:
        return
    area, points = AREA * zoom**2, POSE * zoom * 10  # ten times as far apart as wide: nothing else is near
    moved = points.copy()
    moved[point] += at(similarity, SIGMAS[point], area) * np.array([np.cos(angle), np.sin(angle)])
    found = error_kinds(moved, labelled(points), area, [], SIGMAS, FLIP)
    wanted = GOOD if similarity >= CLOSE else JITTER if similarity >= NEAR else MISS
    assert found[point] == wanted and (np.delete(found, point) == GOOD).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), people=st.integers(0, 3))
def test_every_labelled_point_has_one_kind_that_moving_the_scene_keeps(seed: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    scene = rng.uniform(0, 300, (people + 2, 5, 2))
    truth = np.column_stack([scene[0], rng.integers(0, 3, 5)])
    crowd = [(labelled(one), float(rng.uniform(1e3, 1e5))) for one in scene[2:]]
    found = error_kinds(scene[1], truth, AREA, crowd, SIGMAS, FLIP)
    assert ((found == NOT_LABELLED) == (truth[:, 2] == 0)).all() and found.max() <= MISS
    shift = np.array([512.0, -256.0])  # powers of two: nothing is rounded away
    moved = [(np.column_stack([one[:, :2] + shift, one[:, 2]]), area) for one, area in crowd]
    again = error_kinds(
        scene[1] + shift, np.column_stack([truth[:, :2] + shift, truth[:, 2]]), AREA, moved, SIGMAS, FLIP
    )
    assert (again == found).mean() == 1.0
    alone = error_kinds(scene[1], truth, AREA, [], SIGMAS, FLIP)
    assert SWAP not in alone and (alone[found == GOOD] == GOOD).all()
    assert (np.isin(found, [GOOD, JITTER]) == np.isin(alone, [GOOD, JITTER])).all()
