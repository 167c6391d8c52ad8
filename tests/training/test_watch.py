"""Pictures and the machine's load reach MLflow, go on after a kill, and cost a run nothing when MLflow is
away.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from rtmpose.config import Params, load_params
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_eval_shards
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.skeleton import Skeleton
from rtmpose.tracking import runs
from rtmpose.training.checkpoint import Store
from rtmpose.training.job import job_fingerprint
from rtmpose.training.reporter import Reporter, curves
from rtmpose.training.watch import INTERVAL, Pictures, system_metrics
from tests.support import ROOT

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


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return runs.start_or_resume_run("finetune")


def pictures(
    store: Store, run_id: str, tune: Path, every: int | None = 2, evaluate_every: int = 1
) -> Pictures:
    train = load_params(ROOT / "params.yaml").finetune
    train = train.model_copy(update={"picture_every": every, "evaluate_every": evaluate_every, "epochs": 7})
    return Pictures("finetune", run_id, store, train, tune, COCO.skeleton, steps_per_epoch=10)


def logged(run_id: str) -> list[Path]:
    folder = Path(urlsplit(runs.client().get_run(run_id).info.artifact_uri).path) / "images"
    return sorted(folder.glob("*.png"))


def metrics(folder: Path, like: str) -> dict[str, list[int]]:
    """Names of metrics and the steps they have."""
    found: dict[str, list[int]] = {}
    with sqlite3.connect(folder / "mlflow.db") as database:
        for key, step in database.execute(
            "select key, step from metrics where key like ? order by step", (like,)
        ):
            found.setdefault(key, []).append(step)
    return found


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point MLflow at a port where nobody listens."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


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


def test_system_metrics_go_on_after_a_kill(
    tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INTERVAL, "0.2")
    with system_metrics(run_id):
        time.sleep(0.7)
    before = metrics(tmp_path, "system/%")
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(before)
    assert all(len(steps) >= 2 for steps in before.values())
    time.sleep(1)
    with pytest.raises(KeyError), system_metrics(run_id):
        raise KeyError  # the last sample is taken however the run ends
    after = metrics(tmp_path, "system/%")
    for name, steps in before.items():
        assert after[name][: len(steps)] == steps and after[name][-1] > steps[-1]


def test_a_server_that_is_away_costs_points_only(
    tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INTERVAL, "0.1")
    uri = runs.tracking_uri()
    away(monkeypatch)
    start = time.monotonic()
    with system_metrics(run_id):
        time.sleep(0.4)
        assert not metrics(tmp_path, "system/%")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        time.sleep(0.8)
    assert metrics(tmp_path, "system/%") and time.monotonic() - start < 8


def test_every_figure_to_watch_is_a_curve(tmp_path: Path, run_id: str) -> None:
    status = {
        "loss": 1.0,
        "lr": 0.1,
        "grad_norm": 2.0,
        "samples_per_s": 9.0,
        "data_wait": 0.1,
        "memory_gb": 1.0,
        "cuda_gb": 1.0,
    }
    report = Reporter("finetune", run_id, Store.open(tmp_path, "run", fresh=False))
    report({"step": 1, "steps": 9, "best_AP": -2.0} | status)
    report({"step": 2, "best_AP": 0.5, "AP": 0.5, "error": 0.1, "mean_pose_error": 0.3})
    names = {*status, "best_AP", "AP", "error", "mean_pose_error"}
    assert set(metrics(tmp_path, "finetune/%")) == {f"finetune/{name}" for name in names}
    assert metrics(tmp_path, "finetune/best_AP") == {"finetune/best_AP": [2]}
    assert curves("pretrain", {"step": 1, "steps": 2, "best_AP": -1.0}) == {"pretrain/best_AP": -1.0}


def test_what_is_shown_of_a_run_does_not_name_it(tmp_path: Path) -> None:
    params, mix = load_params(ROOT / "params.yaml"), tmp_path / "mix.json"
    mix.write_text("{}")

    def name(**changes: Any) -> str:
        changed: Params = params.model_copy(update={"finetune": params.finetune.model_copy(update=changes)})
        return job_fingerprint("finetune", changed, mix, None, 0.1, None)

    assert name() == name(picture_every=None, log_steps=3) != name(epochs=1)


def test_a_sigma_names_a_run_only_where_it_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretraining on 19 points is evaluated on COCO's 17: by their sigmas the best weights are chosen."""
    params, mix = load_params(ROOT / "params.yaml"), tmp_path / "mix.json"
    mix.write_text("{}")
    pretrain = params.pretrain.model_copy(update={"skeleton": "coco_aic19"})
    params = params.model_copy(update={"pretrain": pretrain})

    def named(edited: str) -> str:
        def load(name: str) -> Skeleton:
            found = load_skeleton(name)
            return replace(found, sigmas=(0.5, *found.sigmas[1:])) if name == edited else found

        monkeypatch.setattr("rtmpose.training.job.load_skeleton", load)
        return job_fingerprint("pretrain", params, mix, None, 0.1, None)

    assert named("none") == named("coco_aic19") != named("coco17")
