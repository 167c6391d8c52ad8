"""The metrics of a set that is judged in another skeleton's points: what its descriptor says of its own
points is meant of these, though the other skeleton may call other points by the same names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rtmpose.config import EvaluateParams
from rtmpose.config.metrics import MetricOptions
from rtmpose.data.shards.manifest import EvalImage
from rtmpose.descriptors import Dataset, load_dataset, load_skeleton
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.evaluation.mapped import in_skeleton
from rtmpose.evaluation.measures import in_points, sigmas_in
from rtmpose.skeleton import Skeleton
from rtmpose.targets import SimCC
from tests.evaluation.measures.test_samples import SHIFT, network

EYES = {"wflw": (60, 72), "cofw": (8, 9), **dict.fromkeys(("face300w", "halpe_face"), (36, 45))}
OWN = Skeleton(
    "own", tuple("abcde"), (), tuple(range(5)), (0.1, 0.2, 0.3, 0.4, 0.5), (), (),
    maps={"other": {"a": "d", "b": "c", "c + d": "e", "d": "f"}},
)  # fmt: skip
OTHER = Skeleton("other", tuple("abcdef"), (), tuple(range(6)), (1.0,) * 6, (), ())


def persons(count: int, points: int) -> list[EvalImage]:
    """Images of one person each, whose points, all labelled, lie anywhere in a box of 200 px."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(1, count + 1):
        places = np.concatenate([rng.uniform(20, 220, (points, 2)), np.full((points, 1), 2.0)], axis=1)
        person = {
            "id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": [20, 20, 200, 200],
            "area": 40000.0, "keypoints": places.ravel().tolist(), "num_keypoints": points, "crowdIndex": 0.5,
        }  # fmt: skip
        images.append(EvalImage(number, np.zeros((240, 240, 3), np.uint8), 240, 240, [person], "a.jpg"))
    return images


def judged(dataset: Dataset, skeleton: Skeleton, images: list[EvalImage]) -> dict[str, Any]:
    """The figures of a network of `skeleton` on `images` in the points of `dataset`."""
    device = torch.device("cpu")
    judge = Evaluator(torch.nn.Identity(), SimCC((256, 256)), skeleton, EvaluateParams(), "fp32", device)
    return judge.judging(dataset).images(in_skeleton(images, dataset.skeleton, skeleton))[0]


@pytest.mark.parametrize("name", EYES)
def test_nme_of_a_face_in_the_points_of_another_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the distance of its own eyes' corners, which LaPa calls 66 and 79."""
    network(monkeypatch, SHIFT)
    dataset, lapa = load_dataset(name), load_skeleton("lapa106")
    images = persons(3, dataset.skeleton.num_keypoints)
    figures = judged(dataset, lapa, images)
    assert "unmeasured" not in figures
    left, right = EYES[name]
    points = [np.reshape(image.annotations[0]["keypoints"], (-1, 3))[:, :2] for image in images]
    expected = np.mean([SHIFT / np.linalg.norm(each[left] - each[right]) for each in points])
    assert figures["measures"]["NME"]["value"] == pytest.approx(expected)


def test_a_norm_without_a_counterpart_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """LaPa's 55 is no point of WFLW, which calls another one kpt-55."""
    network(monkeypatch)
    options = MetricOptions.model_validate({"nme": {"norm": ["kpt-66", "kpt-55"]}})
    dataset = replace(load_dataset("lapa106"), metric_options=options)
    figures = judged(dataset, load_skeleton("wflw"), persons(1, 106))
    assert "measures" not in figures
    assert figures["unmeasured"] == {
        "nme": "its norm needs lapa106's kpt-55, a point that the network's skeleton lacks"
    }


def test_every_list_of_points_goes_by_the_map() -> None:
    told = in_points(
        MetricOptions.model_validate(
            {
                "pck": {
                    "norm": ["d + c", "a"],
                    "without": ["[b-d]"],
                    "groups": {"all": ["*"], "none": ["e"]},
                },
                "tpck": {"norm": ["a + b", "c"], "at": [0.3]},
                "parts": {"one": ["c"], "two": ["c", "d"]},
            }
        ),
        OWN,
        OTHER,
    )
    assert told.pck.norm == ("e", "d") and told.pck.without == ("c", "e", "f")
    assert told.pck.groups == {"all": ("c", "d", "e", "f"), "none": ()}
    assert told.tpck is not None and (told.tpck.norm, told.tpck.at) == (("d + c", "own's c"), (0.3,))
    assert told.parts == {"one": (), "two": ("e", "f")}
    assert told.pckh == MetricOptions().pckh and told.nme is None and told.auc.norm == 30


def test_sigmas_are_the_sets_own_where_a_point_is_its_own() -> None:
    assert sigmas_in(OWN, OTHER) == (1.0, 1.0, 0.2, 0.1, 1.0, 0.4)


def test_the_same_points_are_not_translated() -> None:
    options, twin = MetricOptions(), replace(OWN, name="twin", sigmas=(1.0,) * 5)
    assert in_points(options, OWN, twin) is options and sigmas_in(OWN, twin) == OWN.sigmas


def test_ap_of_crowds_is_by_the_sets_own_sigmas(monkeypatch: pytest.MonkeyPatch) -> None:
    network(monkeypatch, 30.0)
    dataset, coco = load_dataset("crowdpose"), load_skeleton("coco17")
    lenient = replace(dataset, skeleton=replace(dataset.skeleton, sigmas=(10.0,) * 14))
    strict, wide = (judged(each, coco, persons(2, 14)) for each in (dataset, lenient))
    assert strict["measures"]["crowd AP"]["value"] < 0.9
    assert wide["measures"]["crowd AP"]["value"] == pytest.approx(1)
    assert strict["AP"] == wide["AP"] < 0.9
