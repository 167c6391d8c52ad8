"""The ladder as data: each rung is valid, differs from the one before only as it says, and the last is the
recipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rtmpose.config import Params, load_params, with_values
from rtmpose.files import UserError
from rtmpose.ladder.rungs import (
    NAMES,
    RUNGS,
    Entry,
    chosen_rungs,
    epochs_for,
    overrides,
    pretrain_params,
    rung_params,
)
from rtmpose.models import build_model
from rtmpose.tracking.runs import flatten
from tests.test_workflow import compose

BUDGET = {
    "ladder.samples",
    "finetune.epochs",
    "finetune.weak_epochs",
    "finetune.evaluate_every",
    "finetune.patience",
}


def recipe(folder: Path, name: str) -> Params:
    return load_params(compose(folder, f"recipe={name}"))


@pytest.fixture
def params(tmp_path: Path) -> Params:
    budget = {"ladder.samples": 8000, "ladder.pretrain_samples": 16000}
    return with_values(
        recipe(tmp_path, "ladder"), budget | {"finetune.batch_size": 64, "pretrain.batch_size": 64}
    )


def entries(params: Params) -> list[Entry]:
    sets = {key: data for key, data in params.datasets.items() if data.train}
    return [{"dataset": key, "samples": 1000, "repeat": data.repeat} for key, data in sets.items()]


def differing(one: Params, other: Params) -> set[str]:
    first, second = (flatten(params.model_dump(mode="json")) for params in (one, other))
    return {path for path in first.keys() | second.keys() if first.get(path) != second.get(path)}


@pytest.mark.parametrize("name", ["ladder", "coco17"])
def test_each_rung_differs_from_the_one_before_as_it_says(tmp_path: Path, name: str) -> None:
    params = recipe(tmp_path, name)
    rungs = [rung_params(params, rung, params.seed, entries(params)) for rung in NAMES]
    for number, rung in enumerate(RUNGS[1:], 1):
        found = differing(rungs[number - 1], rungs[number])
        longer = bool({"ladder.samples", "datasets", "finetune.weak_epochs"} & set(rung.changes))
        named = set(rung.changes) | (BUDGET if longer else set())
        unnamed = {path for path in found if path not in named and not path.startswith("datasets.")}
        assert found and not unnamed, (rung.name, unnamed)
        assert "datasets" in rung.changes or not any(path.startswith("datasets.") for path in found), (
            rung.name
        )
    assert differing(rungs[-1], params) <= BUDGET
    assert set(overrides(params, NAMES[-1])) == {"model.ema_momentum", "ladder.samples"}


@pytest.mark.parametrize("change", [{"model.activation": "hardswish"}, {"model.neck": "rtmw"}])
def test_every_rung_of_another_network_can_be_built(tmp_path: Path, change: dict[str, Any]) -> None:
    params = with_values(recipe(tmp_path, "ladder"), change)
    with torch.device("meta"):
        for name in NAMES:
            rung = rung_params(params, name, params.seed, entries(params))
            build_model(rung.model, 17, params.input_size)


def test_values_of_the_published_ladder(tmp_path: Path) -> None:
    params = recipe(tmp_path, "coco17")
    rungs = {name: rung_params(params, name, 5, entries(params)) for name in NAMES}
    first, before, last = rungs["resnet50-heatmap"], rungs["cspnext"], rungs["data"]
    assert (first.model.backbone, first.model.head, first.finetune.sigma) == (
        "resnet50",
        "heatmap",
        (2.0, 2.0),
    )
    assert rungs["resnet50-simcc-deconv"].finetune.sigma == pytest.approx((5.28, 5.28))
    assert (before.model.backbone, before.model.head, before.finetune.tau) == ("cspnext", "simcc_plain", 1.0)
    assert (before.model.ema_momentum, before.finetune.optim.schedule, before.finetune.optim.decay_norms) == (
        0.0,
        "step",
        True,
    )
    assert (before.finetune.strong.hole, before.finetune.strong.rotate, before.finetune.weak_epochs) == (
        0.0,
        80.0,
        0,
    )
    assert before.finetune.strong.pixels == () and last.finetune.strong == params.finetune.strong
    assert (last.finetune.tau, last.finetune.sigma, last.model.kernel, last.model.gau) == (0.1, None, 7, True)
    assert all(rung.seed == 5 and rung.finetune.evaluate_every == 1 for rung in rungs.values())
    assert not before.datasets["aic"].train and last.datasets["aic"].train
    # 31.5 M samples on 3,000 crops an epoch, in batches of 2,048
    assert [rungs[name].finetune.epochs for name in ("kernel", "longer", "longest")] == [7690, 9888, 15381]
    assert rungs["kernel"].finetune.weak_epochs == round(7690 * 30 / 420)


def test_pretraining_is_the_recipes_own(params: Params) -> None:
    """Whatever the rung's network: only data and seed are the rung's."""
    sets = entries(params)
    low, high, data = (
        pretrain_params(params, rung_params(params, name, 2, sets), sets) for name in ("ema", "gau", "data")
    )
    assert low == high and low.model == params.model and low.seed == 2
    assert low.pretrain.epochs == 16 and low.pretrain.weak_epochs == round(16 * 1 / 4)
    assert data.pretrain.epochs == 5 and data.datasets == params.datasets


def test_budgets_become_the_nearest_number_of_epochs(params: Params) -> None:
    one = [{"dataset": "coco17", "samples": 100, "repeat": 2}]  # 4 steps of 64
    for samples, epochs in ((1, 1), (256, 1), (640, 2), (900, 4), (1024, 4)):
        found = epochs_for(params.finetune, samples, one)
        assert found == {"epochs": epochs, "weak_epochs": {1: 0, 2: 1, 4: 1}[epochs], "patience": None}


def test_without_ema_in_the_recipe_the_published_one_is_added(tmp_path: Path) -> None:
    params = with_values(recipe(tmp_path, "ladder"), {"model.ema_momentum": 0.0})
    assert rung_params(params, "data", 1, entries(params)).model.ema_momentum == 0.0002
    assert rung_params(params, "pretrain", 1, entries(params)).model.ema_momentum == 0.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ladder": None}, "ladder: has no budget"),
        ({"ladder.rungs": ["gaus"]}, "no rung 'gaus'; did you mean gau"),
        (
            {"ladder.base": ["hard"]},
            "ladder.base: 'hard' is no data set with train: true; choose from coco17, aic",
        ),
        ({"pretrain.enabled": False}, "pretrain.enabled: false leaves the rung"),
        ({"finetune.init": "x.pth"}, "finetune.init: rungs start from pretraining"),
        ({"model.head": "heatmap"}, "model.head: heatmap is a baseline"),
    ],
)
def test_mistakes_are_one_line(params: Params, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen_rungs(with_values(params, changes))
    assert (
        expected in str(caught.value) and "params.yaml" in str(caught.value) and "\n" not in str(caught.value)
    )


def test_three_different_seeds_are_needed(params: Params) -> None:
    for seeds in ([1, 2], [1, 2, 2], [1, 2, -3]):
        with pytest.raises(ValueError, match="at least three different numbers"):
            with_values(params, {"ladder.seeds": seeds})


def test_some_rungs_in_the_ladders_order(params: Params) -> None:
    assert [
        rung.name for rung in chosen_rungs(with_values(params, {"ladder.rungs": ["tau", "cspnext"]}))
    ] == [
        "cspnext",
        "tau",
    ]
