"""Runs of sharding that are killed and go on, and damage to what they left."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from rtmpose.data.raw.annotations import RawImage
from rtmpose.data.shards.complete_folders import resumable_folder
from rtmpose.data.shards.write import write_train_shards
from rtmpose.descriptors import load_dataset

COCO = load_dataset("coco17")


class Killed(BaseException):
    """Stands for a kill in the middle of a run."""


def cut(images: list[RawImage], out: Path, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "dataset": COCO,
        "input_size": (96, 128),
        "shard_bytes": 20_000,
        "workers": 1,
        **options,
    }
    return write_train_shards(images, out, **settings)


def resumed(images: list[RawImage], root: Path, stop: int | None = None, **options: Any) -> dict[str, Any]:
    """Cut into `root`/out by way of `root`/halfway, killed after `stop` shards; what was there goes on."""
    ended = 0

    def progress(done: int, total: int) -> None:
        nonlocal ended
        ended += 1
        if ended == stop:
            raise Killed

    with resumable_folder(root / "out", root / "halfway", ["train"]) as (folder, receipts):
        return cut(images, folder / "train", resume=receipts / "train", progress=progress, **options)


def kept(output: str) -> int:
    """How many shards the run says that it kept."""
    return sum(
        int(number)
        for number in re.findall(r"(\d+) of \d+ shards of an earlier run are whole and kept", output)
    )


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
