"""MRE and SDR beside values that were computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rtmpose.evaluation.bootstrap import resamples
from rtmpose.evaluation.radial import RadialErrors, radial_errors, radial_figures, radial_line
from rtmpose.files import UserError

NAMES = ("a", "b", "c")


def truth(spacings: tuple[Any, ...] = (0.1, 0.5)) -> dict[str, Any]:
    """Two images of one instance each; the third point of the second one is not labelled."""
    flags = (2, 2, 2), (2, 1, 0)
    return {
        "images": [{"id": 7}, {"id": 9}],
        "annotations": [
            {
                "id": image + 100, "image_id": image, "iscrowd": 0, "area": 100.0,
                "bbox": [0, 0, 50, 50], "spacing": spacing,
                "keypoints": [value for k, v in enumerate(flag) for value in (10.0 * k, 20.0, v)],
            }
            for image, spacing, flag in zip((7, 9), spacings, flags, strict=True)
        ],
    }  # fmt: skip


def result(image: int, offsets: list[tuple[float, float]], score: float = 0.5, named: bool = True) -> Any:
    points = [value for k, (x, y) in enumerate(offsets) for value in (10.0 * k + x, 20.0 + y, 0.9)]
    found = {"image_id": image, "keypoints": points, "score": score}
    return found | ({"annotation_id": image + 100} if named else {})


# Image 7 at 0.1 mm per px: (3, 4) px are 5 px = 0.5 mm; (0, 20) px = 2 mm; (30, 40) px = 5 mm.
# Image 9 at 0.5 mm per px: (0, 5) px = 2.5 mm; (6, 8) px = 5 mm; the third one is not labelled.
RESULTS = [result(7, [(3, 4), (0, 20), (30, 40)]), result(9, [(0, 5), (6, 8), (999, 999)])]
ERRORS = [0.5, 2.0, 5.0, 2.5, 5.0]  # mm; their sum is 15


@pytest.mark.parametrize("named", [True, False])
def test_figures_are_those_computed_by_hand(named: bool) -> None:
    results = (
        RESULTS if named else [{k: v for k, v in one.items() if k != "annotation_id"} for one in RESULTS]
    )
    figures = radial_figures(truth(), results, NAMES)
    assert figures["MRE"] == pytest.approx(15 / 5)
    # Squares of the distances from 3: 6.25 + 1 + 4 + 0.25 + 4 = 15.5.
    assert figures["SD"] == pytest.approx(math.sqrt(15.5 / 5))
    # At most 2 mm: 0.5 and 2, the bound itself counts; at most 2.5, 3 and 4 mm: those and 2.5.
    assert figures["SDR"] == pytest.approx({"2mm": 2 / 5, "2.5mm": 3 / 5, "3mm": 3 / 5, "4mm": 3 / 5})
    # a: (0.5 + 2.5) / 2; b: (2 + 5) / 2; c: 5 alone.
    assert figures["landmarks"] == pytest.approx({"a": 1.5, "b": 3.5, "c": 5.0})
    assert radial_line(figures).startswith("MRE 3.000 ± 1.761 mm [2.500, 3.750]  SDR 2mm 40.0 % [0.0, 66.7]")


def test_intervals_draw_whole_images() -> None:
    """Of two images a resample holds (2, 0), (1, 1) or (0, 2): MRE 7.5/3, 15/5 or 7.5/2, SDR 2/3, 2/5, 0."""
    figures = radial_figures(truth(), RESULTS, NAMES)
    assert (figures["MRE_low"], figures["MRE_high"]) == pytest.approx((2.5, 3.75))
    assert (figures["SDR_low"]["2mm"], figures["SDR_high"]["2mm"]) == pytest.approx((0.0, 2 / 3))
    errors = radial_errors(truth(), RESULTS, 3)
    found = errors.mean_interval(np.array([[1, 1]]))
    assert (found.low, found.value, found.high) == pytest.approx((3, 3, 3))


def test_scaling_image_and_spacing_against_each_other_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 900, (4, 2, 3, 2))

    def figures(scale: float) -> dict[str, Any]:
        content: dict[str, Any] = {"images": [{"id": n} for n in range(4)], "annotations": []}
        results = []
        for n, (true, found) in enumerate(points * scale):
            flat = [[*pair, 2.0] for pair in true.tolist()]
            about = {"id": n, "image_id": n, "iscrowd": 0, "area": 1.0, "bbox": [0, 0, 9, 9]}
            content["annotations"].append(
                about | {"spacing": 0.1 / scale, "keypoints": [value for point in flat for value in point]}
            )
            row = [value for pair in found.tolist() for value in (*pair, 0.5)]
            results.append({"image_id": n, "annotation_id": n, "keypoints": row, "score": 1.0})
        return radial_figures(content, results, NAMES)

    one, other = figures(1.0), figures(4.0)
    assert one.pop("landmarks") == pytest.approx(other.pop("landmarks"))
    assert [one[key] for key in ("MRE", "SD", "MRE_low")] == pytest.approx(
        [other[key] for key in ("MRE", "SD", "MRE_low")]
    )


def test_the_best_result_of_an_image_counts_where_none_names_its_instance() -> None:
    good, bad = result(7, [(0, 0)] * 3, 0.9, named=False), result(7, [(50, 0)] * 3, 0.2, named=False)
    for order in ([good, bad], [bad, good]):
        assert radial_errors(truth(), order, 3).errors[0].tolist() == [0, 0, 0]
    other = {**result(7, [(1, 0)] * 3, 0.1), "annotation_id": 107}
    assert radial_errors(truth(), [good, other], 3).errors[0] == pytest.approx([0.1] * 3)


def test_who_was_not_predicted_is_not_found() -> None:
    errors = radial_errors(truth(), RESULTS[:1], 3)
    assert np.isinf(errors.errors[1, :2]).all() and np.isnan(errors.errors[1, 2])
    assert errors.mean() == pytest.approx(2.5)  # of image 7 alone
    assert errors.rate(2.0) == pytest.approx(2 / 5) and errors.rate(1e9) == pytest.approx(3 / 5)


def test_nothing_labelled_gives_no_number() -> None:
    empty = RadialErrors(np.full((2, 3), np.nan), np.array([0, 1]), 2)
    assert math.isnan(empty.mean()) and math.isnan(empty.spread()) and math.isnan(empty.rate(2.0))
    none = radial_errors({"images": [{"id": 7}], "annotations": []}, RESULTS, 3)
    assert none.errors.shape == (0, 3) and none.images == 1
    figures = radial_figures({"images": [{"id": 7}], "annotations": []}, RESULTS, NAMES)
    assert figures["MRE"] is figures["SDR_low"]["2mm"] is figures["landmarks"]["a"] is None
    assert radial_line(figures) == "MRE and SDR are not known: no landmark is labelled and predicted"


@pytest.mark.parametrize("spacing", [None, 0, -0.1, float("nan"), "", "x", [0.1]])
def test_no_spacing_is_one_line(spacing: Any) -> None:
    with pytest.raises(UserError, match=r"annotation 109 of image 9: spacing: .*; ?") as caught:
        radial_figures(truth((0.1, spacing)), RESULTS, NAMES)
    assert "\n" not in str(caught.value)
    content = truth()
    del content["annotations"][1]["spacing"]
    with pytest.raises(UserError, match="errors in mm need the image's mm per px"):
        radial_figures(content, RESULTS, NAMES)


def test_intervals_narrow_with_more_images() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for count in (20, 500):
        errors = RadialErrors(rng.exponential(2.0, (count, 4)), np.arange(count), count)
        found = errors.mean_interval(resamples(count))
        assert found.low < errors.mean() < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3
