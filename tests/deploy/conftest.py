from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.files import locked
from tests.deploy.support import SIZE, card, formula_net, save_weights


def exported(factory: pytest.TempPathFactory, name: str, export: Callable[[Path], object]) -> Path:
    """A folder that `export` has filled. That takes seconds of CPU time. So it is done once in a run, by
    whichever worker and folder of tests asks first; each gets a copy, since tests write beside it.
    """
    run: Path = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    first, folder = run / f"{name}-first", factory.mktemp(name)
    with locked(run / f"{name}.lock"):
        if not (first / "done").exists():
            export(first)
            (first / "done").touch()
    shutil.copytree(first, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("done"))
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """An exported model and its weights."""

    def export(folder: Path) -> None:
        export_onnx(formula_net(), SIZE, folder / "deep" / "rtmpose.onnx", card=card())
        save_weights(folder)

    folder = exported(tmp_path_factory, "exported", export)
    return ModelFiles(folder / "deep" / "rtmpose.onnx", folder / "rtmpose.pt")


@pytest.fixture(scope="session")
def half_file(tmp_path_factory: pytest.TempPathFactory, files: ModelFiles) -> Path:
    """The same network in float16, which belongs to that file."""

    def export(folder: Path) -> None:
        path = folder / "rtmpose.fp16.onnx"
        export_onnx(formula_net(), SIZE, path, card=card(), precision="fp16", exported=files.onnx)

    return exported(tmp_path_factory, "half", export) / "rtmpose.fp16.onnx"
