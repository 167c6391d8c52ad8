"""Shards of a few samples of every data set, real ones where there are some; each is cut once."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from rtmpose.config import Params, Reach
from rtmpose.data.radiographs.dataset import draw_dataset
from rtmpose.data.raw.annotations import RawImage, index_raw, read_images
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.data.stream.mix import Mix, MixEntry
from rtmpose.descriptors import Dataset, load_dataset
from tests.recipes.drawn import DRAWN, write_drawn
from tests.support import realdata

WHOLE_BODY = "coco_wholebody/annotations/coco_wholebody_val_v1.0.json"
PHOTOGRAPHS = "coco_wholebody/val2017"
HALPE = "others/halpe/test_halpe.json"
RADIOGRAPHS = "cephalometric38_stack"
# A descriptor, and the annotation file and image folder of its real samples.
REAL = {
    "coco17": (WHOLE_BODY, PHOTOGRAPHS),
    "coco_wholebody": (WHOLE_BODY, PHOTOGRAPHS),
    "coco_wholebody_hand": (WHOLE_BODY, PHOTOGRAPHS),
    "coco_wholebody_face": (WHOLE_BODY, PHOTOGRAPHS),
    "halpe26": (HALPE, PHOTOGRAPHS),
    "halpe_hand": (HALPE, PHOTOGRAPHS),
    "halpe_face": (HALPE, PHOTOGRAPHS),
    "mpii": ("others/mpii/test_mpii.json", "others/mpii"),
    "crowdpose": ("others/crowdpose/test_crowdpose.json", "others/crowdpose"),
    "ap10k": ("others/ap10k/test_ap10k.json", "others/ap10k"),
    "lapa106": ("others/lapa/test_lapa.json", "others/lapa"),
    "lapa106_train": ("others/lapa/test_lapa.json", "others/lapa"),
    "wflw": ("others/wflw/test_wflw.json", "others/wflw"),
    "onehand10k": ("others/onehand10k/test_onehand10k.json", "others/onehand10k"),
    "ochuman": ("others/ochuman/test_ochuman.json", "others/ochuman"),
}
AIC = "aic/ai_challenger_keypoint_train_20170902"
REAL["aic"] = (
    f"{AIC}/keypoint_train_annotations_20170909.json",
    f"{AIC}/keypoint_train_images_20170902",
)


class Shelf:
    """Raw samples and their shards below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw, self.train, self.val = cache(self._raw), cache(self._train), cache(self._val)

    def mix(self, params: Params) -> Mix:
        """What the stage `mix` would write of the recipe: its sets, and one to choose checkpoints on."""
        sets = params.datasets
        train = tuple(
            MixEntry(self.train(data.descriptor, params.input_size, params.shard.reach), data.repeat)
            for data in sets.values()
            if data.train
        )
        val = {key: self.val(data.descriptor) for key, data in sets.items() if data.evaluate}
        return Mix(train, next(iter(val.values())), val)

    def _raw(self, name: str) -> tuple[Dataset, Path]:
        dataset = load_dataset(name)
        if name in DRAWN:
            return dataset, write_drawn(dataset, self.folder / "raw" / name)
        if name == RADIOGRAPHS:
            draw_dataset(self.folder / "raw" / name, images=8, size=(160, 192), seed=23)
            return dataset, self.folder / "raw" / name
        if name == "humanart":
            root = self.folder / "raw/humanart"
            source = realdata("others/humanart")
            shutil.copytree(source, root / "HumanArt/images", ignore=shutil.ignore_patterns("*.json"))
            (root / "HumanArt/annotations").mkdir()
            for layout in dataset.splits.values():
                shutil.copy(source / "test_humanart.json", root / layout.annotations)
            return dataset, root
        annotations, images = REAL[name]
        realdata(annotations)
        for split in ("train", "val"):
            dataset = dataset.with_files(split, annotations, images)
        return dataset, realdata()

    def _train(self, name: str, size: tuple[int, int], reach: Reach) -> Path:
        dataset, root = self.raw(name)
        index = index_raw(dataset, root, ["train"])
        images = list(read_images(dataset, root, "train"))
        out = self.folder / "train" / f"{name}-{size[0]}-{reach.scale}-{reach.rotate}"
        manifest = write_train_shards(
            images, out, dataset=dataset, input_size=size, reach=reach, workers=1, max_skipped=0.99
        )
        assert 0 < manifest["samples"] <= index["splits"]["train"]["persons"]
        return out

    def _val(self, name: str) -> Path:
        dataset, root = self.raw(name)
        out = self.folder / "val" / name
        images = _fewest(read_images(dataset, root, "val"))
        write_eval_shards([images], out, dataset=dataset, split="val", workers=1)
        return out


def _fewest(images: Iterable[RawImage]) -> RawImage:
    """The image with the fewest persons, but some."""
    return min((raw for raw in images if raw.persons), key=lambda raw: len(raw.persons))
