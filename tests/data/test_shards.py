"""Shards: byte for byte the same, readable by WebDataset, addressable by their index, complete or not there."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds

from rtmpose.config import UserError
from rtmpose.data.annotations import RawImage, read_images
from rtmpose.data.shards import complete_folder, in_tune, write_eval_shards, write_train_shards
from rtmpose.data.stream import read_eval, read_index, read_manifest, read_sample
from rtmpose.descriptors import load_dataset
from rtmpose.geometry import decode
from tests.data.test_annotations import small_coco
from tests.support import realdata

COCO = load_dataset("coco17")


@pytest.fixture
def images(mannequins: Path) -> list[RawImage]:
    return list(read_images(COCO, mannequins / "coco17", "train"))


def cut(images: list[RawImage], folder: Path, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"input_size": (96, 128), "shard_bytes": 50_000, "workers": 1, **options}
    return write_train_shards(images, folder, dataset=COCO, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_photographs_give_the_same_bytes_whoever_cuts_them(images: list[RawImage], tmp_path: Path) -> None:
    cut(images, tmp_path / "a")
    cut(images, tmp_path / "b", workers=2)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert len([name for name in first if name.endswith(".tar")]) > 2
    cut(images, tmp_path / "c", quality=80)
    assert first != contents(tmp_path / "c")


def test_webdataset_reads_what_we_wrote(images: list[RawImage], tmp_path: Path) -> None:
    manifest = cut(images, tmp_path / "train")
    urls = [str(tmp_path / "train" / shard["name"]) for shard in manifest["shards"]]
    found = {}
    for sample in wds.WebDataset(urls, shardshuffle=False):
        fields, image = json.loads(sample["json"]), decode(sample["jpg"])
        assert image is not None
        found[fields["annotation_id"]] = (fields, image)
    persons = {person.annotation_id: (person, raw) for raw in images for person in raw.persons}
    assert set(found) == set(persons) and len(found) == manifest["samples"]
    for number, (fields, image) in found.items():
        person, raw = persons[number]
        assert fields["image_id"] == raw.image_id and fields["visible"] == person.visible.tolist()
        back = (np.array(fields["keypoints"]) + 0.5) / fields["scale"] - 0.5 + fields["origin"]
        np.testing.assert_allclose(back, person.keypoints, atol=0.002)
        x, y, w, h = fields["box"]
        assert x >= -0.5 and y >= -0.5 and x + w <= image.shape[1] and y + h <= image.shape[0]


def test_the_index_addresses_every_sample(images: list[RawImage], tmp_path: Path) -> None:
    manifest = cut(images, tmp_path / "train")
    for shard, index in zip(manifest["shards"], read_index(tmp_path / "train", manifest), strict=True):
        path = tmp_path / "train" / shard["name"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"] and len(index) == shard["samples"]
        with tarfile.open(path) as tar:
            names = [member.name for member in tar]
            assert all((member.mtime, member.uid, member.uname) == (0, 0, "") for member in tar.getmembers())
        assert index[0]["image"] == 512  # plain headers only
        for row, name in zip(index, names[::2], strict=True):
            fields, image = read_sample(path, row)
            key = name.removesuffix(".jpg")
            assert fields["key"] == f"coco17/{key}" and image.ndim == 3
            assert int(row["key"]) == int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def test_the_manifest_says_what_it_was_cut_for(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco", [{}, {"iscrowd": 1}, {"bbox": [8, 4, 0, 40]}])
    manifest = cut(list(read_images(COCO, root, "train")), tmp_path / "train")
    assert json.loads(json.dumps(manifest)) == read_manifest(tmp_path / "train", "train")
    assert manifest["samples"] == 1 and manifest["skeleton"]["name"] == "coco17"
    assert manifest["left_out"] == {
        "crowd": {"count": 1, "ids": [101]}, "empty box": {"count": 1, "ids": [102]},
    }  # fmt: skip
    cut_for = json.loads((tmp_path / "train/manifest.json").read_text())["cut_for"]
    assert cut_for["input_size"] == [96, 128]
    assert (cut_for["shift"], cut_for["scale"], cut_for["rotate"], cut_for["padding"]) == (0.16, 0.4, 80, 1.25)


def test_evaluation_shards_keep_the_files_and_the_annotations(tmp_path: Path) -> None:
    images = list(read_images(COCO, realdata("coco"), "val"))[:6]
    manifest = write_eval_shards(images, tmp_path / "val", dataset=COCO, shard_bytes=300_000, workers=1)
    assert manifest["samples"] == 6 and len(manifest["shards"]) > 1
    for raw, shown in zip(images, read_eval(tmp_path / "val"), strict=True):
        original = decode(raw.path.read_bytes())
        assert original is not None and (shown.image == original).all()
        assert (shown.image_id, shown.width, shown.height) == (raw.image_id, raw.width, raw.height)
        assert shown.annotations == raw.annotations and shown.file_name == raw.path.name
    some = [images[4].image_id, images[1].image_id]
    assert [shown.image_id for shown in read_eval(tmp_path / "val", some)] == some[::-1]


def test_aic_ids_are_keys(tmp_path: Path) -> None:
    aic = load_dataset("aic")
    images = list(read_images(aic, realdata("aic"), "train"))
    assert write_eval_shards(images, tmp_path / "val", dataset=aic, workers=1)["samples"] == 3
    manifest = write_train_shards(images, tmp_path / "train", dataset=aic, input_size=(96, 128), workers=1)
    assert manifest["samples"] == 9
    assert [shown.image_id for shown in read_eval(tmp_path / "val")] == [raw.image_id for raw in images]


def test_nothing_half_written(images: list[RawImage], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(images[0].path.read_bytes()[:5000])
    bad = RawImage(1, broken, None, None, images[0].persons, [])
    with pytest.raises(UserError, match=r"broken\.jpg: the JPEG is cut off"):
        cut([*images, bad], tmp_path / "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jpg"]
    cut(images, tmp_path / "train")
    before = contents(tmp_path / "train")
    with pytest.raises(UserError):
        cut([*images, bad], tmp_path / "train", workers=2)
    assert contents(tmp_path / "train") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jpg", "train"]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        (tmp_path / ".out.1234.tmp").mkdir()  # as a killed process leaves it
        with complete_folder(tmp_path / "out") as folder:
            (folder / text).write_text(text)
            assert not (tmp_path / "out" / text).exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_tuning_share_is_fixed_by_ids() -> None:
    chosen = [image_id for image_id in range(20_000) if in_tune(image_id, 0.06)]
    assert len(chosen) / 20_000 == pytest.approx(0.06, abs=0.006)
    assert set(chosen) <= {image_id for image_id in range(20_000) if in_tune(image_id, 0.1)}
    assert in_tune("abc", 0.6) == in_tune("abc", 0.6) and not any(in_tune(i, 0.0) for i in range(100))


def test_ids_that_are_not_unique(images: list[RawImage], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="image ids are not unique"):
        write_eval_shards([images[0], images[0]], tmp_path / "val", dataset=COCO, workers=1)
