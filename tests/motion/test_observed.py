"""The people of one frame: what cannot be used is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.files import UserError
from rtmpose.motion.observed import distinct, observe, presence
from rtmpose.motion.options import TrackOptions
from rtmpose.motion.person import Person
from tests.motion.walkers import COCO17, SIZE, Walker, person

OPTIONS = TrackOptions()
SIGMAS = np.array(COCO17.sigmas)
GOOD = person(Walker((400, 500)).points(0.0))


def test_numbers_that_are_none_are_left_out() -> None:
    box, points = GOOD.box.copy(), GOOD.keypoints.copy()
    box[0], points[:] = np.nan, np.inf
    bad = [replace(GOOD, box=box), replace(GOOD, keypoints=points), replace(GOOD, box=GOOD.box[[2, 3, 0, 1]])]
    found = observe([*bad, GOOD], 17, SIZE, OPTIONS)
    assert found.index.tolist() == [3]


def test_one_point_that_is_no_number_counts_as_not_seen() -> None:
    points, confidence = GOOD.keypoints.copy(), GOOD.confidence.copy()
    points[4, 1], confidence[7] = np.nan, np.nan
    found = observe([replace(GOOD, keypoints=points, confidence=confidence)], 17, SIZE, OPTIONS)
    assert np.isfinite(found.points).all()
    assert found.confidence[0, [4, 7]].tolist() == [0, 0] and found.confidence[0, 5] == GOOD.confidence[5]


def test_points_of_another_model_are_refused() -> None:
    with pytest.raises(UserError, match=r"^keypoints: are 17x2; the tracker's skeleton has 133x2$"):
        observe([GOOD], 133, SIZE, OPTIONS)


def test_half_a_body_is_as_present_as_a_whole_one() -> None:
    half = np.where(np.arange(17) < 9, 0.8, 0.05)[None]
    assert presence(half) == pytest.approx(0.8) and presence(half * 0.2)[0] < OPTIONS.present
    assert observe([replace(GOOD, confidence=np.full(17, 0.1))], 17, SIZE, OPTIONS).posed.tolist() == [False]


def test_a_box_around_the_whole_frame_is_replaced_by_one_around_the_points() -> None:
    whole = replace(GOOD, box=np.array([0.0, 0, *SIZE]))
    found = observe([whole], 17, SIZE, OPTIONS).box[0]
    assert (found[2:] - found[:2] < np.array(SIZE) / 2).all()
    assert (GOOD.keypoints > found[:2]).all() and (GOOD.keypoints < found[2:]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_suppression_taken_twice_changes_nothing_and_keeps_the_best(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people: list[Person] = []
    for _ in range(5):
        points = Walker((float(rng.uniform(300, 500)), 500)).points(float(rng.uniform(0, 1)))
        people.append(person(points + rng.normal(0, 2, (17, 2)), 0.8, float(rng.uniform(0.4, 1))))
    found = observe(people, 17, SIZE, OPTIONS)
    once = distinct(found, SIGMAS, 0.6)
    again = distinct(replace(once), SIGMAS, 0.6)
    assert again.posed.tolist() == once.posed.tolist() and len(once) == len(found)
    best = int(np.argmax(found.box_score * found.presence * found.fit))
    assert once.posed[best]


def test_the_same_pose_twice_is_one_person() -> None:
    weaker = replace(GOOD, keypoints=GOOD.keypoints + 1, box_score=0.5)
    assert distinct(observe([weaker, GOOD], 17, SIZE, OPTIONS), SIGMAS, 0.9).posed.tolist() == [False, True]
