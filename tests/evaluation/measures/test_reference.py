"""Figures equal those of the tools that published results come from, computed by
`tests/golden/measures/make.py` on the same drawn persons.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rtmpose.config.metrics import MetricOptions
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.coco import STATISTICS, evaluate_whole_body
from rtmpose.evaluation.measures import Measured, measure
from rtmpose.evaluation.scoring import Pose
from tests.evaluation.measures import cases
from tests.support import ROOT

REFERENCE: dict[str, Any] = json.loads((ROOT / "tests/golden/measures/reference.json").read_text())
MPII_GROUPS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
JHMDB = (
    "neck", "belly", "head", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_elbow",
    "left_elbow", "right_knee", "left_knee", "right_wrist", "left_wrist", "right_ankle", "left_ankle",
)  # fmt: skip


def drawn(name: str) -> tuple[dict[str, Any], list[Pose]]:
    """A case of points as an evaluation has it: ground truth and poses by annotation."""
    case = cases.points(name)
    annotations, poses = [], []
    for row, image in enumerate(case["image"]):
        flags = 2.0 * case["labelled"][row]
        keypoints = np.concatenate([case["true"][row], flags[:, None]], 1).ravel().tolist()
        box = case["boxes"][row].tolist()
        annotations.append({
            "id": row + 1, "image_id": int(image), "iscrowd": 0, "bbox": box, "area": box[2] * box[3],
            "keypoints": keypoints, "head_size": float(case["heads"][row]),
        })  # fmt: skip
        points = case["predicted"][row]
        poses.append(Pose(int(image), points, np.ones(len(points)), 1.0, 1.0, box, row + 1))
    return {"images": [{"id": number} for number in range(10)], "annotations": annotations}, poses


def of(
    name: str, metrics: Sequence[str], options: MetricOptions, names: Sequence[str]
) -> dict[str, Measured]:
    truth, poses = drawn(name)
    found, unknown = measure(
        truth, poses, [], metrics=metrics, options=options, names=names, sigmas=[0.1] * len(names), draws=20
    )
    assert not unknown
    return found


def of_descriptor(case: str, descriptor: str) -> dict[str, Measured]:
    dataset = load_dataset(descriptor)
    return of(case, dataset.metrics, dataset.metric_options, dataset.skeleton.names)


@pytest.mark.parametrize("descriptor", ["onehand10k", "coco_wholebody_hand"])
def test_hands(descriptor: str) -> None:
    found, expected = of_descriptor("hand", descriptor), REFERENCE["points"]["hand"]
    assert set(found) == {"PCK@0.2", "AUC", "EPE"}
    for name, key in (("PCK@0.2", "PCK"), ("AUC", "AUC"), ("EPE", "EPE")):
        assert found[name].interval.value == pytest.approx(expected[key], rel=1e-6), name
        assert found[name].interval.low < expected[key] < found[name].interval.high


def test_mpii() -> None:
    found, expected = of_descriptor("mpii", "mpii"), REFERENCE["points"]["mpii"]
    assert 100 * found["PCKh@0.5"].interval.value == pytest.approx(expected["PCK"], rel=1e-6)
    assert 100 * found["PCKh@0.1"].interval.value == pytest.approx(expected["PCK@0.1"], rel=1e-6)
    assert tuple(found["PCKh@0.5"].groups) == MPII_GROUPS
    for group, share in found["PCKh@0.5"].groups.items():
        assert share is not None
        assert 100 * share == pytest.approx(expected[f"{group.capitalize()} PCK"], rel=1e-6), group


@pytest.mark.parametrize(
    ("descriptor", "case"),
    [("wflw", "wflw"), ("lapa106", "lapa"), ("coco_wholebody_face", "coco_wholebody_face")],
)
def test_faces(descriptor: str, case: str) -> None:
    nme = of_descriptor(case, descriptor)["NME"].interval
    assert nme.value == pytest.approx(REFERENCE["points"][case]["NME"], rel=1e-6)


def test_box_and_torso() -> None:
    groups = {"Head": ["head"], "Sho": ["*_shoulder"], "Wri": ["*_wrist"], "Ank": ["*_ankle"]}
    torso = {"norm": ["left_shoulder", "right_hip"], "groups": groups}
    options = MetricOptions.model_validate({"pck": {"groups": groups}, "tpck": torso})
    found, expected = of("jhmdb", ["pck", "tpck"], options, JHMDB), REFERENCE["points"]["jhmdb"]
    for name, key in (("PCK@0.2", "PCK"), ("tPCK@0.2", "tPCK")):
        assert found[name].interval.value == pytest.approx(expected[key], rel=1e-6)
        for group, share in found[name].groups.items():
            assert share == pytest.approx(expected[f"{group} {key}"], rel=1e-6)


def test_crowdpose() -> None:
    """xtcocotools rounds the three classes to four digits."""
    truth, results = cases.crowds()
    dataset = load_dataset("crowdpose")
    found, _ = measure(
        {**truth, "annotations": [{**each, "area": 1.0} for each in truth["annotations"]]}, None, results,
        metrics=dataset.metrics, options=dataset.metric_options, names=dataset.skeleton.names,
        sigmas=dataset.skeleton.sigmas, draws=5,
    )  # fmt: skip
    ap, *_, easy, medium, hard = REFERENCE["crowdpose"]
    assert found["crowd AP"].interval.value == pytest.approx(ap, abs=1e-9)
    for name, expected in (("AP easy", easy), ("AP medium", medium), ("AP hard", hard)):
        assert found[name].interval.value == pytest.approx(expected, abs=5.1e-5), name


def test_parts_of_the_body() -> None:
    """All figures but those of medium and large persons: there, how large an unmatched prediction is goes by
    the extent of its body in xtcocotools, by its box, or all of its points, here.
    """
    truth, results = cases.whole_bodies()
    dataset = load_dataset("coco_wholebody")
    sigmas = dataset.skeleton.sigmas
    found, _ = measure(
        truth, None, results, metrics=dataset.metrics, options=dataset.metric_options,
        names=dataset.skeleton.names, sigmas=sigmas, draws=5,
    )  # fmt: skip
    figures = evaluate_whole_body(truth, results, sigmas)
    for part, expected in REFERENCE["parts"].items():
        name = part.replace("hand", "_hand")
        assert found[f"AP {name}"].interval.value == pytest.approx(expected[0], abs=1e-9), part
        for key, value in zip(STATISTICS, expected, strict=True):
            assert key[-1] in "ML" or figures[name][key] == pytest.approx(value, abs=1e-9), (part, key)
