"""The paper's row stands beside a run of its recipe alone; differences from a recipe are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rtmpose.config import Params, load_params
from rtmpose.files import UserError
from rtmpose.report.blocks import Code, Table
from rtmpose.report.folder import Folder
from rtmpose.report.sections.again import again, differences
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
    assert "no table" in why(coco.model_copy(update={"datasets": more}))


def test_parameters_that_differ_are_told_with_the_command_that_sets_them(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["finetune"]["tau"], content["model"]["size"] = 0.2, "s"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    assert differences(load_params(tmp_path / "params.yaml"), ROOT / "conf") == [
        ("model.size", "t", "s"), ("finetune.tau", "0.1", "0.2")
    ]  # fmt: skip
    blocks = again(Folder(tmp_path, "x", "ab12-dirty", ROOT / "conf")).blocks
    (code,) = (block for block in blocks if isinstance(block, Code))
    assert "git checkout ab12\n" in code.text
    assert "dvc exp run -S recipe=mannequin \\\n  -S model.size=s \\\n  -S finetune.tau=0.2" in code.text
    assert any(isinstance(block, Table) and block.rows[0] == ("model.size", "t", "s") for block in blocks)
    assert "no commit holds" in repr(blocks)


def test_the_default_run_is_make_repro_and_an_unknown_recipe_is_told(run: Folder) -> None:
    (code,) = (block for block in again(run).blocks if isinstance(block, Code))
    assert code.text.endswith("\nmake repro")
    params = run.params().model_copy(update={"recipe": "nobody's"})
    with pytest.raises(UserError, match="cannot be composed"):
        differences(params, ROOT / "conf")
