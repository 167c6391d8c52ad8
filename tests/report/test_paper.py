"""The paper's row stands beside a run of its recipe alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtmpose.config import Params, load_params
from rtmpose.report.sections.accuracy import _beside
from rtmpose.report.sections.paper import Published, published
from tests.support import ROOT
from tests.test_workflow import compose


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Params:
    return load_params(compose(tmp_path_factory.mktemp("coco"), "recipe=coco17"))


def changed(params: Params, **groups: dict[str, Any]) -> Params:
    return params.model_copy(
        update={name: getattr(params, name).model_copy(update=values) for name, values in groups.items()}
    )


@pytest.mark.parametrize(("size", "ap"), [("t", 68.5), ("s", 72.2), ("m", 75.8), ("l", 76.5)])
def test_the_papers_recipe_has_the_papers_row(coco: Params, size: str, ap: float) -> None:
    found = published(changed(coco, model={"size": size}))
    assert isinstance(found, Published) and found.ap == ap


def test_another_recipe_has_none_and_why(coco: Params) -> None:
    def why(params: Params) -> str:
        found = published(params)
        assert isinstance(found, str)
        return found

    assert "rendered" in why(load_params(ROOT / "params.yaml"))
    assert "finetuning: 7, the paper's 420" in why(changed(coco, finetune={"epochs": 7}))
    assert "pretraining: 0" in why(changed(coco, pretrain={"enabled": False}))
    assert "size x" in why(changed(coco, model={"size": "x"}))
    assert "288×384" in why(coco.model_copy(update={"input_size": (288, 384)}))
    once = coco.datasets | {"coco17": coco.datasets["coco17"].model_copy(update={"repeat": 1})}
    assert "coco17 ×1" in why(coco.model_copy(update={"datasets": once}))
    more = coco.datasets | {"mpii": coco.datasets["aic"].model_copy(update={"descriptor": "mpii"})}
    assert "no figure of the paper is held here" in why(coco.model_copy(update={"datasets": more}))
    # A second set in the same layout is another set.
    twice = coco.datasets | {"mine": coco.datasets["coco17"]}
    assert "no figure of the paper is held here" in why(coco.model_copy(update={"datasets": twice}))
    assert "finetune from: mine.pt" in why(changed(coco, finetune={"init": "mine.pt"}))


@pytest.mark.parametrize(
    ("recipe", "size", "ap"),
    [
        ("body/coco", "m", 74.6),
        ("wholebody133", "m", 58.2),
        ("wholebody/coco_384", "x", 65.3),
        ("body/body8_384", "x", 78.8),
    ],
)
def test_a_published_recipe_has_its_row(tmp_path: Path, recipe: str, size: str, ap: float) -> None:
    params = load_params(compose(tmp_path, f"recipe={recipe}", f"model={size}"))
    found = published(params)
    assert isinstance(found, Published) and found.ap == ap
    assert found.init == (None if params.pretrain.enabled else params.pretrain.init)


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("rtmw133", "another system: model.neck is rtmw, RTMPose's none"),
        ("dwpose133", "another system: a teacher guides it"),
        ("body/coco_384", "no figure of the paper is held here for size m at 288×384"),
        ("hand/hand5", "no figure of the paper is held here"),
    ],
)
def test_a_recipe_without_a_row_says_why(tmp_path: Path, recipe: str, why: str) -> None:
    found = published(load_params(compose(tmp_path, f"recipe={recipe}")))
    assert isinstance(found, str) and why in found


def test_the_papers_row_stands_under_the_boxes_that_it_was_measured_on(coco: Params) -> None:
    row, note = _beside(coco)
    assert row is not None and (row[1], row[7], row[8]) == ("–", "–", "75.8")
    assert "on detector boxes" in note.text
    whole = changed(coco, evaluate={"boxes": ["detections"]}, pretrain={"enabled": False, "init": "b.pt"})
    row, note = _beside(whole)
    assert row is not None and (row[1], row[8]) == ("75.8", "–") and "backbone is that of b.pt" in note.text
