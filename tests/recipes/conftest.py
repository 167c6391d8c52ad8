"""Composed recipes, each composed once; shards of every set's samples, each cut once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from rtmpose.config import Params, parse
from tests.recipes.shelf import Shelf
from tests.support import ROOT

Recipe = Callable[[str, str], Params]


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The parameters of a recipe at a model size, on one CPU, as DVC composes them."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    @cache
    def composed(name: str, size: str) -> Params:
        with initialize_config_dir(str(ROOT / "conf"), version_base=None):
            found = compose("config", [f"recipe={name}", f"model={size}", "hardware=cpu"])
        return parse(Params, OmegaConf.to_container(found, resolve=True), Path("params.yaml"))

    return composed


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))
