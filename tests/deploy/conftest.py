from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.files import locked
from tests.deploy.support import SIZE, card, formula_net, save_weights


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """An exported model and its weights.

    The export takes seconds of CPU time. So it is made once in a run, by whichever worker and folder of tests
    asks first; each gets a copy, since tests write beside it.
    """
    run: Path = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    first, folder = run / "exported-first", tmp_path_factory.mktemp("exported")
    with locked(run / "exported.lock"):
        if not (first / "rtmpose.pt").exists():
            export_onnx(formula_net(), SIZE, first / "deep" / "rtmpose.onnx", card=card())
            save_weights(first)  # last: it says that all is there
    shutil.copytree(first, folder, dirs_exist_ok=True)
    return ModelFiles(folder / "deep" / "rtmpose.onnx", folder / "rtmpose.pt")
