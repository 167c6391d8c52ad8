"""A workspace whose next stage is the search."""

from __future__ import annotations

import pytest

from tests.search.searching import TAU
from tests.workspace import Workspace


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("search")).small()
    workspace.set(
        search={
            "enabled": True, "warmup_steps": 2, "trial_steps": 6, "reports": 3, "trials": 2,
            "reference_seeds": 2, "concurrent": 1,
            "space": {"finetune.tau": TAU, "model.kernel": {"choices": [5, 7]}},
        },
        model__hidden=32, input_size=[64, 64], shard__input_size=[64, 64],
    )  # fmt: skip
    for stage, *arguments in (("raw", "coco17"), ("shard", "coco17"), ("mix",), ("pretrain",)):
        done = workspace.stage(stage, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return workspace
