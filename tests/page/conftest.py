from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.page.app import page
from rtmpose.page.limits import Limits
from tests.deploy.conftest import files
from tests.deploy.support import relabelled
from tests.inference.clips import clip
from tests.page.support import running, tiny

__all__ = ["files"]

LIMITS = Limits(image_bytes=200_000, video_bytes=200_000, image_pixels=1_000_000, video_seconds=3.0, boxes=4)


@pytest.fixture(scope="session")
def pipeline(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> PosePipeline:
    """The small exported model, calibrated so that its points differ in confidence; a detector of one box."""
    curve = {"slope": 1.0, "intercept": -6.0}
    return tiny(relabelled(files, tmp_path_factory.mktemp("calibrated"), confidence=curve))


@pytest.fixture(scope="session")
def client(pipeline: PosePipeline) -> Iterator[httpx.Client]:
    """Of a page that runs with the real pipeline and small limits."""
    with running(page(pipeline, name="tiny.onnx", limits=LIMITS)) as found:
        yield found


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("clips") / "clip.mp4")
