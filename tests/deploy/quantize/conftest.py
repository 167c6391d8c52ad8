from __future__ import annotations

from pathlib import Path

import pytest

from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.quantize.calibration import Calibration, from_folder
from rtmpose.descriptors import load_dataset
from tests.deploy.support import SIZE, card


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with training shards (`train`) and evaluation shards (`val`) of rendered people."""
    root = tmp_path_factory.mktemp("shards")
    dataset = load_dataset("coco17")
    images = {"train": 40, "val": 12}
    render_dataset(root / "raw", "coco17", images=images, size=(160, 120), seed=1, workers=1)
    train, val = (list(read_images(dataset, root / "raw", split)) for split in ("train", "val"))
    write_train_shards(train, root / "train", dataset=dataset, workers=1, input_size=SIZE)
    write_eval_shards(val, root / "val", dataset=dataset, split="val", workers=1)
    return root


@pytest.fixture(scope="session")
def own_card() -> ModelCard:
    return card()


@pytest.fixture(scope="session")
def calibration(shards: Path, own_card: ModelCard) -> Calibration:
    return from_folder(shards / "train", own_card, 40)
