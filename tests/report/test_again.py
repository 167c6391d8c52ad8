"""The commands that do a run again compose to its parameters, whatever differs from its recipe."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtmpose.config import Params, load_params
from rtmpose.files import UserError
from rtmpose.report.blocks import Code, Table
from rtmpose.report.folder import UNKNOWN, Folder
from rtmpose.report.sections.again import again
from rtmpose.report.sections.overrides import composed
from tests.support import ROOT
from tests.test_workflow import compose


def commands(folder: Path, content: dict[str, Any], commit: str = "ab12") -> str:
    """What the page of a run with these parameters says to do."""
    (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (code,) = (
        block for block in again(Folder(folder, "x", commit, ROOT / "conf")).blocks if isinstance(block, Code)
    )
    return code.text


def overrides_of(text: str) -> list[str]:
    words = shlex.split(text.split("dvc exp run")[1].replace("\\\n", " "))
    return [value for flag, value in itertools.pairwise(words) if flag == "-S"]


def pixels(content: dict[str, Any]) -> None:
    content["finetune"]["strong"]["pixels"] = [{"name": "Blur", "p": 0.2, "blur_limit": [3, 7]}]
    content["finetune"]["optim"]["lr"] = 5e-05


def sets(content: dict[str, Any]) -> None:
    content["datasets"]["mine"] = content["datasets"].pop("aic") | {"raw": "/data/my own: $x's"}
    content["datasets"]["coco17"]["render"] = {
        "level": "hard",
        "images": {"train": 3},
        "size": [64, 64],
        "seed": 1,
    }


def optional(content: dict[str, Any]) -> None:
    content["finetune"]["distill"] = {"teacher": "t.pt"}
    content["search"]["space"] = {"finetune.tau": {"low": 0.1, "high": 0.3}}
    content["promotion"]["slice_floors"] = {"all": 40.0}
    content["ladder"] = None


@pytest.mark.parametrize("change", [pixels, sets, optional])
def test_the_command_gives_the_runs_parameters(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    content = load_params(compose(tmp_path, "recipe=coco17")).model_dump(mode="json")
    change(content)
    text = commands(tmp_path, content)
    assert load_params(compose(tmp_path, *overrides_of(text))) == Params.model_validate(content)


def test_a_size_is_chosen_with_all_that_the_recipe_changes_for_it(tmp_path: Path) -> None:
    compose(tmp_path, "recipe=body/coco_384", "model=x")
    content = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert commands(tmp_path, content).endswith("\ndvc exp run -S recipe=body/coco_384 -S model=x")


def test_what_no_command_line_gives_is_the_runs_own_file(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["datasets"] = {"first": content["datasets"]["coco17"]} | content["datasets"]
    text = commands(tmp_path, content, UNKNOWN)
    assert text.endswith("cp RUN/params.yaml .  # the run's own\ndvc repro"), (
        "the first set is reported first"
    )
    assert "git checkout" not in text


def test_parameters_that_differ_are_told(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["finetune"]["tau"], content["model"]["size"] = 0.2, "s"
    text = commands(tmp_path, content, "ab12-dirty")
    assert "git checkout ab12\n" in text
    assert "dvc exp run -S recipe=mannequin \\\n  -S model.size=s \\\n  -S finetune.tau=0.2" in text
    blocks = again(Folder(tmp_path, "x", "ab12-dirty", ROOT / "conf")).blocks
    (table,) = (block for block in blocks if isinstance(block, Table) and block.head[0] == "parameter")
    assert table.rows == (("model.size", "t", "s"), ("finetune.tau", "0.1", "0.2"))
    assert "no commit holds" in repr(blocks)


def test_the_default_run_is_make_repro_and_an_unknown_recipe_is_told(run: Folder) -> None:
    (code,) = (block for block in again(run).blocks if isinstance(block, Code))
    assert code.text.endswith("\nmake repro")
    params = run.params().model_copy(update={"recipe": "nobody's"})
    with pytest.raises(UserError, match="cannot be composed"):
        composed(params, ROOT / "conf")
