"""A few rendered people in each of the three raw layouts, for tests that need data on any machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import RawImage, read_images
from rtmpose.descriptors import load_dataset


@pytest.fixture(scope="session")
def mannequins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw data sets `coco17`, `aic` and `coco_wholebody` of eight 160x120 training
    images each.
    """
    root = tmp_path_factory.mktemp("mannequins")
    for seed, layout in enumerate(("coco17", "aic", "coco_wholebody")):
        render_dataset(root / layout, layout, images={"train": 8}, size=(160, 120), seed=seed, workers=1)
    return root


@pytest.fixture
def images(mannequins: Path) -> list[RawImage]:
    """The training images of the rendered COCO, as its reader gives them."""
    return list(read_images(load_dataset("coco17"), mannequins / "coco17", "train"))
