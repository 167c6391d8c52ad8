"""Raw data, shards and images, damaged or changed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rtmpose.config import AugmentConfig
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import check_unchanged, index_raw, read_images
from rtmpose.data.raw.check import check_split, report
from rtmpose.data.raw.photograph import decode_photograph
from rtmpose.data.shards.manifest import MANIFEST, read_eval
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError, read_json
from tests.faults.kind import Kind, Rng, of_bytes, of_tree
from tests.faults.mutations import damaged, json_bytes

PLAIN = AugmentConfig(flip=0, half_body=0, shift_prob=0, scale=0, rotate_prob=0)


# Raw data


def raw_kinds(folder: Path) -> Iterator[Kind]:
    for layout in ("coco17", "aic", "coco_wholebody"):
        root, dataset = folder / f"raw-{layout}", load_dataset(layout)
        render_dataset(root, layout, images={"train": 2, "val": 1}, size=(96, 80), seed=1, workers=1)
        path = root / dataset.splits["train"].annotations
        tree = json.loads(path.read_text())
        yield Kind(
            f"annotations {layout}", of_tree(path, tree, json_bytes),
            partial(sound, dataset, root), 2.0 if layout == "coco17" else 1.0,
        )  # fmt: skip
    yield mpii_kind(folder)
    root, dataset = folder / "raw-index", load_dataset("coco17")
    render_dataset(root, "coco17", images={"train": 2, "val": 1}, size=(96, 80), seed=1, workers=1)
    path = folder / "coco17.json"
    spoil = of_tree(path, index_raw(dataset, root), json_bytes)
    annotations = root / dataset.splits["train"].annotations

    def indexed(rng: Rng) -> Path:
        spoil(rng)
        return path if read_or_none(path) is None else annotations  # which is taken for changed

    def unchanged() -> bool:
        check_unchanged(dataset, root, read_json(path, "again"), ["train"], "run it again")
        return True

    yield Kind("raw index", indexed, unchanged, 0.5)


def mpii_kind(folder: Path) -> Kind:
    """MPII's layout, which mannequins are not rendered in, with pictures of noise."""
    root, dataset = folder / "raw-mpii", load_dataset("mpii")
    layout = dataset.splits["train"]
    path = root / layout.annotations
    path.parent.mkdir(parents=True)
    (root / layout.images).mkdir(parents=True)
    persons = [
        {
            "image": name, "center": [48.0, 40.0], "scale": 0.3,
            "joints": [[20.0 + 3 * k, 10.0 + 4 * k] for k in range(16)], "joints_vis": [1] * 15 + [0],
        }
        for name in ("005808361.jpg", "frame_a.jpg", "frame_a.jpg")
    ]  # fmt: skip
    for name in {str(person["image"]) for person in persons}:
        noise = np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)
        cv2.imwrite(str(root / layout.images / name), noise)
    return Kind("annotations mpii", of_tree(path, persons, json_bytes), partial(sound, dataset, root))


def read_or_none(path: Path) -> Any:
    try:
        return [read_json(path)]
    except UserError:
        return None


def sound(dataset: Any, root: Path) -> bool:
    """Whether every person that a raw folder gives can be trained on and evaluated."""
    found = list(read_images(dataset, root, "train"))
    check = check_split(dataset, root, "train", workers=1)
    for line in report(check, (96, 128)):
        assert "\n" not in line
    persons = [person for raw in found for person in raw.persons]
    for raw in found:
        inside = os.path.abspath(raw.path).startswith(os.path.abspath(root) + os.sep)
        if not inside and raw.persons:
            return False
        json.dumps(raw.annotations)
    return all(
        np.isfinite(person.keypoints).all()
        and np.isin(person.visible, (0, 1, 2)).all()
        and np.isfinite(person.box).all()
        and min(person.box[2:]) > 0
        and math.isfinite(person.area)
        and person.area >= 0
        for person in persons
    )


# Shards


def restored(whole: dict[Path, bytes], spoil: Callable[[Rng], Path]) -> Callable[[Rng], Path]:
    """`spoil`, with the files of the case before put back first."""

    def spoilt(rng: Rng) -> Path:
        for path, content in whole.items():
            path.write_bytes(content)
        return spoil(rng)

    return spoilt


