"""PCK, AUC, EPE and NME of small cases that can be computed by hand, and what must hold of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from rtmpose.evaluation.bootstrap import resamples
from rtmpose.evaluation.measures import area_under_curve, mean_error, normalised, pck
from rtmpose.evaluation.measures.points import Sums

TRUE = np.zeros((2, 2, 2))
# Distances: 5 and 0 px of the first person, 10 and 13 px of the second.
PREDICTED = np.array([[[3.0, 4.0], [0.0, 0.0]], [[6.0, 8.0], [5.0, 12.0]]])
LABELLED = np.array([[True, True], [True, False]])


def test_by_hand() -> None:
    """The second person's second point is not labelled: distances 5, 0 and 10 px."""
    errors = normalised(PREDICTED, TRUE, LABELLED)
    np.testing.assert_array_equal(errors, [[5, 0], [10, np.nan]])
    assert mean_error(errors) == pytest.approx((5 + 0 + 10) / 3)  # EPE
    by_norm = normalised(PREDICTED, TRUE, LABELLED, [10.0, 40.0])
    np.testing.assert_allclose(by_norm, [[0.5, 0], [0.25, np.nan]])
    assert mean_error(by_norm) == pytest.approx((0.5 + 0 + 0.25) / 3)  # NME
    np.testing.assert_array_equal(pck(by_norm, 0.5), [[0, 1], [1, np.nan]])  # the bound itself is missed
    sums = Sums.of(pck(by_norm, 0.5), np.array([0, 1]), 2)
    np.testing.assert_allclose(sums.by_keypoint()[0], [1 / 2, 1 / 1])
    assert sums.over_keypoints()[0] == pytest.approx((1 / 2 + 1) / 2)
    assert sums.over_points()[0] == pytest.approx(2 / 3)
    # Image 0 three times: (0 + 0 + 0) of 3 and 3 of 3. Image 1 alone: 1 of 1, the second point is not there.
    draws = np.array([[3, 0], [0, 1]])
    np.testing.assert_allclose(sums.by_keypoint(draws), np.array([[0, 1], [1, np.nan]]))
    np.testing.assert_allclose(sums.over_points(draws), [3 / 6, 1])


def test_area_under_the_curve_by_hand() -> None:
    """Four thresholds 0, 0.25, 0.5, 0.75: an error of 0 lies below three of them, 0.25 below two, 0.6 below
    one, 0.75 and more below none.
    """
    errors = np.array([[0.0, 0.25, 0.6, 0.75, 2.0, np.nan, np.inf]])
    np.testing.assert_array_equal(area_under_curve(errors, 4), [[0.75, 0.5, 0.25, 0, 0, np.nan, 0]])


def test_points_that_are_no_numbers() -> None:
    predicted, true = PREDICTED.copy(), TRUE.copy()
    predicted[0, 0, 1], true[0, 1, 0] = np.nan, np.nan
    errors = normalised(predicted, true, LABELLED, [1.0, 1.0])
    np.testing.assert_array_equal(errors, [[np.inf, np.nan], [10, np.nan]])  # missed; not judged
    np.testing.assert_array_equal(pck(errors, 1e9), [[0, np.nan], [1, np.nan]])
    assert mean_error(errors) == np.inf
    sums = Sums.of(errors, np.array([0, 1]), 2)
    np.testing.assert_array_equal(sums.over_points(np.array([[1, 1], [0, 2]])), [np.inf, 10])
    for norm in (0.0, -1.0, np.nan, np.inf):
        assert np.isnan(normalised(PREDICTED, TRUE, LABELLED, [norm, 1.0])[0]).all()


def test_nobody() -> None:
    errors = normalised(np.zeros((0, 3, 2)), np.zeros((0, 3, 2)), np.zeros((0, 3)))
    assert errors.shape == (0, 3) and np.isnan(mean_error(errors))
    sums = Sums.of(pck(errors, 0.2), np.zeros(0, np.int64), 4)
    assert np.isnan(sums.over_keypoints(resamples(4, 3))).all() and np.isnan(sums.over_points()).all()


Case = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


@st.composite
def persons(draw: st.DrawFn) -> Case:
    """Predicted and true points on a grid of 1/8 px, labels, norms that are powers of 2: sums are exact."""
    count, keypoints = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    shape = (count, keypoints, 2)
    places = st.integers(-800, 800).map(lambda value: value / 8)
    predicted, true = (draw(arrays.arrays(np.float64, shape, elements=places)) for _ in range(2))
    labelled = draw(arrays.arrays(bool, shape[:2]))
    norm = draw(arrays.arrays(np.float64, count, elements=st.sampled_from([8.0, 16.0, 64.0])))
    return predicted, true, labelled, norm


@settings(max_examples=40, deadline=None)
@given(persons(), st.sampled_from([0.25, 4.0]), st.integers(-50, 50), st.randoms(use_true_random=False))
def test_what_must_not_matter(case: Case, scale: float, shift: int, random: Any) -> None:
    """Neither the unit, nor where the image begins, nor the order of persons and points, nor what is
    predicted for a point that is not labelled.
    """
    predicted, true, labelled, norm = case
    errors = normalised(predicted, true, labelled, norm)
    moved = normalised(predicted * scale + shift, true * scale + shift, labelled, norm * scale)
    np.testing.assert_allclose(moved, errors, rtol=1e-12)
    rows, columns = (random.sample(range(count), count) for count in labelled.shape)
    order = np.ix_(rows, columns)
    np.testing.assert_array_equal(
        normalised(predicted[order], true[order], labelled[order], norm[rows]), errors[order]
    )
    elsewhere = np.where(labelled[..., None], predicted, np.nan)
    np.testing.assert_array_equal(normalised(elsewhere, true, labelled, norm), errors)


@settings(max_examples=40, deadline=None)
@given(persons())
def test_bounds(case: Case) -> None:
    """PCK grows with its threshold, its area lies below it, and what is perfect is perfect."""
    predicted, true, labelled, norm = case
    errors = normalised(predicted, true, labelled, norm)
    image = np.zeros(len(norm), np.int64)

    def share(values: NDArray[Any]) -> float:
        return float(Sums.of(values, image, 1).over_keypoints()[0])

    shares = [share(pck(errors, threshold)) for threshold in (0.0, 0.1, 0.5, 1.0, np.inf)]
    if not labelled.any():
        assert np.isnan(shares).all()
        return
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1
    assert 0 <= share(area_under_curve(errors)) <= share(pck(errors, 0.95))
    perfect = normalised(true, true, labelled, norm)
    assert mean_error(perfect) == 0 and share(pck(perfect, 1e-9)) == 1
    assert share(area_under_curve(perfect)) == pytest.approx(0.95)
