"""Mean keypoint error on small known cases, and intervals by drawing images again."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.bootstrap import Ranking, percentile_interval, resampled_error, resamples
from rtmpose.evaluation.coco import evaluate_keypoints
from rtmpose.evaluation.error import PointErrors, point_errors, set_mean_pose
from rtmpose.evaluation.mean_pose import mean_pose_predictions
from rtmpose.evaluation.predict import Pose, to_results
from tests.evaluation.test_coco import photographs
from tests.support import golden

SIGMAS = load_skeleton("coco17").sigmas
SQUARE = np.array([[0.0, 0], [1, 0], [0, 1]])


def person(
    image: int, number: int, shift: float = 0.0, visible: tuple[int, ...] = (2, 1, 2), **more: Any
) -> dict[str, Any]:
    """Three corners of a box of 100 x 100 px with an area of 2500 px^2, the points `shift` px to the right in
    it.
    """
    points = 100.0 * SQUARE + [shift, 0]
    flat = np.concatenate([points, np.array(visible)[:, None]], axis=1).ravel().tolist()
    base = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "area": 2500.0,
        "bbox": [0.0, 0.0, 100.0, 100.0],
    }
    return base | {"keypoints": flat, "num_keypoints": sum(v > 0 for v in visible)} | more


def pose(image: int, number: int, shift: float) -> Pose:
    return Pose(image, 100.0 * SQUARE + [shift, 0], np.ones(3), 1.0, 1e4, [0, 0, 100, 100], number)


def small_set(*annotations: dict[str, Any]) -> dict[str, Any]:
    numbers = sorted({item["image_id"] for item in annotations})
    return {"images": [{"id": number} for number in numbers], "annotations": list(annotations)}


def test_distances_over_the_persons_size_and_labelled_points_only() -> None:
    crowd, nobody = person(2, 12, iscrowd=1), person(2, 13, visible=(0, 0, 0))
    truth = small_set(
        person(1, 10), person(1, 11, visible=(2, 0, 0)), crowd, nobody, person(3, 10), person(3, 14, area=0.0)
    )
    poses = [pose(1, 10, 5.0), pose(1, 11, -20.0), pose(3, 10, 10.0), pose(3, 14, 1e6)]
    errors = point_errors(truth, poses, SQUARE)
    assert errors.count.tolist() == [4, 0, 3]
    np.testing.assert_allclose(
        errors.total, [3 * 5 / 50 + 20 / 50, 0, 3 * 10 / 50]
    )  # over the root of the area, 50 px
    assert errors.mean == pytest.approx((0.7 + 0.6) / 7)
    assert np.isnan(PointErrors(np.zeros(2), np.zeros(2)).mean)


def test_without_a_prediction_a_person_counts_as_the_mean_pose() -> None:
    truth = small_set(person(1, 10, shift=-10.0), person(2, 11, shift=10.0), person(2, 12, shift=30.0))
    mean = set_mean_pose(truth, 3)
    np.testing.assert_allclose(mean, SQUARE + np.array([0.1, 0]))
    floor = point_errors(truth, (), mean)
    assert floor.mean == pytest.approx((20 + 0 + 20) / 3 / 50)
    assert point_errors(truth, [pose(1, 10, -10.0)], mean).mean == pytest.approx(20 / 3 / 50)
    put = mean_pose_predictions(mean, truth)
    poses = [
        Pose(
            p["image_id"],
            np.array(p["keypoints"]).reshape(3, 3)[:, :2],
            np.ones(3),
            1,
            1,
            (),
            p["annotation_id"],
        )
        for p in put
    ]
    np.testing.assert_allclose(point_errors(truth, poses, mean).total, floor.total)


def reference() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The four photographs of the golden evaluation and the reference's noisy predictions."""
    case = json.loads(golden("eval.json").read_text())["coco_noise0.03"]
    poses = []
    for item in case["predictions"]:
        x, y, right, bottom = item["bbox_xyxy"]
        area = float(np.prod(item["bbox_scale_wh_padded"]))
        keypoints, scores = np.array(item["keypoints"]), np.array(item["keypoint_scores"])
        poses.append(
            Pose(item["img_id"], keypoints, scores, item["bbox_score"], area, [x, y, right - x, bottom - y])
        )
    return json.loads(photographs().read_text()), to_results(poses, SIGMAS)


