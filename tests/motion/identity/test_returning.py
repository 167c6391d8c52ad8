"""Who comes back."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.motion.boxes import sizes
from rtmpose.motion.identity.returning import growths, return_similarity

few = settings(max_examples=25, deadline=None)
PICTURE = (1000, 600)


def test_who_returns_went_on_or_stood_and_did_not_turn_back() -> None:
    last, onward = np.zeros((1, 1, 2)), np.array([[[3.0, 0.0]]])
    places = np.array([[[3.0, 0], [1.5, 0], [0, 0], [-2, 0], [1.5, 3]]])
    found = return_similarity(last, onward, places, np.ones((1, 5)), np.array([1.0]))[0]
    assert found[0] == 1 and found[0] > found[1] > found[2] > 0.4 and (found[3:] < 0.2).all()
    halved = return_similarity(last, onward, places[:, :1], np.full((1, 1), 0.5), np.array([1.0]))
    assert halved < 0.1


@few
@given(st.floats(5, 95), st.floats(5, 95), st.floats(0.5, 2))
def test_of_who_is_cut_by_the_side_the_height_tells(before: float, after: float, growth: float) -> None:
    out = np.array([[0.0, 100, before, 300]])
    back = np.array([[0.0, 100, after, 100 + 200 * growth], [1000 - after, 100, 1000, 100 + 200 * growth]])
    assert np.allclose(growths(out, sizes(out), back, PICTURE), growth)
    inside = np.array([[300.0, 100, 400, 300]])
    assert np.allclose(growths(inside, sizes(inside), back, PICTURE), growth)


def test_of_who_is_whole_the_area_tells_and_of_who_is_cut_twice_nothing() -> None:
    whole, twice = np.array([[300.0, 100, 400, 300]]), np.array([[0.0, 0, 50, 500]])
    larger = np.array([[500.0, 100, 700, 500]])
    assert np.allclose(growths(whole, sizes(whole), larger, PICTURE), 2)
    assert np.allclose(growths(twice, sizes(twice), larger, PICTURE), 1)
