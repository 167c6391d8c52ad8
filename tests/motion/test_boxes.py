"""Boxes from points."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtmpose.motion import boxes

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def people(seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 500, (3, 17, 2)), rng.random((3, 17)) < 0.5


@few
@given(seeds)
def test_a_box_holds_the_seen_points_whatever_the_detector_said(seed: int) -> None:
    points, seen = people(seed)
    seen[:, :2] = True
    rng = np.random.default_rng(seed)
    extent = boxes.extents(points, seen)
    detector = np.sort(rng.uniform(0, 500, (3, 2, 2)), 1).reshape(3, 4)
    found = boxes.with_margins(extent, boxes.margins_of(extent, detector))
    for box, each, shown in zip(found, points, seen, strict=True):
        assert (each[shown] >= box[:2]).all() and (each[shown] <= box[2:]).all()


@few
@given(seeds)
def test_margins_give_back_a_fitting_detector_box(seed: int) -> None:
    points, seen = people(seed)
    seen[:, :2] = True
    rng = np.random.default_rng(seed)
    extent = boxes.extents(points, seen)
    detector = boxes.with_margins(extent, rng.uniform(0.03, 0.29, (3, 4)))
    assert np.allclose(boxes.with_margins(extent, boxes.margins_of(extent, detector)), detector)


def test_one_point_has_no_extent() -> None:
    points, _ = people(0)
    seen = np.zeros((3, 17), bool)
    seen[0, :2], seen[1, 0] = True, True
    assert np.isnan(boxes.extents(points, seen)).all(1).tolist() == [False, True, True]


@few
@given(seeds)
def test_overlap_is_of_both_alike_and_that_of_itself_is_one(seed: int) -> None:
    points, seen = people(seed)
    first = boxes.extents(points, np.ones_like(seen))
    second = boxes.moved(first, np.array([[10.0, -20.0]] * 3))
    assert np.allclose(boxes.overlaps(first, second), boxes.overlaps(second, first).T)
    assert np.allclose(np.diag(boxes.overlaps(first, first)), 1)
    assert boxes.overlaps(first, first + 1e4).max() == 0


def test_a_box_outside_the_frame_gets_no_area() -> None:
    cut = boxes.clipped(np.array([[-50.0, -50, -10, 20], [-10, 5, 30, 700]]), (640, 480))
    assert boxes.areas(cut)[0] == 0 and cut[1].tolist() == [0, 5, 30, 480]


@few
@given(seeds)
def test_a_box_on_the_border_stays_on_it_and_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = (640, 480)
    first = np.sort(rng.uniform(20, 450, (4, 2, 2)), 1).reshape(4, 4)
    first[:2, 0] = 0.0
    by = rng.uniform(-15, 15, (4, 2))
    after = boxes.carried(first, by, picture)
    assert boxes.at_border(first, picture)[:2, 0].all() and not boxes.at_border(first[2:], picture).any()
    assert (after[:2, 0] == 0).all() and np.allclose(after[:2, 1:], boxes.moved(first, by)[:2, 1:])
    assert np.allclose(after[2:], boxes.moved(first, by)[2:])
    far = boxes.carried(first, by * 100, picture)
    assert (far >= 0).all() and (far <= np.tile(picture, 2)).all()


def test_the_border_cuts_the_side_that_ends_on_it() -> None:
    some = np.array([[0.0, 50, 40, 300], [50, 60, 90, 480], [0, 50, 640, 477], [9, 9, 99, 99]])
    narrowed, shortened = boxes.cut_sides(some, (640, 480))
    assert narrowed.tolist() == [True, False, True, False]
    assert shortened.tolist() == [False, True, True, False]


@few
@given(seeds)
def test_paired_overlap_is_the_diagonal_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = np.sort(rng.uniform(0, 90, (2, 5, 2, 2)), 2).reshape(2, 5, 4)
    assert np.allclose(boxes.paired_overlaps(first, second), np.diag(boxes.overlaps(first, second)))


@few
@given(seeds)
def test_near_are_boxes_that_overlap_once_widened(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = np.sort(rng.uniform(0, 90, (2, 5, 2, 2)), 2).reshape(2, 5, 4)
    reach = rng.uniform(0, 20, 5)
    wide = first + reach[:, None] * (-1, -1, 1, 1)
    assert (boxes.near(first, reach, second) == (boxes.overlaps(wide, second) > 0)).all()
