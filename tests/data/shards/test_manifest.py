"""Manifests and indices that are damaged, or that belong to something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rtmpose.config import AugmentConfig
from rtmpose.data.raw.annotations import RawImage
from rtmpose.data.shards.manifest import MANIFEST, read_eval, read_manifest
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError

COCO = load_dataset("coco17")
NONE = AugmentConfig(half_body=0.0, shift=0.0, scale=0.0, rotate=0.0, flip=0.0)


@pytest.fixture
def train(images: list[RawImage], tmp_path: Path) -> Path:
    write_train_shards(
        images, tmp_path / "train", dataset=COCO, input_size=(96, 128), workers=1, shard_bytes=20_000
    )
    return tmp_path / "train"


def shown(folder: Path, on_corrupt: Any = "error") -> tuple[list[str], list[str]]:
    """All keys of an epoch, and what was damaged."""
    stream = TrainStream(
        [MixEntry(folder, 1)], COCO.skeleton, (96, 128), batch_size=4, seed=0, on_corrupt=on_corrupt
    )
    batches = list(stream.epoch(0, NONE))
    return [key for batch in batches for key in batch.keys], [text for b in batches for text in b.damaged]


Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "zeroed": lambda rows: bytes(len(rows)),
    "one bit flipped": lambda rows: bytes([rows[0] ^ 4]) + rows[1:],
    "one bit of a length flipped": lambda rows: rows[:8] + bytes([rows[8] ^ 4]) + rows[9:],
    "cut": lambda rows: rows[:-5],
    "empty": lambda rows: b"",
    "two rows swapped": lambda rows: rows[36:72] + rows[:36] + rows[72:],
    "longer": lambda rows: rows + rows,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_made_again(train: Path, damage: str) -> None:
    whole = shown(train)
    index = sorted(train.glob("*.idx"))[0]
    rows = index.read_bytes()
    index.write_bytes(DAMAGES[damage](rows))
    assert shown(train) == whole
    assert index.read_bytes() == rows


def test_the_index_of_another_tar_is_made_again(train: Path) -> None:
    first, second = sorted(train.glob("*.idx"))[:2]
    whole, rows = shown(train), first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert shown(train) == whole and first.read_bytes() == rows


def test_index_and_tar_damaged_together_are_one_line(train: Path) -> None:
    index = sorted(train.glob("*.idx"))[0]
    index.write_bytes(bytes(index.stat().st_size))
    tar = index.with_suffix(".tar")
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    with pytest.raises(UserError, match=r"\.tar: not the shard that was cut; cut or fetch it again"):
        shown(train, "skip")


def test_an_index_damaged_while_training_is_skipped_where_that_is_asked_for(train: Path) -> None:
    stream = TrainStream(
        [MixEntry(train, 1)], COCO.skeleton, (96, 128), batch_size=4, seed=0, on_corrupt="skip"
    )
    for index in train.glob("*.idx"):
        index.write_bytes(bytes(index.stat().st_size))
    batches = list(stream.epoch(0, NONE))
    assert all(len(batch.damaged) == 4 for batch in batches)
    assert all("sample damaged" in text for batch in batches for text in batch.damaged)


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest.pop(key)


def null(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest.update({key: None})


NEEDED = ("format", "kind", "shards", "skeleton", "cut_for")
CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"without {key}": without(key) for key in (*NEEDED, "url")},
    **{f"{key} is null": null(key) for key in NEEDED},
    "url is a number": lambda m: m.update(url=3),
    "shards is an object": lambda m: m.update(shards={"a": 1}),
    "a shard without bytes": lambda m: m["shards"][0].pop("bytes"),
    "samples is text": lambda m: m["shards"][0].update(samples="4"),
    "samples is negative": lambda m: m["shards"][0].update(samples=-4),
    "samples is huge": lambda m: m["shards"][0].update(samples=10**30),
    "samples is NaN": lambda m: m["shards"][0].update(samples=float("nan")),
    "a name that leads out": lambda m: m["shards"][0].update(name="../../etc/passwd.tar"),
    "an absolute name": lambda m: m["shards"][0].update(name="/etc/passwd.tar"),
    "a name with a NUL": lambda m: m["shards"][0].update(name="a\0.tar"),
    "a hash that is a number": lambda m: m["shards"][0].update(idx_sha256=7),
    "scale is infinite": lambda m: m["cut_for"].update(scale=float("inf")),
    "input_size of three": lambda m: m["cut_for"].update(input_size=[96, 128, 3]),
    "a skeleton without names": lambda m: m["skeleton"].pop("names"),
    "limbs are text": lambda m: m["skeleton"].update(limbs="ab"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_that_says_something_else_is_one_line(train: Path, change: str) -> None:
    path = train / MANIFEST
    manifest = json.loads(path.read_text())
    CHANGES[change](manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"manifest\.json") as caught:
        shown(train)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"3", b'"a"', b"{", b"[" * 100_000, b"\xff\xfe\x00"]
)
def test_a_file_that_is_no_manifest_is_one_line(train: Path, content: bytes) -> None:
    (train / MANIFEST).write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json") as caught:
        read_manifest(train, "train")
    assert "\n" not in str(caught.value)


def test_shards_of_an_older_format_are_to_be_cut_again(train: Path) -> None:
    manifest = json.loads((train / MANIFEST).read_text())
    (train / MANIFEST).write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(
        UserError, match=r"format 2, this version reads 3; cut the shards again \(stage shard\)"
    ):
        read_manifest(train, "train")


def test_a_damaged_index_of_evaluation_shards(images: list[RawImage], tmp_path: Path) -> None:
    write_eval_shards(images, tmp_path / "val", dataset=COCO, workers=1)
    whole = [image.image_id for image in read_eval(tmp_path / "val")]
    for index in (tmp_path / "val").glob("*.idx"):
        index.write_bytes(bytes(index.stat().st_size))
    assert [image.image_id for image in read_eval(tmp_path / "val")] == whole
