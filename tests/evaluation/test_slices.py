from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.bootstrap import resamples
from rtmpose.evaluation.slices import slices_of

SIGMAS = (0.05,) * 4
GROUPS = {"head": (0, 1), "legs": (2, 3)}
SQUARE = np.array([[10.0, 10.0], [90.0, 10.0], [10.0, 90.0], [90.0, 90.0]])


def person(number: int, image: int, at: float, *, seen: int = 4, scale: float = 2.0) -> dict[str, Any]:
    points = np.c_[SQUARE * scale + at, [2] * seen + [1] * (4 - seen)]
    side = 100 * scale
    return {
        "id": number, "image_id": image, "bbox": [at, at, side, side], "area": side**2, "iscrowd": 0,
        "keypoints": points.ravel().tolist(), "num_keypoints": 4, "category_id": 1,
    }  # fmt: skip


def result(annotation: dict[str, Any], wrong: tuple[int, ...] = ()) -> dict[str, Any]:
    points = np.array(annotation["keypoints"]).reshape(-1, 3)
    points[list(wrong), :2] += 1000
    points[:, 2] = 1
    return {
        "image_id": annotation["image_id"], "annotation_id": annotation["id"], "score": 1.0,
        "keypoints": points.ravel().tolist(),
    }  # fmt: skip


@pytest.fixture
def truth() -> dict[str, Any]:
    """Two persons apart in the first image, of whom one is small; two in one another in the second; in the
    third one who shows a point.
    """
    persons = [
        person(1, 7, 0),
        person(2, 7, 500, scale=0.5),
        person(3, 8, 0),
        person(4, 8, 20),
        person(5, 9, 0, seen=1),
    ]
    return {"images": [{"id": image} for image in (7, 8, 9)], "annotations": persons}


def test_who_belongs_to_which_slice(truth: dict[str, Any]) -> None:
    found = slices_of(truth, [result(one) for one in truth["annotations"]], SIGMAS, GROUPS)
    counts = {name: each.persons.tolist() for name, each in found.items()}
    assert counts == {
        "all": [2, 2, 1], "small": [1, 0, 0], "crowded": [0, 2, 0], "occluded": [0, 0, 1],
        "head": [2, 2, 1], "legs": [2, 2, 1],
    }  # fmt: skip
    assert {each.recall() for each in found.values()} == {1.0}


def test_a_fault_shows_where_it_is_and_is_hidden_in_the_whole(truth: dict[str, Any]) -> None:
    wrong = [result(one, (2, 3)) for one in truth["annotations"]]
    found = slices_of(truth, wrong, SIGMAS, GROUPS)
    assert (found["head"].recall(), found["legs"].recall()) == (1.0, 0.0)
    assert found["all"].recall() == 0.0  # an OKS of 0.50 is not above 0.50
    missing = slices_of(truth, wrong[:2], SIGMAS, GROUPS)
    assert missing["head"].recall() == 2 / 5 and missing["crowded"].recall() == 0.0


def test_intervals_are_of_images_drawn_together(truth: dict[str, Any]) -> None:
    good = slices_of(truth, [result(one) for one in truth["annotations"]], SIGMAS, GROUPS)
    half = slices_of(truth, [result(one) for one in truth["annotations"][:2]], SIGMAS, GROUPS)
    draws = resamples(3, 200)
    assert (good["all"].interval(draws).low, good["all"].interval(draws).high) == (1.0, 1.0)
    lost = half["all"].difference(good["all"], draws)
    assert lost.value == pytest.approx(-0.6) and lost.low == pytest.approx(-1.0) and lost.high <= 0
    same = half["all"].difference(half["all"], draws)
    assert (same.low, same.high) == (0.0, 0.0)
    with pytest.raises(ValueError, match="same images"):
        good["all"].difference(good["small"], draws)
    empty = slices_of(truth | {"annotations": []}, [], SIGMAS, GROUPS)["all"]
    with pytest.raises(ValueError, match="nobody"):
        empty.interval(draws)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("coco17", {"head": 5, "arms": 6, "legs": 6}),
        ("coco_wholebody", {"head": 5, "arms": 6, "legs": 6, "feet": 6, "face": 68, "hands": 42}),
        ("humanart", {"head": 5, "arms": 6, "legs": 6}),  # borrows its skeleton
        ("TEMPLATE", {"upper": 3, "lower": 3}),
    ],
)
def test_descriptors_name_parts_of_the_body(name: str, groups: dict[str, int]) -> None:
    found = load_dataset(f"datasets/{name}.yaml").keypoint_groups
    assert {group: len(points) for group, points in found.items()} == groups
