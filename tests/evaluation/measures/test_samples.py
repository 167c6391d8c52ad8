"""The metrics of real samples of every data set, by the way that evaluation takes: annotations as they are
read, poses by annotation, the descriptor's metrics.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pipelines import evaluate
from rtmpose.config import EvaluateParams, load_params
from rtmpose.data.shards.manifest import EvalImage
from rtmpose.descriptors import Dataset, load_dataset
from rtmpose.evaluation import evaluator
from rtmpose.evaluation.coco import annotation_keypoints, person_annotations
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.evaluation.scoring import Pose
from rtmpose.skeleton import Skeleton
from rtmpose.targets import SimCC
from tests.data.raw.samples import SAMPLES
from tests.support import ROOT, realdata

WHOLE = ("coco_wholebody/annotations/coco_wholebody_val_v1.0.json", "coco_wholebody/val2017")
PLACES = {name: places[:2] for name, places in SAMPLES.items() if name != "mpii"} | {"coco_wholebody": WHOLE}
APS = {
    "crowdpose": {"crowd AP", "AP medium"},  # the samples are neither easy nor hard
    "coco_wholebody": {
        f"AP {part}" for part in ("body", "foot", "face", "left_hand", "right_hand", "wholebody")
    },
}
POINTS = {
    **{name: {"PCK@0.2", "AUC", "EPE"} for name in ("onehand10k", "coco_wholebody_hand", "halpe_hand")},
    **{name: {"NME"} for name in ("wflw", "lapa106", "coco_wholebody_face", "halpe_face")},
}
SHIFT = 7.0  # px


def network(monkeypatch: pytest.MonkeyPatch, shift: float = 0.0) -> None:
    """Instead of a network's, the points that are annotated, all of them so far to the right; those that are
    not labelled lie in the middle of the box.
    """

    def predicted(
        model: Any, codec: Any, images: Iterable[EvalImage], boxes: Any, skeleton: Skeleton, **options: Any
    ) -> list[Pose]:
        return list(_poses(images, skeleton, shift))

    monkeypatch.setattr(evaluator, "predict_poses", predicted)


def _poses(images: Iterable[EvalImage], skeleton: Skeleton, shift: float) -> Iterator[Pose]:
    for image in images:
        for each in person_annotations(image.annotations):
            points = annotation_keypoints(each)[: skeleton.num_keypoints]
            x, y, w, h = each["bbox"]
            points = np.where(points[:, 2:] > 0, points[:, :2] + (shift, 0.0), (x + w / 2, y + h / 2))
            scores = np.ones(len(points))
            yield Pose(image.image_id, points, scores, 1.0, each["area"], each["bbox"], each["id"])


def judge(dataset: Dataset) -> Evaluator:
    codec, device = SimCC((256, 256)), torch.device("cpu")
    return Evaluator(torch.nn.Identity(), codec, dataset.skeleton, EvaluateParams(), "fp32", device)


def figures_of(name: str) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
    """What evaluation finds on the samples, and the persons among their annotations."""
    annotations, images = PLACES[name]
    realdata(annotations)
    dataset = load_dataset(name).with_files("val", annotations, images)
    figures, _, truth = evaluate.judging(judge(dataset), dataset).raw(dataset, realdata())
    return figures, person_annotations(truth)


@pytest.mark.parametrize("name", PLACES)
def test_perfect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network(monkeypatch)
    figures, _ = figures_of(name)
    measures = figures.get("measures", {})
    assert set(measures) == APS.get(name, set()) | POINTS.get(name, set())
    assert figures["AP"] == pytest.approx(1) and "unmeasured" not in figures
    for key, found in measures.items():
        expected = {"EPE": 0.0, "NME": 0.0, "AUC": 0.95}.get(key, 1.0)
        assert (found["value"], found["low"], found["high"]) == pytest.approx((expected,) * 3), key


@pytest.mark.parametrize("name", POINTS)
def test_all_points_to_the_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network(monkeypatch, SHIFT)
    figures, persons = figures_of(name)
    found = {key: each["value"] for key, each in figures["measures"].items()}
    if "NME" in found:
        told = load_dataset(name).metric_options.nme
        assert told is not None and isinstance(told.norm, tuple)
        ends = [load_dataset(name).skeleton.names.index(end) for end in told.norm]
        points = [annotation_keypoints(each) for each in persons]
        points = [each for each in points if (each[ends, 2] > 0).all()]  # others have no norm
        eyes = [SHIFT / np.linalg.norm(np.subtract(*each[ends, :2])) for each in points]
        labelled = [(each[:, 2] > 0).sum() for each in points]
        assert found["NME"] == pytest.approx(np.average(eyes, weights=labelled))
        return
    assert found["EPE"] == pytest.approx(SHIFT)
    assert found["AUC"] == pytest.approx(15 / 20)  # 7 px lie below 15 of the thresholds 0, 1.5 ... 28.5 px
    near = [0.2 * max(each["bbox"][2:]) > SHIFT for each in persons]
    assert found["PCK@0.2"] < 1 if not all(near) else found["PCK@0.2"] == 1


def mpii(root: Path, heads: bool = True) -> Path:
    """A raw folder of MPII's samples, with head boxes of 30 x 40 px: their size is 0.6 * 50 = 30 px."""
    persons = json.loads(realdata("others/mpii/test_mpii.json").read_text())
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/mpii_val.json").write_text(json.dumps(persons))
    (root / "images").symlink_to(realdata("others/mpii"))
    if heads:
        boxes = np.tile(np.array([[100.0, 100], [130, 140]])[..., None], len(persons))
        savemat(root / "annotations/mpii_gt_val.mat", {"headboxes_src": boxes})
    return root


def evaluated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m pipelines.evaluate --raw` with the points of `network`."""
    monkeypatch.setattr(evaluate, "evaluator", lambda params, weights, to: judge(load_dataset("mpii")))
    options = Namespace(descriptor="mpii", raw=root, boxes="ground_truth", weights=Path("unused"))
    evaluate.evaluate_raw(load_params(ROOT / "params.yaml"), options)


@pytest.mark.parametrize(("shift", "shares"), [(0.0, (1, 1)), (2.5, (1, 1)), (7.0, (1, 0)), (16.0, (0, 0))])
def test_heads(
    shift: float, shares: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Half and a tenth of a head of 30 px are 15 and 3 px."""
    network(monkeypatch, shift)
    evaluated(mpii(tmp_path), monkeypatch)
    out, told = capsys.readouterr()
    measures = json.loads(out)["measures"]
    assert set(measures) == {"PCKh@0.5", "PCKh@0.1"}
    assert tuple(each["value"] for each in measures.values()) == pytest.approx(shares)
    wide = measures["PCKh@0.5"]
    assert set(wide["keypoints"]) == set(load_dataset("mpii").skeleton.names)
    assert set(wide["groups"].values()) == {float(shares[0])}
    percent = f"{100 * shares[0]:.2f}"
    assert f"evaluate  mpii: PCKh@0.5 {percent} % [{percent}, {percent}]  head " in told


def test_heads_that_nobody_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network(monkeypatch)
    evaluated(mpii(tmp_path, heads=False), monkeypatch)
    out, told = capsys.readouterr()
    assert "measures" not in json.loads(out) and json.loads(out)["AP"] == pytest.approx(1)
    assert told.count("\n") == 1 and "mpii: pckh is not measured: no person has a head_size; put" in told
