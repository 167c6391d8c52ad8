"""Shards: byte for byte the same, readable by WebDataset, addressable by their index, complete or
not there.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import webdataset as wds

from rtmpose.cluster.session import map_on_cluster
from rtmpose.config import Reach
from rtmpose.data.raw.annotations import RawImage, read_images
from rtmpose.data.raw.photograph import decode
from rtmpose.data.shards.complete_folders import complete_folder
from rtmpose.data.shards.cutting import Sample, write_tar
from rtmpose.data.shards.manifest import FORMAT, index_tar, read_eval, read_manifest
from rtmpose.data.shards.sample import INDEX, read_sample
from rtmpose.data.shards.write import in_tune, write_eval_shards, write_train_shards
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError
from tests.data.raw.samples import small_coco
from tests.support import realdata

COCO = load_dataset("coco17")


def cut(images: list[RawImage], folder: Path, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"input_size": (96, 128), "shard_bytes": 50_000, "workers": 1, **options}
    return write_train_shards(images, folder, dataset=COCO, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def half(raw: RawImage, folder: Path) -> RawImage:
    """The image with only the first half of its file."""
    path = folder / "half" / raw.path.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(raw.path.read_bytes()[: raw.path.stat().st_size // 2])
    return replace(raw, path=path)


def test_the_same_photographs_give_the_same_bytes(images: list[RawImage], tmp_path: Path) -> None:
    cut(images, tmp_path / "a")
    cut(images, tmp_path / "b")
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
    for shard in cut(images, tmp_path)["shards"]:
        path = tmp_path / shard["name"]
        written = path.with_suffix(".idx").read_bytes()
        index = np.frombuffer(written, INDEX)
        assert (
            hashlib.sha256(path.read_bytes()).hexdigest() == shard["sha256"]
            and len(index) == shard["samples"]
        )
        assert (
            hashlib.sha256(written).hexdigest() == shard["idx_sha256"]
            and path.stat().st_size == shard["bytes"]
        )
        assert index_tar(path).tobytes() == written and index["crc"].all()
        with tarfile.open(path) as tar:
            names = [member.name for member in tar]
        for row, name in zip(index, names[::2], strict=True):
            fields, content = read_sample(path, row)
            key = name.removesuffix(".jpg")
            assert fields["key"] == f"coco17/{key}" and decode(content) is not None
            assert int(row["key"]) == int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


@pytest.mark.parametrize("suffix", ["jpg", "png"])  # before and behind "json", as members are sorted
@pytest.mark.parametrize("lengths", [[], [(0, 0)], [(512, 1)], [(7, 1024), (513, 511), (100_000, 3)]])
def test_a_tar_and_its_index(suffix: str, lengths: list[tuple[int, int]], tmp_path: Path) -> None:
    """Plain files of nobody at no time, with content where the index says, found by tarfile as well."""
    samples = [
        Sample(f"{i}_key", suffix, b"i" * image, b"x" * text) for i, (image, text) in enumerate(lengths)
    ]
    contents = {f"{s.key}.{kind}": c for s in samples for kind, c in ((suffix, s.image), ("json", s.text))}
    path, again = tmp_path / "s.tar", tmp_path / "again.tar"
    rows = write_tar(path, samples)
    assert (rows == write_tar(again, samples)).all() and path.read_bytes() == again.read_bytes()
    assert len(rows) == len(lengths)
    with tarfile.open(path) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == 0o644 and member.isreg()
            content = tar.extractfile(member)
            assert content is not None and content.read() == contents.pop(member.name)
    assert not contents and index_tar(path).tobytes() == rows.tobytes()


def test_the_manifest_says_what_it_was_cut_for(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco", [{}, {"iscrowd": 1}, {"bbox": [8, 4, 0, 40]}])
    manifest = cut(list(read_images(COCO, root, "train")), tmp_path / "train", max_skipped=0.5)
    assert json.loads(json.dumps(manifest)) == read_manifest(tmp_path / "train", "train")
    assert manifest["samples"] == 1 and manifest["images"] == 1 and manifest["skeleton"]["name"] == "coco17"
    assert (manifest["format"], manifest["url"]) == (FORMAT, None)
    assert manifest["left_out"] == {"crowd": 1} and manifest["skipped"] == {"empty box": 1}
    assert set(manifest["shards"][0]) == {"name", "samples", "bytes", "sha256", "idx_sha256"}
    cut_for = json.loads((tmp_path / "train/manifest.json").read_text())["cut_for"]
    assert cut_for["input_size"] == [96, 128]
    assert (cut_for["shift"], cut_for["scale"], cut_for["rotate"], cut_for["padding"]) == (
        0.16,
        0.4,
        80,
        1.25,
    )
    farther = Reach(scale=0.5, rotate=90)
    wide = cut(list(read_images(COCO, root, "train")), tmp_path / "wide", max_skipped=0.5, reach=farther)
    assert wide["cut_for"] == {**cut_for, "input_size": (96, 128), "scale": 0.5, "rotate": 90}
    assert (tmp_path / "train/skipped.csv").read_text().splitlines() == [
        "reason,image_id,annotation_id,file,detail", "empty box,7,102,train2017/7.jpg,",
    ]  # fmt: skip


def test_a_damaged_photograph_costs_its_persons(images: list[RawImage], tmp_path: Path) -> None:
    persons = sum(len(raw.persons) for raw in images)
    missing = replace(images[2], path=tmp_path / "gone.jpg")
    spoilt = [images[0], half(images[1], tmp_path), missing, *images[3:]]
    manifest = cut(spoilt, tmp_path / "train", max_skipped=0.9)
    lost = {"corrupt image": len(images[1].persons), "missing image": len(images[2].persons)}
    assert manifest["skipped"] == lost and manifest["samples"] == persons - sum(lost.values())
    rows = list(csv.DictReader((tmp_path / "train/skipped.csv").open()))
    assert [row["reason"] for row in rows] == [reason for reason in sorted(lost) for _ in range(lost[reason])]
    assert {row["image_id"] for row in rows} == {str(images[1].image_id), str(images[2].image_id)}
    assert rows[0]["file"] == f"half/{images[1].path.name}" and rows[0]["detail"].startswith(
        "the JPEG is cut off"
    )
    assert str(tmp_path) not in (tmp_path / "train/skipped.csv").read_text()
    assert (
        sum(len(np.fromfile(path, INDEX)) for path in (tmp_path / "train").glob("*.idx"))
        == manifest["samples"]
    )


def test_more_than_the_allowed_share(images: list[RawImage], tmp_path: Path) -> None:
    cut(images, tmp_path / "train")
    before = contents(tmp_path / "train")
    spoilt = [half(images[0], tmp_path), *images[1:]]
    lost, persons = len(images[0].persons), sum(len(raw.persons) for raw in images)
    with pytest.raises(UserError) as error:
        cut(spoilt, tmp_path / "train")
    for part in (
        f"coco17/train: {lost} of {persons} persons are skipped (corrupt image {lost})", "shard.max_skipped",
        "(1.0%)", f"half/{images[0].path.name} (corrupt image, the JPEG is cut off",
        str(tmp_path / "train.skipped.csv"),
    ):  # fmt: skip
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert len((tmp_path / "train.skipped.csv").read_text().splitlines()) == 1 + lost
    assert contents(tmp_path / "train") == before
    cut(images, tmp_path / "train")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half", "train"]


def test_defects_of_the_annotations_count_before_anything_is_cut(tmp_path: Path) -> None:
    root = small_coco(tmp_path / "coco", [{}, {"bbox": [8, 4, 0, 40]}])
    images = list(read_images(COCO, root, "train"))
    images[0].path.unlink()
    with pytest.raises(
        UserError,
        match=r"1 of 2 persons are skipped \(empty box 1\).*train2017/7\.jpg \(empty box\); all are",
    ):
        cut(images, tmp_path / "train")
    assert not (tmp_path / "train").exists()


def test_evaluation_shards_keep_the_files_and_the_annotations(tmp_path: Path) -> None:
    images = list(read_images(COCO, realdata("coco"), "val"))[:6]
    manifest = write_eval_shards(images, tmp_path / "val", dataset=COCO, shard_bytes=300_000, workers=1)
    assert manifest["samples"] == 6 and len(manifest["shards"]) > 1 and manifest["skipped"] == {}
    for raw, shown in zip(images, read_eval(tmp_path / "val"), strict=True):
        original = decode(raw.path.read_bytes())
        assert original is not None and (shown.image == original).all()
        assert (shown.image_id, shown.width, shown.height) == (raw.image_id, raw.width, raw.height)
        assert shown.annotations == raw.annotations and shown.file_name == raw.path.name
    some = [images[4].image_id, images[1].image_id]
    assert [shown.image_id for shown in read_eval(tmp_path / "val", some)] == some[::-1]


def missing(raw: RawImage, folder: Path) -> RawImage:
    return replace(raw, path=folder / "gone.jpg")


def ambiguous(raw: RawImage, folder: Path) -> RawImage:
    return replace(raw, skipped=[("duplicate image id", 1)])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (half, "the JPEG is cut off"),
        (missing, "named in the annotations but missing"),
        (ambiguous, "another file's too"),
    ],
)
def test_evaluation_needs_every_image(
    images: list[RawImage], tmp_path: Path, spoil: Callable[[RawImage, Path], RawImage], expected: str
) -> None:
    spoilt = [*images[:3], spoil(images[3], tmp_path), *images[4:]]
    with pytest.raises(UserError, match=rf"{spoilt[3].path.name}: [^\n]*{expected}[^\n]*$"):
        write_eval_shards(spoilt, tmp_path / "val", dataset=COCO, workers=1)
    assert not (tmp_path / "val").exists()


def test_evaluation_knows_no_image_that_is_not_listed(images: list[RawImage], tmp_path: Path) -> None:
    unlisted = RawImage(
        99, tmp_path / "(image 99 is not listed)", None, None, [], [], skipped=[("image not listed", 1)]
    )
    assert write_eval_shards([*images, unlisted], tmp_path / "val", dataset=COCO, workers=1)[
        "samples"
    ] == len(images)


def test_aic_ids_are_keys(tmp_path: Path) -> None:
    aic = load_dataset("aic")
    images = list(read_images(aic, realdata("aic"), "train"))
    assert write_eval_shards(images, tmp_path / "val", dataset=aic, workers=1)["samples"] == 3
    manifest = write_train_shards(images, tmp_path / "train", dataset=aic, input_size=(96, 128), workers=1)
    assert manifest["samples"] == 9
    assert [shown.image_id for shown in read_eval(tmp_path / "val")] == [raw.image_id for raw in images]


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


def test_ids_that_cannot_be_keys(images: list[RawImage], tmp_path: Path) -> None:
    alike = [replace(images[0], image_id="人物"), replace(images[1], image_id="照片")]
    assert write_eval_shards(alike, tmp_path / "val", dataset=COCO, workers=1)["samples"] == 2
    assert [shown.image_id for shown in read_eval(tmp_path / "val")] == ["人物", "照片"]
    same = [replace(images[0], image_id="a/b"), replace(images[1], image_id="a/b")]
    with pytest.raises(UserError, match="image ids are not unique: two images would be a_b-"):
        write_eval_shards(same, tmp_path / "val", dataset=COCO, workers=1)
    with pytest.raises(UserError, match="bytes are too many for a name in a tar"):
        write_eval_shards([replace(images[0], image_id="x" * 99)], tmp_path / "val", dataset=COCO, workers=1)


def test_what_only_the_photograph_tells_is_a_defect_too(images: list[RawImage], tmp_path: Path) -> None:
    """Formats without the image's size: a box or points outside it are noticed when it is opened."""
    whole = images[0]
    assert len(whole.persons) >= 1 and whole.width == 160
    person = whole.persons[0]
    outside = replace(person, annotation_id=901, box=(500.0, 10.0, 40.0, 40.0))
    far = replace(person, annotation_id=902, keypoints=person.keypoints + 1000)
    (tmp_path / "empty.jpg").write_bytes(b"")
    unknown = replace(whole, width=None, height=None, persons=[person, outside, far])
    empty = RawImage("empty", tmp_path / "empty.jpg", None, None, [replace(person, annotation_id=903)], [])
    manifest = cut([unknown, empty], tmp_path / "train", max_skipped=0.9)
    assert manifest["samples"] == 1
    assert manifest["skipped"] == {"empty box": 1, "points outside the image": 1, "corrupt image": 1}


def test_a_dead_worker_leaves_nothing_in_the_folder(images: list[RawImage], tmp_path: Path) -> None:
    """A worker killed over a shard leaves its temporary behind; the shards that are published hold none."""
    out, receipts = tmp_path / "train", tmp_path / "receipts"

    def dying(work: Any, tasks: Any, workers: Any) -> Any:
        (out / ".train-000000.tar.1234abcd.tmp").write_bytes(b"half")
        yield from map_on_cluster(work, tasks, workers)

    with mock.patch("rtmpose.data.shards.write.map_on_cluster", dying):
        cut(images, out, resume=receipts)
    assert not list(out.glob(".*"))
