"""Several sets as one: what Body8, Hand5 and Face6 are published by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import evaluate
from rtmpose.config import load_params
from rtmpose.config.metrics import MetricOptions, Pck, Pooled
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_eval_shards
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.measures import Pool, measure
from rtmpose.evaluation.scoring import Pose
from rtmpose.files import UserError
from rtmpose.models import build_model
from tests.data.raw.samples import small_coco
from tests.support import ROOT

NAMES = ("a", "b")
TOLD = Pooled(name="Both", metrics=["pck", "auc", "epe"], metric_options=MetricOptions(pck=Pck(at=(0.1,))))


def a_set(images: int, off: float) -> tuple[dict[str, Any], list[Pose]]:
    """A person of two points on each image, whose predictions lie `off` px beside them."""
    annotations, poses = [], []
    for image in range(images):
        points = np.array([[10.0, 10.0], [60.0, 40.0]])
        labelled = np.concatenate([points, [[2.0], [2.0]]], 1)
        annotations.append({
            "id": image, "image_id": image, "bbox": [0.0, 0.0, 100.0, 50.0], "num_keypoints": 2,
            "keypoints": labelled.ravel().tolist(), "area": 5000.0, "iscrowd": 0, "category_id": 1,
        })  # fmt: skip
        poses.append(Pose(image, points + np.array([off, 0.0]), np.ones(2), 1.0, 5000.0, annotation_id=image))
    found = [{"id": image, "width": 100, "height": 50} for image in range(images)]
    return {"images": found, "annotations": annotations}, poses


def test_every_person_counts_alike_whichever_set_it_is_of() -> None:
    pool = Pool.of(TOLD, NAMES)
    pool.add(*a_set(3, 2.0))
    pool.add(*a_set(1, 22.0))  # image 0 of another set is another image
    figures = pool.figures(draws=20)
    assert (figures["name"], figures["images"], figures["persons"]) == ("Both", 4, 4)
    values = {name: each["value"] for name, each in figures["measures"].items()}
    assert values == pytest.approx({"PCK@0.1": 0.75, "EPE": 7.0, "AUC": (3 * 18 + 5) / 80})
    assert figures["measures"]["EPE"]["low"] < 7 < figures["measures"]["EPE"]["high"]


def test_a_pool_of_one_set_is_that_set() -> None:
    truth, poses = a_set(5, 4.0)
    pool = Pool.of(TOLD, NAMES)
    pool.add(truth, poses)
    alone, _ = measure(
        truth, poses, (), metrics=TOLD.metrics, options=TOLD.metric_options, names=NAMES, sigmas=(0.1, 0.1)
    )
    assert pool.figures()["measures"] == {name: each.as_json() for name, each in alone.items()}


def test_what_cannot_be_measured_says_why() -> None:
    assert "ground_truth to evaluate.boxes" in Pool.of(TOLD, NAMES).figures()["unmeasured"]["epe"]
    options = MetricOptions.model_validate({"nme": {"norm": ("a", "c")}})
    beside = Pooled(name="Faces", metrics=["nme"], metric_options=options)
    with pytest.raises(UserError, match=r"^params\.yaml: evaluate\.pooled: .*nme\.norm: c is not one of"):
        Pool.of(beside, NAMES)


@pytest.fixture
def two_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Pooled | None], dict[str, Any]]:
    """The stage's figures of random weights on two sets of one person each."""
    coco = load_dataset("coco17")
    (raw,) = read_images(coco, small_coco(tmp_path / "coco", [{}]), "val")
    for key in ("one", "two"):
        write_eval_shards([raw], tmp_path / key, dataset=coco, split="val", workers=1)
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("models").mkdir()
    params = load_params(ROOT / "params.yaml")
    data = params.datasets["coco17"].model_copy(update={"evaluate": True, "render": None})
    torch.save(build_model(params.model, 17, params.input_size).state_dict(), evaluate.WEIGHTS)
    entries = [{"dataset": key, "dir": key, "repeat": 1} for key in ("one", "two")]
    mix = {"train": entries, "tune": entries, "val": entries}
    Path(evaluate.MIX).write_text(json.dumps(mix))

    def run(pooled: Pooled | None) -> dict[str, Any]:
        told = params.evaluate.model_copy(update={"pooled": pooled})
        sets = {"one": data, "two": data}
        evaluate.evaluate_sets(params.model_copy(update={"evaluate": told, "datasets": sets}))
        return dict(json.loads(evaluate.METRICS.read_text()))

    return run


def test_the_stage_judges_each_set_and_all_of_them_by_the_recipes_metrics(
    two_sets: Callable[[Pooled | None], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = two_sets(TOLD)
    together, one, two = figures["pooled"], figures["measures"], figures["two"]["measures"]
    assert together["persons"] == 2 and set(one) == set(two) == {"PCK@0.1", "AUC", "EPE"}
    assert together["measures"]["EPE"]["value"] == pytest.approx(one["EPE"]["value"])
    told = capsys.readouterr()
    assert "Both, all sets together: EPE" in told.err
    assert told.out.rstrip().endswith("`rtmpose report` puts the run on one page, report.html")
    figures = two_sets(None)
    assert "pooled" not in figures and "measures" not in figures
