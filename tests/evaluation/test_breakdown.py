from typing import Any

import numpy as np
import pytest

from rtmpose.evaluation.breakdown import breakdown, per_keypoint_error
from rtmpose.skeleton import Skeleton

SKELETON = Skeleton(
    name="stick", names=("head", "left_hand", "right_hand"), limbs=((0, 1), (0, 2)), flip=(0, 2, 1),
    sigmas=(0.05, 0.05, 0.05), upper=(0,), lower=(1, 2),
)  # fmt: skip
POINTS = np.array([[50.0, 20], [80, 60], [20, 60]])


def result(image_id: int, points: np.ndarray, score: float = 0.9, **more: Any) -> dict[str, Any]:
    flat = np.concatenate([points, np.full((len(points), 1), score)], axis=1).ravel().tolist()
    return {"image_id": image_id, "keypoints": flat, "score": score, **more}


def person(
    annotation_id: int, image_id: int, points: np.ndarray = POINTS, **attributes: Any
) -> dict[str, Any]:
    flat = (
        np.concatenate([points, [[2], [2], [0]]], axis=1).ravel().tolist()
    )  # the right hand is not labelled
    return {
        "id": annotation_id, "image_id": image_id, "bbox": [10, 10, 80, 60], "iscrowd": 0, "area": 2500.0,
        "keypoints": flat, "attributes": attributes,
    }  # fmt: skip


def test_error_by_keypoint() -> None:
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [person(5, 1), person(6, 2), person(7, 2, POINTS + 30)],
    }
    moved = POINTS + np.array([[0, 0], [10, 0], [0, 0]])
    rows = per_keypoint_error(truth, [result(1, moved, annotation_id=5), result(2, POINTS)], SKELETON)
    assert [row["keypoint"] for row in rows] == list(SKELETON.names)
    head, left, right = rows
    assert (head["count"], left["count"], right["count"]) == (3, 3, 0)
    # Area 2500: 50 px. Person 7 is matched with person 6's prediction, 30 * sqrt(2) px away.
    assert head["median_error"] == 0 and head["pck"] == pytest.approx(2 / 3)
    assert left["median_error"] == pytest.approx(10 / 50) and left["pck"] == pytest.approx(1 / 3)
    expected = (1 + np.exp(-(10**2) / (2 * 0.01 * 2500)) + np.exp(-1800 / (2 * 0.01 * 2500))) / 3
    assert left["oks"] == pytest.approx(expected)
    assert right["median_error"] is right["pck"] is right["oks"] is None
    assert per_keypoint_error(truth, [], SKELETON)[0] == {
        "keypoint": "head", "count": 3, "median_error": None, "pck": 0.0, "oks": 0.0,
    }  # fmt: skip


def test_breakdown_by_attributes() -> None:
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            person(5, 1, view="front", occluded=0.1, truncated=False),
            person(6, 2, view="back", occluded=1.0, truncated=False),
        ],
    }
    # exp(-1/2) at the labelled left hand, 1 at the head: an OKS of 0.803
    moved = POINTS + np.array([[0, 0], [0.1 * 50, 0], [0, 0]])
    rows = {
        (row["attribute"], row["value"]): row for row in breakdown(truth, [result(1, moved)], SKELETON.sigmas)
    }
    assert set(rows) == {
        ("all", "all"), ("view", "front"), ("view", "back"), ("occluded", "0-25 %"), ("occluded", "75-100 %"),
        ("truncated", "no"),
    }  # fmt: skip
    front = rows["view", "front"]
    assert front["count"] == 1 and front["oks"] == pytest.approx((1 + np.exp(-0.5)) / 2)
    assert front["recall"] == pytest.approx(0.7)  # above 0.50 ... 0.80, not above 0.85 ... 0.95
    assert rows["view", "back"]["oks"] == rows["view", "back"]["recall"] == 0
    assert rows["all", "all"]["count"] == 2 and rows["all", "all"]["oks"] == pytest.approx(front["oks"] / 2)
    assert breakdown({"images": [], "annotations": []}, [], SKELETON.sigmas) == [
        {"attribute": "all", "value": "all", "count": 0, "oks": 0.0, "recall": 0.0}
    ]