def noisy_set(images: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Persons of 17 random points with predictions of all qualities, false ones and missing ones; some images
    are empty.
    """
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(images):
        for _ in range(rng.integers(0, 4)):
            points = rng.uniform(0, 200, (17, 2))
            flat = np.concatenate([points, np.full((17, 1), 2.0)], axis=1).ravel().tolist()
            number, box = len(annotations) + 1, [0.0, 0.0, 200.0, 200.0]
            annotations.append({"id": number, "image_id": image, "area": 2e4, "bbox": box, "keypoints": flat})
            for spread in rng.choice([3.0, 15.0, 300.0], rng.integers(0, 3)):
                moved = np.concatenate([points + rng.normal(0, spread, (17, 2)), np.ones((17, 1))], axis=1)
                results.append(
                    {"image_id": image, "keypoints": moved.ravel().tolist(), "score": float(rng.uniform())}
                )
    return {"images": [{"id": image} for image in range(images)], "annotations": annotations}, results


def test_ap_of_the_set_itself_is_that_of_pycocotools() -> None:
    for truth, results in (reference(), noisy_set(40)):
        ones = np.ones((1, len(truth["images"])), np.int64)
        expected = evaluate_keypoints(truth, results, SIGMAS)["AP"]
        assert 0 < expected < 1
        assert Ranking.of(truth, results, SIGMAS).resampled_ap(ones)[0] == pytest.approx(expected, abs=1e-12)


def copied(truth: dict[str, Any], results: list[dict[str, Any]], draws: np.ndarray) -> float:
    """AP of a set in which image i stands draws[i] times, as pycocotools sees it."""
    again: dict[str, list[Any]] = {"images": [], "annotations": []}
    predictions = []
    for index, image in enumerate(truth["images"]):
        for copy in range(draws[index]):
            number = {"image_id": 1000 * copy + image["id"]}
            again["images"].append({"id": number["image_id"]})
            again["annotations"] += [
                item | number for item in truth["annotations"] if item["image_id"] == image["id"]
            ]
            predictions += [item | number for item in results if item["image_id"] == image["id"]]
    return evaluate_keypoints(again, predictions, SIGMAS)["AP"]


def test_images_drawn_twice_are_two_images() -> None:
    truth, results = noisy_set(12)
    draws = resamples(12, times=8, seed=3)
    assert (draws.sum(1) == 12).all() and draws.max() > 2
    expected = [copied(truth, results, row) for row in draws]
    np.testing.assert_allclose(Ranking.of(truth, results, SIGMAS).resampled_ap(draws), expected, atol=1e-12)
    assert len(set(expected)) == 8


def test_no_predictions_and_no_persons() -> None:
    truth, _ = noisy_set(5)
    assert Ranking.of(truth, [], SIGMAS).resampled_ap(np.ones((1, 5), np.int64)).tolist() == [0.0]
    ranking = Ranking.of(truth | {"annotations": truth["annotations"][:1]}, [], SIGMAS)
    nobody = np.array([[0, 0, 0, 0, 5]]) * (ranking.persons == 0)
    assert np.isnan(ranking.resampled_ap(nobody)).all()
    assert percentile_interval(np.array([np.nan, 0.25, 0.25])) == (0.25, 0.25)


def test_intervals_cover_what_they_should() -> None:
    """Of sets drawn from one law about 95 % have the law's own mean in their interval."""
    rng = np.random.default_rng(7)
    covered = 0
    for seed in range(200):
        count = rng.integers(1, 30, 60).astype(float)
        errors = PointErrors(count * rng.gamma(2.0, 0.1, 60), count)  # 0.2 in the mean
        low, high = percentile_interval(resampled_error(errors, resamples(60, times=300, seed=seed)))
        assert low < errors.mean < high
        covered += low <= 0.2 <= high
    assert 175 <= covered <= 198


def test_a_thousand_resamples_of_two_hundred_images_take_seconds() -> None:
    truth, results = noisy_set(200)
    draws, start = resamples(200, times=1000, seed=1), time.process_time()
    ranking = Ranking.of(truth, results, SIGMAS)
    low, high = percentile_interval(ranking.resampled_ap(draws))
    assert low < evaluate_keypoints(truth, results, SIGMAS)["AP"] < high and high - low < 0.2
    assert time.process_time() - start < 10
    assert (draws == resamples(200, times=1000, seed=1)).all()