def one_of(paths: list[Path], whole: dict[Path, bytes]) -> Callable[[Rng], Path]:
    """Damages one file of `paths`, removes it, or puts another one's content into it."""

    def spoil(rng: Rng) -> Path:
        path = paths[rng.integers(len(paths))]
        if rng.random() < 0.1:
            path.write_bytes(whole[paths[rng.integers(len(paths))]])
        elif rng.random() < 0.1:
            path.unlink()
        else:
            path.write_bytes(damaged(whole[path], rng))
        return path

    return restored(whole, spoil)


def shard_kinds(folder: Path) -> Iterator[Kind]:
    root, dataset = folder / "raw-shards", load_dataset("coco17")
    render_dataset(root, "coco17", images={"train": 6, "val": 1}, size=(96, 80), seed=2, workers=1)
    images = list(read_images(dataset, root, "train"))
    train, val = folder / "train", folder / "val"
    write_train_shards(images, train, dataset=dataset, input_size=(96, 128), workers=1, shard_bytes=9_000)
    write_eval_shards(images, val, dataset=dataset, workers=1)
    whole = {path: path.read_bytes() for path in (*train.iterdir(), *val.iterdir()) if path.is_file()}
    expected = {skip: epoch(train, dataset.skeleton, skip) for skip in (False, True)}
    truth = photographs(val)

    def streamed(skip: bool) -> bool:
        """Every sample is the one that was written, or is named as damaged and black."""
        rows, wanted = epoch(train, dataset.skeleton, skip), expected[skip]
        return len(rows) == len(wanted) and all(
            row == right or (skip and row[0] == "" and not any(row[1]))
            for row, right in zip(rows, wanted, strict=True)
        )

    manifest = json.loads(whole[train / MANIFEST])
    for skip in (False, True):
        ending = "skipping" if skip else "strict"
        yield Kind(f"tar {ending}", one_of(sorted(train.glob("*.tar")), whole), partial(streamed, skip))
        yield Kind(f"idx {ending}", one_of(sorted(train.glob("*.idx")), whole), partial(streamed, skip))

    # Whatever a manifest may be changed to say, the stream must go through it or refuse it.
    def within(place: Path, tree: Any) -> Callable[[Rng], Path]:
        spoil = restored(whole, of_tree(place / MANIFEST, tree, json_bytes))

        def spoilt(rng: Rng) -> Path:
            spoil(rng)
            return place  # a shard that is not as the manifest says is named instead of it

        return spoilt

    spoil = within(train, manifest)
    yield Kind("manifest", spoil, lambda: bool(epoch(train, dataset.skeleton, False)) or True)
    yield Kind(
        "tar of evaluation", one_of(sorted(val.glob("*.tar")), whole), lambda: photographs(val) == truth, 0.5
    )
    spoil = within(val, json.loads(whole[val / MANIFEST]))
    yield Kind("manifest of evaluation", spoil, lambda: bool(photographs(val)) or True, 0.5)


def epoch(folder: Path, skeleton: Any, skip: bool) -> list[tuple[str, bytes, bytes]]:
    """Key, pixels and points of every sample of an epoch."""
    stream = TrainStream(
        [MixEntry(folder, 1)],
        skeleton,
        (96, 128),
        batch_size=4,
        seed=0,
        on_corrupt="skip" if skip else "error",
    )
    rows = []
    for batch in stream.epoch(0, PLAIN):
        for i, key in enumerate(batch.keys):
            rows.append((key, batch.images[i].numpy().tobytes(), batch.keypoints[i].numpy().tobytes()))
    return rows


def photographs(folder: Path) -> list[tuple[Any, bytes]]:
    return [(image.image_id, image.image.tobytes()) for image in read_eval(folder)]


# Images


def image_kinds(folder: Path) -> Iterator[Kind]:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".gif", ".tiff"):
        path = folder / f"photo{suffix}"
        content = cv2.imencode(suffix, pixels)[1].tobytes()

        yield Kind(f"image {suffix}", of_bytes(path, content), partial(shows, path), 0.5)


def shows(path: Path) -> bool:
    found = decode_photograph(path.read_bytes(), path, "display")
    return found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
