"""A run of sharding that was killed, and what an undisturbed one writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtmpose.data.raw.annotations import RawImage, read_images
from tests.data.shards.resuming import COCO, Killed, cut, resumed
from tests.data.shards.test_write import contents


@pytest.fixture
def killed(images: list[RawImage], tmp_path: Path) -> Path:
    """A folder in which a run was killed after three of its shards."""
    with pytest.raises(Killed):
        resumed(images, tmp_path, stop=3)
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(mannequins: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed") / "train"
    cut(list(read_images(COCO, mannequins / "coco17", "train")), folder)
    return contents(folder)
