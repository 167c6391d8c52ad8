"""Pictures reach MLflow, go on after a kill, and cost a run nothing when MLflow is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from rtmpose.config import load_params
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_eval_shards
from rtmpose.descriptors import load_dataset
from rtmpose.tracking import runs
from rtmpose.training.checkpoint import Store
from rtmpose.training.pictures import Pictures
from tests.support import ROOT
from tests.training.tracked import away

COCO = load_dataset("coco17")


@pytest.fixture(scope="module")
def tune(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """An evaluation shard set of rendered people, and perfect results for it."""
    folder = tmp_path_factory.mktemp("watch")
    render_dataset(
        folder / "raw", "coco17", level="easy", images={"val": 3}, size=(160, 120), seed=4, workers=1
    )
    images = list(read_images(COCO, folder / "raw", "val"))
    write_eval_shards(images, folder / "tune", dataset=COCO, split="val", workers=1)
    results = [
        {"image_id": raw.image_id, "keypoints": item["keypoints"], "score": 1.0}
        for raw in images
        for item in raw.annotations
    ]
    return folder / "tune", results


def pictures(
    store: Store, run_id: str, tune: Path, every: int | None = 2, evaluate_every: int = 1
) -> Pictures:
    train = load_params(ROOT / "params.yaml").finetune
    train = train.model_copy(update={"picture_every": every, "evaluate_every": evaluate_every, "epochs": 7})
    return Pictures("finetune", run_id, store, train, tune, COCO.skeleton, steps_per_epoch=10)


def logged(run_id: str) -> list[Path]:
    folder = Path(urlsplit(runs.client().get_run(run_id).info.artifact_uri).path) / "images"
    return sorted(folder.glob("*.png"))


@pytest.mark.parametrize(
    ("every", "evaluate_every", "expected"),
    [(None, 1, []), (1, 1, [1, 2, 3, 4, 5, 6, 7]), (3, 1, [3, 6, 7]), (3, 2, [4, 6, 7]), (2, 5, [5, 7])],
)
def test_when_a_picture_is_due(
    tmp_path: Path, every: int | None, evaluate_every: int, expected: list[int]
) -> None:
    shown = pictures(Store(tmp_path, "x"), "", tmp_path, every, evaluate_every)
    evaluated = [epoch for epoch in range(1, 8) if epoch % evaluate_every == 0 or epoch == 7]
    assert [epoch for epoch in evaluated if shown.due(10 * epoch)] == expected


def test_pictures_are_images_with_steps_once_each(
    tmp_path: Path, tune: tuple[Path, list[dict[str, Any]]], run_id: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    store = Store.open(tmp_path, "run", fresh=False)
    first = pictures(store, run_id, tune[0])
    first.remember(tune[1])
    for step in (10, 20):
        first(step)
    (path,) = logged(run_id)
    assert path.name.startswith("finetune~predictions+step+20+timestamp+")
    drawn, plain = (
        np.asarray(cv2.imread(str(file))) for file in (path, store.folder / "pictures/00000020.png")
    )
    assert drawn.shape == (256, 992, 3) and (drawn == plain).all()  # three images in one row
    assert np.abs(drawn.astype(int) - (40, 140, 255)[::-1]).sum(-1).min() < 30  # a right limb's blue

    uri = runs.tracking_uri()
    away(monkeypatch)
    first(40)
    assert "warning: step 40: the picture of predictions is not logged" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    again = pictures(
        Store.open(tmp_path, "run", fresh=False), run_id, tune[0]
    )  # killed; on from a checkpoint before step 20
    again.remember(tune[1])
    for step in (20, 60):
        again(step)
    assert sorted(int(path.name.split("+")[2]) for path in logged(run_id)) == [20, 40, 60]


def test_a_tuning_split_that_is_gone_costs_the_picture_only(
    tmp_path: Path, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(Store.open(tmp_path, "run", fresh=False), run_id, tmp_path / "gone")(20)
    assert "warning: step 20: the picture" in capsys.readouterr().err and logged(run_id) == []
