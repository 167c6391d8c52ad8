"""Evaluation sets: what is reported while they are read, and on which boxes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import evaluate
from rtmpose.config import EvaluateParams, Head, Params, load_params
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_eval_shards
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.evaluator import Evaluator, opened
from rtmpose.files import UserError
from rtmpose.models import build_model, build_pose_net
from rtmpose.targets import SimCC
from tests.data.raw.samples import small_coco
from tests.support import ROOT

COCO = load_dataset("coco17")


def test_progress_counts_the_images_of_the_shards(tmp_path: Path) -> None:
    (raw,) = read_images(COCO, small_coco(tmp_path / "coco", [{}]), "val")
    write_eval_shards([raw], tmp_path / "val", dataset=COCO, split="val", workers=1)
    net = build_pose_net("t", "simcc", 17, (32, 32))
    judge = Evaluator(net, SimCC((32, 32)), COCO.skeleton, EvaluateParams(), "fp32", torch.device("cpu"))
    seen: list[tuple[int, int]] = []
    figures, results, truth = judge.shards(
        tmp_path / "val", progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 1)] and len(results) == len(truth["images"]) == 1 and "AP" in figures
    assert (
        figures["mean_pose_error"] == pytest.approx(0) and figures["error"] > 0.1
    )  # one person is its own mean
    figures, _, _ = judge.shards(tmp_path / "val", {1: [([1.0, 1.0, 20.0, 20.0], 0.5)]})
    assert "error" not in figures  # a detector's box is nobody's


class Judge:
    """Remembers which boxes it was asked about; AP tells them apart."""

    pool = None

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def shards(self, folder: Path, boxes: Any = "ground truth", progress: Any = None) -> Any:
        self.asked.append(boxes)
        found = 0.9 if boxes == "ground truth" else 0.7
        return {"AP": found, "APM": found, "APL": found}, [], {}

    def mean_pose_ap(self, truth: Any) -> float:
        return 0.1


def asking_for(*boxes: str) -> Params:
    params = load_params(ROOT / "params.yaml")
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"boxes": list(boxes)})})


@pytest.mark.parametrize(
    ("boxes", "asked", "expected"),
    [
        (["ground_truth"], ["ground truth"], {"AP": 0.9}),
        (["ground_truth", "detections"], ["ground truth", {1: []}], {"AP": 0.9, "detector_AP": 0.7}),
        (["detections"], [{1: []}], {"AP": 0.7}),
    ],
)
def test_only_the_boxes_asked_for_are_evaluated(
    boxes: list[str], asked: list[Any], expected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "detector_boxes", lambda params, key: {1: []})
    judge: Any = Judge()
    figures, _, _ = evaluate.set_figures(judge, asking_for(*boxes), "coco17", Path("unused"))
    assert judge.asked == asked
    assert {name: figures[name] for name in figures if name not in ("APM", "APL")} == (
        expected | {"mean_pose_AP": 0.1}
    )


def test_detector_boxes_that_are_not_there_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "detector_boxes", lambda params, key: None)
    judge: Any = Judge()
    with pytest.raises(UserError, match=r"coco17: has no detector file[^\n]*evaluate\.boxes$"):
        evaluate.set_figures(judge, asking_for("detections"), "coco17", Path("unused"))


@pytest.mark.parametrize("head", ["simcc", "simcc_plain", "simcc_deconv", "heatmap"])
def test_the_stage_evaluates_every_head_that_can_be_trained(head: Head, tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    model = params.model.model_copy(update={"head": head, "kernel": 1, "hidden": 16})
    params = params.model_copy(update={"model": model})
    torch.save(build_model(model, 17, params.input_size).state_dict(), tmp_path / "w.pt")
    (raw,) = read_images(COCO, small_coco(tmp_path / "coco", [{}]), "val")
    figures, results, _ = evaluate.evaluator(params, tmp_path / "w.pt", to=sys.stderr).images(opened([raw]))
    assert len(results) == 1 and len(results[0]["keypoints"]) == 3 * 17 and 0 <= figures["AP"] <= 1
