"""Left and right over time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.descriptors import load_skeleton
from rtmpose.motion import sides
from tests.motion.walkers import COCO17, Walker, truth

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
CHAINS = sides.chains_of(COCO17)
FLIP = np.array(COCO17.flip)
SIZE = np.array([150.0])
LEGS = int(CHAINS.of_point[COCO17.names.index("left_ankle")])


def named(skeleton_name: str) -> dict[str, int]:
    """The chain of each point."""
    skeleton = load_skeleton(skeleton_name)
    return dict(zip(skeleton.names, sides.chains_of(skeleton).of_point.tolist(), strict=True))


@pytest.mark.parametrize("name", ["coco17", "coco_wholebody", "halpe26"])
def test_a_body_has_a_chain_of_legs_of_arms_and_of_the_head(name: str) -> None:
    chain = named(name)
    groups = [("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"), ("eye", "ear")]
    numbers = [{chain[f"{side}_{part}"] for part in parts for side in ("left", "right")} for parts in groups]
    assert all(len(each) == 1 for each in numbers) and len(set.union(*numbers)) == 3


def test_feet_belong_to_the_legs_and_faces_without_limbs_are_one_chain() -> None:
    chain = named("coco_wholebody")
    assert chain["left_heel"] == chain["right_ankle"]
    face = {chain[f"face-{k}"] for k in (0, 3, 36, 60)}
    assert len(face) == 1 and face.isdisjoint({chain["left_eye"], chain["left_hip"]})
    lone = sides.chains_of(load_skeleton("coco_wholebody_hand"))
    assert lone.count == 0 and len(lone.left) == 0


@few
@given(seeds)
def test_a_repair_taken_twice_is_none_and_keeps_the_set_of_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, swap = rng.normal(0, 100, (2, 17, 2)), rng.random((2, CHAINS.count)) < 0.5
    take = sides.sources(swap, CHAINS, FLIP)
    rows = np.arange(2)[:, None]
    repaired = points[rows, take]
    assert np.array_equal(repaired[rows, take], points)
    assert np.array_equal(np.sort(repaired.reshape(2, -1)), np.sort(points.reshape(2, -1)))


@few
@given(seeds, st.floats(0, 2), st.sets(st.integers(0, CHAINS.count - 1)))
def test_swapped_chains_are_found_and_no_others(seed: int, time: float, which: set[int]) -> None:
    rng = np.random.default_rng(seed)
    walker = Walker((300, 500), yaw=20, phase=float(rng.uniform(0, 6)))  # shows both sides apart
    expected = truth(walker, [time])
    swap = np.zeros((1, CHAINS.count), bool)
    swap[0, list(which)] = True
    points = expected[:, sides.sources(swap, CHAINS, FLIP)[0]] + rng.normal(0, 2, (1, 17, 2))
    found = sides.swapped(points, expected, np.ones((1, 17)), SIZE, CHAINS)
    clear = np.linalg.norm(expected[0, CHAINS.left] - expected[0, CHAINS.right], axis=1)
    for chain in range(CHAINS.count):
        if clear[CHAINS.chain == chain].min() > 20:
            assert found[0, chain] == (chain in which)


def test_a_body_that_swaps_takes_along_limbs_that_cannot_be_decided() -> None:
    expected = truth(Walker((300, 500), yaw=15), [0.2])
    knees = CHAINS.chain == LEGS
    middle = expected[:, CHAINS.left[knees]] / 2 + expected[:, CHAINS.right[knees]] / 2
    for points in (CHAINS.left, CHAINS.right):
        expected[:, points[knees]] = middle  # the legs lie on each other
    found = sides.swapped(expected[:, FLIP], expected, np.ones((1, 17)), SIZE, CHAINS)
    assert found.all()
    assert not sides.swapped(expected, expected, np.ones((1, 17)), SIZE, CHAINS).any()


def test_points_out_of_sight_decide_nothing() -> None:
    expected = truth(Walker((300, 500), yaw=0), [0.2])
    assert not sides.swapped(expected[:, FLIP], expected, np.zeros((1, 17)), SIZE, CHAINS).any()


def test_sides_that_keep_being_swapped_are_believed_in_the_end() -> None:
    doubt, swap = np.zeros((1, 1)), np.ones((1, 1), bool)
    repaired: list[bool] = []
    for _ in range(8):
        mend, doubt = sides.believed(swap, doubt, np.array([0.1]), patience=0.45)
        repaired.append(bool(mend[0, 0]))
    assert repaired == [True] * 4 + [False] + [True] * 3
    _, calmer = sides.believed(~swap, np.full((1, 1), 0.25), np.array([0.1]), patience=0.45)
    assert calmer[0, 0] == pytest.approx(0.15)
