"""Fast tests first: what starts Ray or kills processes runs last."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Workers that run side by side get a thread each, and so do the processes that they start. With a thread for
# each core they wait for each other: on two cores three workers took 2.4 times the processor time.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from rtmpose.config import setup_environment
from rtmpose.tracking import runs

setup_environment()
# Looking through all that was imported took a twentieth of the processor time; what tests leave is younger.
gc.set_threshold(*gc.get_threshold()[:2], 200)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session", autouse=True)
def copied_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow takes more than a second to make the tables of a data base: it does so once, and tests in this
    process get copies. The programs that tests start make their own.
    """
    real, made = runs._create, tmp_path_factory.mktemp("store") / "mlflow.db"

    def create(path: Path) -> None:
        if not made.exists():
            real(made)
        shutil.copy(made, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_create", create)
        yield


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
