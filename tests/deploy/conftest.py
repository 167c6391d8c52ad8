from __future__ import annotations

from pathlib import Path

import pytest

from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.runtimes.base import ModelFiles
from tests.deploy.support import SIZE, card, formula_net, save_weights


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """An exported model and its weights."""
    folder: Path = tmp_path_factory.mktemp("exported")
    onnx = export_onnx(formula_net(), SIZE, folder / "deep" / "rtmpose.onnx", card=card())
    return ModelFiles(onnx, save_weights(folder))
