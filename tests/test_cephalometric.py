"""Landmarks on radiographs, all of the way: the challenge's form, index, shards, updates, errors in mm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipelines.evaluate import in_millimetres
from rtmpose.config import AugmentConfig, EvaluateParams, OptimParams, load_params, with_values
from rtmpose.data.radiographs.dataset import draw_dataset
from rtmpose.data.raw.annotations import index_raw, read_images
from rtmpose.data.shards.manifest import read_eval
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.files import UserError
from rtmpose.models import PoseNet, build_pose_net
from rtmpose.search.choice import chosen_params
from rtmpose.search.space import check_space
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.training.launch import unmirrored
from rtmpose.training.update import Task, Updater, heatmap_task, simcc_task
from tests.support import ROOT
from tests.test_workflow import compose

NAME, SIZE = "cephalometric38_stack", (64, 64)
DATASET = load_dataset(NAME)
MILD = AugmentConfig(flip=1.0, half_body=0, shift=0.05, scale=0.1, rotate=5, hue=0, saturation=0, hole=0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of eight drawn radiographs of 128x154 px at most."""
    root = tmp_path_factory.mktemp("radiographs")
    draw_dataset(root / "raw", images=8, size=(128, 154), seed=23)
    index = index_raw(DATASET, root / "raw")
    assert sum(held["persons"] for held in index["splits"].values()) >= 6
    train, val = (list(read_images(DATASET, root / "raw", split)) for split in ("train", "val"))
    write_train_shards(train, root / "train", dataset=DATASET, input_size=SIZE, workers=1)
    write_eval_shards(val or train, root / "val", dataset=DATASET, workers=1)
    return root


def task_of(head: str) -> tuple[PoseNet, Task]:
    torch.manual_seed(0)
    net = build_pose_net("t", head, 38, SIZE, hidden=32)
    return net, heatmap_task(net, UDPHeatmap(SIZE)) if head == "heatmap" else simcc_task(
        net, SimCC(SIZE), 0.1
    )


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_two_updates_and_an_evaluation_in_mm(
    shards: Path, head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    net, task = task_of(head)
    stream = TrainStream(
        [MixEntry(shards / "train", 1)], DATASET.skeleton, SIZE, batch_size=2, seed=3, udp=task.codec.udp
    )  # fmt: skip
    update = Updater(
        task, device=torch.device("cpu"), precision="fp32", global_batch=2, weight_decay=0.0,
        optim=OptimParams(), ema_momentum=0.0,
    )  # fmt: skip
    before = net.head.final_layer.weight.detach().clone()  # type: ignore[union-attr, operator]
    batches = stream.epoch(0, MILD)
    losses = [float(update.step(next(batches), 1e-3).loss) for _ in range(2)]
    assert all(loss > 0 and loss == pytest.approx(loss) for loss in losses)
    assert not torch.equal(net.head.final_layer.weight, before)  # type: ignore[union-attr, arg-type]
    params = EvaluateParams(batch_size=4)  # with flip test, of which these points take none
    judge = Evaluator(net, task.codec, DATASET.skeleton, params, "fp32", torch.device("cpu"))
    _, results, truth = judge.shards(shards / "val")
    figures = in_millimetres(NAME, judge, truth, results)["mre"]
    assert 0 < figures["MRE"] < 500 and 0 <= figures["SDR"]["2mm"] <= figures["SDR"]["4mm"] <= 1
    assert figures["MRE_low"] <= figures["MRE"] <= figures["MRE_high"]
    assert list(figures["landmarks"]) == list(DATASET.skeleton.names)
    json.dumps(figures, allow_nan=False)
    assert f"evaluate  {NAME}: MRE {figures['MRE']:.3f} ± " in capsys.readouterr().err
    assert in_millimetres("coco17", judge, truth, results) == {}


def test_true_points_have_no_error_and_moved_ones_as_much_as_they_were_moved(shards: Path) -> None:
    net, task = task_of("simcc")
    judge = Evaluator(net, task.codec, DATASET.skeleton, EvaluateParams(), "fp32", torch.device("cpu"))
    _, truth = judge.poses(read_eval(shards / "val"))
    for moved in (0.0, 7.0):  # px along x
        results = []
        for annotation in truth["annotations"]:
            points = [value + (moved if place % 3 == 0 else 0.0)
                      for place, value in enumerate(annotation["keypoints"])]  # fmt: skip
            results.append({"image_id": annotation["image_id"], "keypoints": points, "score": 1.0})
        figures = in_millimetres(NAME, judge, truth, results)["mre"]
        spacings = [annotation["spacing"] for annotation in truth["annotations"]]
        assert figures["MRE"] == pytest.approx(moved * sum(spacings) / len(spacings))
        assert figures["SDR"]["2mm"] == (1.0 if not moved else 0.0)


@pytest.mark.parametrize(
    ("recipe", "size", "backbone", "head"),
    [
        ("cephalometric", (512, 512), "cspnext", "simcc"),
        ("cephalometric1024", (1024, 1024), "cspnext", "simcc"),
        ("cephalometric_hrnet", (512, 512), "hrnet_w32", "heatmap"),
        ("radiographs", (256, 256), "cspnext", "simcc"),
    ],
)
def test_recipes_compose_and_mirror_nothing(
    tmp_path: Path, recipe: str, size: tuple[int, int], backbone: str, head: str
) -> None:
    params = load_params(compose(tmp_path, f"recipe={recipe}"))
    assert (params.recipe, params.input_size, params.shard.input_size) == (recipe, size, size)
    assert (params.model.backbone, params.model.head) == (backbone, head)
    assert params.finetune.strong.flip == params.finetune.weak.flip == 0 and not params.evaluate.flip_test
    assert not params.pretrain.enabled and params.ladder is None
    assert [each.descriptor for each in params.datasets.values()] == [NAME]
    assert unmirrored("finetune", params) is None


def test_a_recipe_that_would_mirror_says_that_it_does_not() -> None:
    params = with_values(
        load_params(ROOT / "params.yaml"),
        {"skeleton": "cephalometric38", "finetune.skeleton": "cephalometric38"},
    )
    assert unmirrored("finetune", params) == (
        "finetune: nothing is mirrored, although flip is above 0: cephalometric38 has no flip_pairs, and no "
        "`mirror: true`"
    )
    assert unmirrored("pretrain", params) is None  # of coco17's points


def test_a_baseline_is_trained_but_not_searched_for(tmp_path: Path) -> None:
    params = load_params(compose(tmp_path, "recipe=cephalometric_hrnet"))
    (tmp_path / "search.json").write_text('{"chosen": {}, "note": "search off"}')
    assert chosen_params(params, tmp_path / "search.json") == params
    check_space(params)
    with pytest.raises(
        UserError, match="hrnet_w32 is a baseline, which is trained and evaluated, but neither"
    ):
        check_space(with_values(params, {"search.enabled": True}))
