"""How like a found person is to one who is expected."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.motion.identity.likeness import Body, combined, pose_similarity
from tests.motion.walkers import COCO17, Walker, truth

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
BODY = Body(np.array(COCO17.sigmas), np.array(COCO17.flip))


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
