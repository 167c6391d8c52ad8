"""What tests run on a raw folder: the check, evaluation and sharding, as a user would, but in this process;
and a plain set to change.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from rtmpose.cli.app import app
from rtmpose.config import load_params
from rtmpose.data.raw.annotations import index_raw, read_images
from rtmpose.data.raw.check import check_split
from rtmpose.descriptors import Dataset, load_dataset
from rtmpose.files import UserError
from rtmpose.models import build_model, save_tensors
from tests.support import ROOT

COCO = load_dataset("coco17")
NAMES = COCO.skeleton.names
POINTS = [[45 + 4 * k, 20 + 5 * k, 2] for k in range(17)]
PLAIN: dict[Path, dict[str, Any]] = {}  # figures of the plain set, by weights
Change = Callable[[dict[str, Any]], object]


@dataclass
class Outcome:
    """What a command printed, and the one line it ended with where it failed."""

    out: str
    notes: str  # on stderr
    error: str = ""

    @property
    def said(self) -> str:
        return self.out + self.notes + self.error

    @property
    def figures(self) -> dict[str, Any]:
        assert not self.error, self.error
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


@dataclass
class Desk:
    """A folder to work in, with the parameters and random weights of the model in them."""

    folder: Path
    weights: Path
    capture: pytest.CaptureFixture[str]

    def run(self, command: Callable[[], object]) -> Outcome:
        self.capture.readouterr()
        error = ""
        try:
            command()
        except UserError as mistake:
            error = str(mistake)
            assert "\n" not in error
        out, notes = self.capture.readouterr()
        return Outcome(out, notes, error)

    def check(self, raw: Path, split: str = "train", descriptor: str = "coco17", *more: str) -> Outcome:
        """`rtmpose dataset check`."""
        words = ["dataset", "check", descriptor, "--raw", str(raw), "--split", split, *more]
        return self.run(lambda: app(words, standalone_mode=False))

    def evaluate(self, raw: Path, *more: str) -> Outcome:
        """`python -m pipelines.evaluate --raw`."""
        words = ["--raw", str(raw), "--weights", str(self.weights), *more]
        return self.run(lambda: import_module("pipelines.evaluate").main(words))

    def plain_figures(self) -> dict[str, Any]:
        """Figures of the plain set, computed once for all tests with these weights."""
        if self.weights not in PLAIN:
            PLAIN[self.weights] = self.evaluate(plain_set(self.folder / "plain")).figures
        return PLAIN[self.weights]

    def shard(self, raw: Path, descriptor: str = "coco17", max_skipped: float = 0.01) -> Outcome:
        """`python -m pipelines.raw` and `pipelines.shard`, as the workflow runs them."""
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        data = {"descriptor": descriptor, "raw": str(raw), "train": True, "evaluate": True}
        params["datasets"] = {"mine": data}
        params["shard"] |= {"workers": 1, "max_skipped": max_skipped, "tune_share": 0.001}
        for made in ("data", "runs"):
            shutil.rmtree(self.folder / made, ignore_errors=True)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))

        def both() -> None:
            import_module("pipelines.raw").main(["mine"])
            import_module("pipelines.shard").main(["mine"])

        return self.run(both)


def random_weights(folder: Path) -> Path:
    params = load_params(ROOT / "params.yaml")
    save_tensors(folder / "w.pt", build_model(params.model, 17, params.input_size).state_dict())
    return folder / "w.pt"


def plain_set(
    root: Path, change: Change | None = None, images: int = 3, size: tuple[int, int] = (160, 120)
) -> Path:
    """A COCO set of a person in each of three images, train and val alike, after `change` to its content."""
    content: dict[str, Any] = {
        "images": [
            {"id": k, "file_name": f"{k}.jpg", "width": size[0], "height": size[1]}
            for k in range(1, images + 1)
        ],
        "annotations": [
            {
                "id": k, "image_id": k, "category_id": 1, "iscrowd": 0, "area": 4000.0,
                "bbox": [40, 12, 80, 95], "num_keypoints": 17, "keypoints": [v for p in POINTS for v in p],
            }
            for k in range(1, images + 1)
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": [*NAMES], "skeleton": []}],
    }  # fmt: skip
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir(parents=True)
        for k in range(1, images + 1):
            noise = np.random.default_rng(k).integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
            picture = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(root / f"{split}2017/{k}.jpg"), picture)
    edited = copy.deepcopy(content)
    if change is not None:
        change(edited)
    write_annotations(root, edited)
    return root


def write_annotations(root: Path, content: dict[str, Any]) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    for split in ("train", "val"):
        (root / f"annotations/person_keypoints_{split}2017.json").write_text(json.dumps(content))


def each_annotation(**values: Any) -> Change:
    """A change that gives every annotation these fields."""

    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation.update(copy.deepcopy(values))

    return change


def persons(root: Path, dataset: Dataset = COCO) -> list[Any]:
    return [person for raw in read_images(dataset, root, "train") for person in raw.persons]


def doubts(root: Path, dataset: Dataset = COCO) -> str:
    return "\n".join(check_split(dataset, root, "train", workers=1).doubts)


def problems(root: Path, dataset: Dataset = COCO) -> str:
    return "\n".join(check_split(dataset, root, "train", workers=1).problems)


def refused(root: Path, dataset: Dataset = COCO) -> str:
    """The one line that reading, the check and sharding all end with."""
    said = set()
    for read in (
        lambda: persons(root, dataset),
        lambda: problems(root, dataset),
        lambda: index_raw(dataset, root),
    ):
        with pytest.raises(UserError) as error:
            read()
        said.add(str(error.value).replace("val2017", "train2017"))
    (line,) = said
    assert "\n" not in line
    return line
