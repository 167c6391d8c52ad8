"""Where missing weights come from: for every recipe the command that puts its backbone in place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rtmpose.config import DistillParams, Params, load_params, with_values
from rtmpose.doctor.fixes import Command
from rtmpose.doctor.recipe import recipes
from rtmpose.doctor.weights import ORIGINS, backbone, weights
from rtmpose.released.catalogue import find
from tests.recipes.conftest import Recipe, recipe
from tests.support import ROOT

__all__ = ["recipe"]

RUN, GIVEN = Command(("recipe=mine",)), "dvc exp run -S recipe=mine"
# The released backbone by recipe and size; where nothing stands, that of COCO and AI Challenger.
BACKBONES = {
    ("body/halpe26", "t"): "cspnext-t-udp", ("body/halpe26", "s"): "rtmpose-s-body17",
    ("body/halpe26", "m"): "rtmpose-m-body17", ("body/halpe26_384", "m"): "rtmpose-m-body17-384",
    ("body/halpe26_384", "x"): "cspnext-x-udp-384", ("body/coco_384", "x"): "cspnext-x-udp-384",
    ("wholebody/coco_384", "x"): "cspnext-x-udp-384",
}  # fmt: skip
ALL = recipes(ROOT / "conf/recipe")
SIZED = [(name, "m") for name in ALL] + [pair for pair in BACKBONES if pair[1] != "m"]


@pytest.fixture
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.mark.parametrize(("name", "size"), SIZED)
def test_every_recipe_gets_the_backbone_that_it_names(
    name: str, size: str, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(name, size)
    monkeypatch.chdir(tmp_path)
    init = chosen.pretrain.init
    told = [one for one in weights(chosen, Command((f"recipe={name}",))) if "pretrain.init:" in one.found]
    if init is None:
        assert not told
        return
    (found,) = told
    assert found.state == "lacks"
    if name == "face/face6":
        assert found.fix.endswith("dvc exp run -S recipe=face/face6 -S pretrain.init=null")
        return
    pulled = BACKBONES.get((name, size), f"cspnext-{size}-udp-coco")
    assert found.fix == f'mkdir -p weights && ln -sf "$(rtmpose weights pull {pulled}.pth)" {init}'
    assert find(f"{pulled}.pth").weights.size == size


def test_the_table_of_the_page_says_the_same() -> None:
    page = (ROOT / "docs/recipes.md").read_text()
    rows = re.findall(
        r"^\| `weights/(\S+)\.pt` \| `recipe=(\S+?)[ `].*?`(models/\S+)` \| `(\S+)`", page, re.M
    )
    assert {row[0].rpartition("-")[0] for row in rows} == set(ORIGINS)
    for file, name, made, released in rows:
        kind, _, size = file.rpartition("-")
        origin, size = ORIGINS[kind], "m" if size == "SIZE" else size
        assert (origin.recipe, origin.file) == (name, made)
        stem = released.replace("SIZE", size).replace("tiny", "t")
        published = find(f"{origin.released.format(size)}.pth").published.file.replace("tiny", "t")
        assert published.startswith(stem)


def test_a_backbone_that_nobody_released_is_trained_first() -> None:
    assert backbone("weights/udp-aic-coco-x.pt", RUN) == (
        "dvc exp run -S recipe=coco17 -S model=x pretrain && mkdir -p weights && "
        "cp models/pretrain.pt weights/udp-aic-coco-x.pt"
    )
    assert backbone("mine.pt", RUN) == f"{GIVEN} -S pretrain.init=FILE"


def with_skeleton(name: str) -> dict[str, object]:
    keys = ("skeleton", "pretrain.skeleton", "finetune.skeleton")
    return dict.fromkeys(keys, name) | {"pretrain.enabled": False}


def test_points_that_no_released_weights_have_start_from_a_backbone(params: Params) -> None:
    bare = with_values(params, with_skeleton("cephalometric38"))
    (found,) = weights(bare, RUN)
    assert found.fix == f"{GIVEN} -S pretrain.init=FILE"
    (found,) = weights(with_values(params, with_skeleton("own")), RUN)
    assert found.fix.startswith(f"{GIVEN} -S finetune.init=")


def test_an_override_takes_the_place_of_one_that_was_given() -> None:
    command = Command(("recipe=mine", "hardware=gpu8", "+model.kernel=3"))
    assert command.to("hardware=cpu", "model.kernel=1", stage="evaluate") == (
        "dvc exp run -S recipe=mine -S hardware=cpu -S model.kernel=1 evaluate"
    )


def test_without_overrides_the_command_makes_the_params_again(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert Command.of(params, ()).to() == "dvc exp run -S recipe=mannequin"
    changed = with_values(params, {"seed": 3})
    assert Command.of(changed, ()).to("hardware=cpu") == (
        "dvc exp run -S recipe=mannequin -S seed=3 -S hardware=cpu"
    )
    assert Command.of(params, ["recipe=coco17"]).to() == "dvc exp run -S recipe=coco17"


def test_weights_that_are_missing(tmp_path: Path, params: Params) -> None:
    assert list(weights(params, RUN)) == []
    small = with_values(params, {"model.size": "s", "input_size": (192, 256)})
    lost = with_values(small, {"finetune.init": str(tmp_path / "w.pth")})
    (found,) = weights(lost, RUN)
    assert found.state == "lacks" and f"{tmp_path}/w.pth is missing" in found.found
    assert found.fix == f'{GIVEN} -S finetune.init="$(rtmpose weights pull rtmpose-s-body17-coco.pth)"'
    (tmp_path / "w.pth").write_bytes(bytes(2_000_000))
    (found,) = weights(lost, RUN)
    assert found.state == "ok" and "2 MB" in found.found
    (found,) = weights(with_values(params, {"pretrain.enabled": False}), RUN)
    assert found.state == "note" and "random" in found.found


def test_a_teacher_that_is_missing(tmp_path: Path, params: Params) -> None:
    values = {
        "finetune.distill": DistillParams(teacher=str(tmp_path / "l.pth")),
        "skeleton": "coco_wholebody",
        "finetune.skeleton": "coco_wholebody",
        "input_size": (192, 256),
    }
    student = with_values(with_values(params, {"model.size": "m"}), values)
    (found,) = weights(student, RUN)
    assert found.state == "lacks" and f"finetune.distill.teacher: {tmp_path}/l.pth is missing" in found.found
    assert found.fix == (
        f'{GIVEN} -S finetune.distill.teacher="$(rtmpose weights pull rtmpose-l-wholebody.pth)"'
    )
    (tmp_path / "l.pth").write_bytes(bytes(2_000_000))
    (found,) = weights(student, RUN)
    assert found.state == "ok" and "2 MB" in found.found
