"""The workflow's definition: params.yaml is what conf/ composes to, recipes hold the published values, the
graph is sound.
"""

from __future__ import annotations

import itertools
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from rtmpose.config import Params, load_params, parse
from rtmpose.files import UserError
from tests.support import ROOT
from tests.workspace import Workspace


def compose(folder: Path, *overrides: str) -> Path:
    """What `dvc exp run -S …` writes into params.yaml."""
    from dvc.utils.hydra import compose_and_dump

    out = folder / "params.yaml"
    compose_and_dump(out, str(ROOT / "conf"), None, "config", str(ROOT), list(overrides))
    return out


def test_params_yaml_is_what_conf_composes_to(tmp_path: Path) -> None:
    composed = yaml.safe_load(compose(tmp_path).read_text())
    assert yaml.safe_load((ROOT / "params.yaml").read_text()) == composed


@pytest.mark.parametrize("hardware", ["cpu", "gpu1", "gpu8", "cluster"])
@pytest.mark.parametrize("size", ["t", "s", "m", "l", "x"])
@pytest.mark.parametrize("recipe", ["mannequin", "coco17", "wholebody133", "ladder"])
def test_every_switch_gives_valid_parameters(tmp_path: Path, recipe: str, size: str, hardware: str) -> None:
    params = load_params(compose(tmp_path, f"recipe={recipe}", f"model={size}", f"hardware={hardware}"))
    assert (params.recipe, params.model.size) == (recipe, size)
    assert params.hardware.workers == {"gpu8": 8, "cluster": 16}.get(hardware, 1)


def test_coco17_is_the_published_recipe(tmp_path: Path) -> None:
    params = load_params(compose(tmp_path, "recipe=coco17"))
    assert (
        params.model.size == "m" and params.model.weight_decay == 0.05 and params.model.ema_momentum == 0.0002
    )
    assert params.input_size == (192, 256) and params.seed == 21
    assert {key: data.repeat for key, data in params.datasets.items()} == {"coco17": 3, "aic": 1}
    assert (params.pretrain.epochs, params.finetune.epochs) == (210, 420)
    assert params.pretrain.skeleton == "coco_aic19" and params.finetune.skeleton == "coco17"
    for train in (params.pretrain, params.finetune):
        assert train.batch_size == 8 * 256 and train.weak_epochs == 30
        assert (train.optim.lr, train.optim.warmup_steps, train.optim.warmup_start) == (4e-3, 1000, 1e-5)
        assert (
            train.optim.final_lr == 0.05 and train.optim.ema_gamma == 2000 and train.optim.clip_grad is None
        )
        strong, weak = train.strong, train.weak
        assert (strong.shift, strong.scale, strong.rotate, strong.hole) == (0.16, 0.4, 80, 1.0)
        assert (weak.shift, weak.scale, weak.rotate, weak.hole) == (0, 0.25, 60, 0.5)
        blurs = [(entry.name, entry.p, entry.model_extra) for entry in strong.pixels]
        assert blurs == [(name, 0.1, {"blur_limit": [3, 7]}) for name in ("Blur", "MedianBlur")]
        assert weak.pixels == strong.pixels
    assert not params.search.enabled and params.finetune.tau == 0.1 and params.finetune.sigma is None


def documented_overrides() -> list[list[str]]:
    """What follows each -S of the `dvc exp run` commands in README.md and docs/."""
    commands = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text().replace("\\\n", " ")
        for line in (line.strip() for line in text.splitlines()):
            if line.startswith("dvc exp run"):
                words = shlex.split(line, comments=True)
                commands.append([value for flag, value in itertools.pairwise(words) if flag == "-S"])
    return commands


@pytest.mark.parametrize("overrides", documented_overrides(), ids=" ".join)
def test_documented_commands_compose(tmp_path: Path, overrides: list[str]) -> None:
    assert overrides and load_params(compose(tmp_path, *overrides)).recipe


def test_bytecode_starts_no_stage_again(tmp_path: Path) -> None:
    """Two stages depend on one folder of code and import different modules of it. Both are run twice in the
    environment of a user, whose Python writes bytecode.
    """
    workspace = Workspace(tmp_path)
    code = tmp_path / "code"
    code.mkdir()
    stages = {}
    for name in ("first", "second"):
        (code / f"{name}.py").write_text("ANSWER = 42\n")
        program = f'import sys; sys.path.append("code"); import {name}; print({name}.ANSWER)'
        command = f"{sys.executable} -c {shlex.quote(program)}"
        stages[name] = {"cmd": f"{command} > {name}.txt", "deps": ["code"], "outs": [f"{name}.txt"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    once, again = (workspace.run("dvc", "repro") for _ in range(2))
    assert once.returncode == 0 and "Running stage 'second'" in once.stdout, once.stdout + once.stderr
    assert list(code.rglob("*.pyc")), "the test's Python wrote no bytecode"
    assert again.returncode == 0 and "Running stage" not in again.stdout, again.stdout + again.stderr


def test_every_stage_module_exists() -> None:
    files = (ROOT / "dvc.yaml", ROOT / "ladder/dvc.yaml")
    stages = [stage for file in files for stage in yaml.safe_load(file.read_text())["stages"].items()]
    for name, content in stages:
        command = content.get("do", content)["cmd"]
        assert command.split()[:2] == ["python", "-m"]
        assert (ROOT / (command.split()[2].replace(".", "/") + ".py")).is_file(), name


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("finetune.sigmas", [1, 2], "finetune.sigmas: unknown key"),
        ("finetune.sigma", [0.0, 4.0], "sigma must be > 0"),
        ("pretrain.sigma", -2.0, "pretrain.sigma"),
        ("finetune.tau", 0.0, "finetune.tau"),
        ("model.size", "xxl", "model.size"),
        ("input_size", [100, 128], "multiples of 32"),
        ("finetune.weak_epochs", 9999, "weak_epochs"),
        ("targets", [], "targets: List should have at least 1 item"),
        ("promotion.targets", [], "promotion.targets: List should have at least 1 item"),
        ("promotion.targets", ["rpi5"], "promotion.targets: rpi5 is not among targets"),
        ("promotion.max_ap_loss", -1, "promotion.max_ap_loss"),
        ("search.tau", [0.2, 0.1], "search.tau: unknown key"),
    ],
)
def test_bad_parameters_are_one_line(tmp_path: Path, key: str, value: object, expected: str) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    *parents, last = key.split(".")
    group = content
    for parent in parents:
        group = group[parent]
    group[last] = value
    with pytest.raises(UserError) as caught:
        parse(Params, content, tmp_path / "params.yaml")
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path / "params.yaml") in str(caught.value)


def test_damaged_yaml_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\nmodel: [t\n")
    with pytest.raises(UserError, match=r"params\.yaml line \d+"):
        load_params(tmp_path / "params.yaml")
