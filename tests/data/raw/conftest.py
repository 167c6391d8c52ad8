"""Random weights of the model in params.yaml, made once, and a folder to run commands in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data.raw.real_files import Desk, random_weights
from tests.support import ROOT


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def desk(
    weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    monkeypatch.chdir(folder)
    return Desk(folder, weights, capsys)
