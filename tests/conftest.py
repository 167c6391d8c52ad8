"""Fast tests first: what starts Ray or kills processes runs last."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Workers that run side by side get a thread each, and so do the processes that they start. With a thread for
# each core they wait for each other: on two cores three workers took 2.4 times the processor time.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from rtmpose.config import setup_environment
from rtmpose.files import temporary_beside
from rtmpose.tracking import runs

setup_environment()
# Full collections look through all that was imported: they took a twentieth of the processor time.
gc.set_threshold(*gc.get_threshold()[:2], 200)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session", autouse=True)
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """What makes a data base of MLflow. That takes more than a second, so it is done once: elsewhere in this
    process a new data base is a copy. The programs that tests start make their own.
    """
    real, made = runs._create, tmp_path_factory.mktemp("store") / "mlflow.db"

    def copied(path: Path) -> None:
        if not made.exists():
            real(made)
        temporary = temporary_beside(path)
        shutil.copy(made, temporary)
        runs._link(temporary, path)
        temporary.unlink(missing_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_create", copied)
        yield real


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium with a drawn camera, which it may use without asking."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed (Debian's package `chromium`)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in the extra `dev`")
    options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=options)
        yield found
        found.close()
