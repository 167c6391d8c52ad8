"""`dvc exp run`, as the documentation shows it for every recipe, on a committed checkout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rtmpose.config import load_params
from tests.docs.test_tutorial import people
from tests.support import ROOT
from tests.workspace import Workspace


@pytest.mark.slow
def test_a_recipe_is_composed_and_run(tmp_path: Path) -> None:
    """As far as the shards of a user's own people; a plain `dvc repro` then keeps to the composition."""
    workspace = Workspace(tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / ".dvc/config", tmp_path / ".dvc/config")
    people(tmp_path)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text() + "/rendered/\n/my_people/\n")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("git", "init", "-q"), ("git", "add", "-A"), (*git, "commit", "-qm", "mine")):
        assert workspace.run(*command).returncode == 0
    done = workspace.run(
        "dvc", "exp", "run", "-S", "recipe=own_data", "-S", "datasets.own.raw=my_people", "-S", "model=t",
        "-S", "hardware=cpu", "-S", "shard.workers=1", "mix",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    params = load_params(tmp_path / "params.yaml")
    assert (params.recipe, params.model.size, params.hardware.gpus_per_worker) == ("own_data", "t", 0)
    assert json.loads((tmp_path / "data/mix.json").read_text())["train"][0]["samples"] > 0
    again = workspace.run("dvc", "repro", "mix")
    assert again.returncode == 0 and "Running stage" not in again.stdout, again.stdout + again.stderr
