"""Predictions find their persons, AP is 1 where all errors are mended, and the worst poses are drawn."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rtmpose.drawing import LEFT, RIGHT
from rtmpose.evaluation.coco import evaluate_keypoints
from rtmpose.evaluation.mistakes.costs import costs
from rtmpose.evaluation.mistakes.judged import judge, mended
from rtmpose.evaluation.mistakes.kinds import ERRORS, INVERSION, JITTER, KINDS, MISS, SWAP
from rtmpose.evaluation.mistakes.worst import GAP, SIDE, drawn, worst_of
from rtmpose.skeleton import Skeleton
from tests.evaluation.mistakes.test_kinds import FAR, FLIP, POSE, SIGMAS, at

NAMES = ("head", "left_hand", "right_hand", "left_foot", "right_foot")
STICK = Skeleton(
    name="stick", names=NAMES, limbs=((0, 1), (0, 2), (0, 3), (0, 4)), flip=FLIP, sigmas=SIGMAS,
    upper=(0, 1, 2), lower=(3, 4),
)  # fmt: skip


def person(number: int, image: Any, points: NDArray[np.floating] = POSE) -> dict[str, Any]:
    flat = np.column_stack([points, np.full(len(points), 2)]).ravel().tolist()
    x, y = points.min(0)
    return {
        "id": number, "image_id": image, "bbox": [x, y, 120.0, 180.0], "iscrowd": 0, "area": 10_000.0,
        "keypoints": flat,
    }  # fmt: skip


def result(image: Any, points: NDArray[np.floating], score: float = 0.9, **more: Any) -> dict[str, Any]:
    flat = np.column_stack([points, np.full(len(points), score)]).ravel().tolist()
    return {"image_id": image, "category_id": 1, "keypoints": flat, "score": score, **more}


def moved(similarity: float) -> NDArray[np.float64]:
    """Every point as far from its place."""
    return POSE + np.array([[0.0, at(similarity, sigma)] for sigma in SIGMAS])


@pytest.fixture
def scene() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Four images with one fault each, and one without."""
    truth = {
        "images": [{"id": number} for number in range(5)],
        "annotations": [person(10, 0), person(11, 1), person(12, 2), person(13, 2, POSE + FAR), person(14, 3),
                        person(15, 4)],
    }  # fmt: skip
    results = [
        result(0, moved(0.7), annotation_id=10),
        result(1, POSE[list(FLIP)], 0.8, annotation_id=11),
        result(2, POSE + FAR + 1, 0.7, annotation_id=12),
        result(2, POSE + FAR, 0.95, annotation_id=13),
        result(3, POSE + 400, 0.6, annotation_id=14),
        result(4, POSE, 0.99, annotation_id=15),
    ]
    return truth, results


def test_what_each_kind_costs(scene: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    truth, results = scene
    judged, missing = judge(truth, results, STICK)
    found = costs(truth, results, judged, missing, STICK)
    assert found["points"] == {"good": 11, "jitter": 5, "inversion": 4, "swap": 5, "miss": 5}
    assert found["keypoints"]["head"] == {"good": 3, "jitter": 1, "inversion": 0, "swap": 1, "miss": 1}
    assert (found["persons"], found["without_prediction"]) == (6, 0)
    ap = evaluate_keypoints(truth, results, SIGMAS)["AP"]
    assert found["AP"]["value"] == pytest.approx(ap)
    assert found["AP"]["low"] < ap < found["AP"]["high"]
    assert found["mended"]["all"] == 1.0
    assert all(ap < found["mended"][kind] < 1.0 for kind in ERRORS), found["mended"]


def test_mending_moves_the_points_of_one_kind_alone(
    scene: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    truth, results = scene
    judged, _ = judge(truth, results, STICK)
    for place, number in ((0, JITTER), (1, INVERSION), (2, SWAP), (4, MISS)):
        after = mended(results, judged, [number])
        changed = [row for row, (old, new) in enumerate(zip(results, after, strict=True)) if old != new]
        assert changed == [place], KINDS[number]
        again, _ = judge(truth, after, STICK)
        assert (again[place].kinds == 0).all() and after[place]["score"] == results[place]["score"]


def test_results_that_name_nobody_go_to_the_most_alike_each_once() -> None:
    truth = {"images": [{"id": "a"}], "annotations": [person(1, "a"), person(2, "a", POSE + 8)]}
    judged, missing = judge(truth, [result("a", POSE + 8), result("a", POSE + 9)], STICK)
    assert [(one.person.annotation["id"], one.place) for one in judged] == [(1, 1), (2, 0)] and missing == 0
    judged, missing = judge(truth, [result("a", POSE + 8)], STICK)
    assert [one.person.annotation["id"] for one in judged] == [2] and missing == 1
    assert judge(truth, [], STICK) == ([], 2)


def test_crowds_and_persons_without_points_are_left_out_and_an_area_may_lack() -> None:
    without = person(2, 1)
    without["keypoints"] = [0.0] * 15
    annotations = [person(1, 1) | {"iscrowd": 1}, without, person(3, 1) | {"area": None}]
    truth = {"images": [{"id": 1}], "annotations": annotations}
    judged, missing = judge(truth, [result(1, POSE)], STICK)
    assert [one.person.annotation["id"] for one in judged] == [3] and missing == 0
    assert judged[0].person.area > 0 and judged[0].oks == 1.0


class Photograph(NamedTuple):
    image_id: Any
    image: NDArray[np.uint8]


def test_the_worst_are_drawn_as_labelled_and_as_predicted(
    scene: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    truth, results = scene
    judged, _ = judge(truth, results, STICK)
    chosen = worst_of(judged, 3)
    assert [one.person.annotation["id"] for one in chosen][-1] in (11, 12, 14)
    assert [one.oks for one in chosen] == sorted(one.oks for one in judged)[:3]
    grey = np.full((240, 200, 3), 128, np.uint8)
    inverted = next(one for one in judged if one.person.annotation["id"] == 11)
    (shown,) = drawn("stick", [inverted, chosen[0]], [Photograph(1, grey)], results, STICK)
    assert (shown.dataset, shown.image, shown.person) == ("stick", "1", "11")
    assert shown.kinds == {"good": 1, "jitter": 0, "inversion": 4, "swap": 0, "miss": 0}
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(shown.jpeg), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    sheet = decoded[..., ::-1]
    assert sheet.shape == (SIDE, 2 * SIDE + GAP, 3)
    left, right = sheet[:, :SIDE].astype(int), sheet[:, SIDE + GAP :].astype(int)

    def where(panel: NDArray[np.int64], colour: tuple[int, int, int]) -> float:
        """The mean column of a colour."""
        return float(np.nonzero(np.abs(panel - colour).sum(-1) < 90)[1].mean())

    # Labelled, the person's left is on the right side of the picture; predicted, it is the other way round.
    assert where(left, LEFT) > where(left, RIGHT) and where(right, LEFT) < where(right, RIGHT)
