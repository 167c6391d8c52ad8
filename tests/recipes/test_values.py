"""Every value of every recipe is the published one, or differs for a reason that stands in the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtmpose.files import UserError
from rtmpose.training.job import named_weights
from tests.recipes.conftest import Recipe
from tests.recipes.facts import Facts, facts_of, facts_of_reference
from tests.recipes.published import FINETUNED, PRETRAINED, Published
from tests.support import ROOT, golden

NOT_PUBLISHED = {
    *("mannequin", "radiographs", "own_data"),  # rendered, and one's own
    *("ladder", "published"),  # the parts that others share
    *("dwpose133", "rtmw133"),  # of other papers, whose training the reference's files do not hold
    *("cephalometric", "cephalometric1024", "cephalometric_hrnet"),
}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return dict(json.loads(golden("models.json").read_text()))


def compared(ours: Facts, theirs: Facts, entry: Published) -> None:
    """Every fact is the reference's, but for those that differ with a reason."""
    expected = {**theirs, **entry.values}
    assert set(entry.values) | set(entry.differs) <= set(theirs) and set(ours) == set(theirs)
    found = {}
    for fact, value in expected.items():
        wanted, same = value, entry.differs.get(fact)
        if same is not None:
            assert same[0] != value, f"{fact}: no difference any more; take it off the table"
            wanted = same[0]
        alike = pytest.approx(wanted, rel=1e-5) if isinstance(wanted, float) else wanted
        if isinstance(wanted, tuple) and all(isinstance(side, int | float) for side in wanted):
            alike = pytest.approx(wanted, rel=1e-6, abs=0.002 if fact == "sigma" else 0)
        if ours[fact] != alike:
            found[fact] = (ours[fact], wanted)
    assert not found, f"{entry.name} beside {entry.golden}: (ours, published) {found}"


@pytest.mark.parametrize("entry", FINETUNED, ids=lambda entry: entry.name)
def test_finetuning_is_the_published_one(entry: Published, recipe: Recipe, models: dict[str, Any]) -> None:
    theirs = facts_of_reference(models[entry.golden])
    compared(facts_of(recipe(entry.recipe, entry.size)), theirs, entry)


@pytest.mark.parametrize("entry", PRETRAINED, ids=lambda entry: entry.name)
def test_pretraining_is_the_published_one(entry: Published, recipe: Recipe, models: dict[str, Any]) -> None:
    params, theirs = recipe(entry.recipe, entry.size), facts_of_reference(models[entry.golden])
    assert params.pretrain.enabled
    compared(facts_of(params, "pretrain"), theirs, entry)


def test_what_is_not_golden_says_where_it_comes_from() -> None:
    for entry in (*FINETUNED, *PRETRAINED):
        assert bool(entry.values) == bool(entry.from_), entry.name
        assert all(reason for _, reason in entry.differs.values())


def test_every_recipe_and_every_size_of_its_own_is_in_the_table() -> None:
    conf = ROOT / "conf"
    files = {
        path.relative_to(conf / "recipe").with_suffix("").as_posix()
        for path in (conf / "recipe").rglob("*.yaml")
    }
    own = {name for name in files if not name.startswith("parts/")} - NOT_PUBLISHED
    assert own == {entry.recipe for entry in FINETUNED}
    sized = {
        path.relative_to(conf / "by_size").with_suffix("").as_posix()
        for path in (conf / "by_size").rglob("*.yaml")
    }
    assert sized <= {f"{entry.recipe}_{entry.size}" for entry in FINETUNED}


def test_every_reference_configuration_has_a_recipe(models: dict[str, Any]) -> None:
    # Those of projects/ differ from the others in clipping alone; cspnext on COCO alone starts no recipe.
    left = {
        name for name in models if "projects" in name or (name.startswith("cspnext") and "udp_coco" in name)
    }
    assert set(models) - left == {entry.golden for entry in (*FINETUNED, *PRETRAINED)}


@pytest.mark.parametrize("entry", FINETUNED, ids=lambda entry: entry.name)
def test_crops_are_cut_for_what_is_asked_of_them(entry: Published, recipe: Recipe) -> None:
    params = recipe(entry.recipe, entry.size)
    assert params.shard.input_size == params.input_size
    stages = [params.finetune] + ([params.pretrain] if params.pretrain.enabled else [])
    for augment in (part for train in stages for part in (train.strong, train.weak)):
        for name in ("shift", "scale", "rotate"):
            assert getattr(augment, name) <= getattr(params.shard.reach, name), name


def test_some_set_chooses_the_checkpoint_and_the_last_judges(recipe: Recipe) -> None:
    for entry in FINETUNED:
        sets = recipe(entry.recipe, entry.size).datasets
        tuned = [key for key, data in sets.items() if data.train and data.evaluate]
        assert len(tuned) == 1, entry.name  # any other would give up training images for nothing


def test_a_missing_backbone_is_one_line(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = recipe("body/coco", "t")
    with pytest.raises(
        UserError, match=r"pretrain\.init: .*weights/udp-aic-coco-t\.pt is missing; .*docs/recipes\.md"
    ):
        named_weights("pretrain.init", params.pretrain.init)
    assert named_weights("pretrain.init", recipe("coco17", "t").pretrain.init) is None
