"""Bytes after a JPEG's end, Windows paths, and paths that leave the raw folder."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.data.raw.annotations import read_images
from rtmpose.data.raw.photograph import is_whole_jpeg
from tests.data.raw.real_files import (
    COCO,
    Desk,
    each_annotation,
    persons,
    plain_set,
    problems,
    write_annotations,
)

FILM = b"\0\0\0\x18ftypmp42" + b"\xff\xda\x00\x08" + bytes(range(256)) * 3


@pytest.mark.parametrize(
    "tail",
    [
        b"", b"\0" * 99, FILM, b"\xff\xd9" + FILM, FILM + b"\xff\xd9", b"\xff\xda", b"\xff\xd9\xff\xda" * 5,
        b"\xff\xd8\xff\xe0\x00\x04ab\xff\xda\x00\x04ab12", b"\xff",
        b"\xff\xda\xff\xd9\xff\xda\xff\xd9\xff\xda",
    ],
)  # fmt: skip
@pytest.mark.parametrize("progressive", [0, 1])
def test_what_follows_the_end_is_no_damage(tail: bytes, progressive: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    flags = [
        cv2.IMWRITE_JPEG_PROGRESSIVE,
        progressive,
        cv2.IMWRITE_JPEG_RST_INTERVAL,
        0 if progressive else 2,
    ]
    whole = cv2.imencode(".jpg", noise, flags)[1].tobytes()
    assert is_whole_jpeg(whole + tail)
    for share in (0.3, 0.6, 0.97):
        assert not is_whole_jpeg(whole[: int(len(whole) * share)])
    thumbnail = b"\xff\xe1" + (len(whole) + 2).to_bytes(2, "big") + whole if len(whole) < 65000 else b""
    embedded = whole[:2] + thumbnail + whole[2:]
    assert is_whole_jpeg(embedded + tail) and not is_whole_jpeg(embedded[:-40])


@pytest.mark.parametrize(
    "name",
    [
        "sub\\{}.jpg",
        ".\\sub\\{}.jpg",
        "sub\\deep/{}.jpg",
        "sub/deep\\{}.jpg",
        "sub\\..\\{}.jpg",
        "sub/../{}.jpg",
    ],
)
def test_windows_paths_are_found(name: str, desk: Desk, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["file_name"] = name.format(image["id"])

    root = plain_set(tmp_path / "a", change)
    for split in ("train2017", "val2017"):
        (root / split / "sub/deep").mkdir(parents=True)
        for k in (1, 2, 3):
            for place in ("sub", "sub/deep"):
                (root / split / place / f"{k}.jpg").write_bytes((root / split / f"{k}.jpg").read_bytes())
    assert problems(root) == "" and "train 3 persons" in desk.shard(root).out
    assert desk.evaluate(root).figures["persons"] == 3


@pytest.mark.parametrize(
    "name",
    [
        "C:\\Users\\me\\{}.jpg",
        "D:/photos/{}.jpg",
        "C:{}.jpg",
        "\\\\server\\share\\{}.jpg",
        "\\data\\{}.jpg",
        "gone\\{}.jpg",
    ],
)
def test_windows_paths_that_are_not_found_are_called_so(name: str, desk: Desk, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", lambda c: c["images"][1].update(file_name=name.format(2)))
    for said in (problems(root), desk.evaluate(root).error):
        assert "image 2: file_name" in said and "is a Windows path" in said and "download" not in said
    assert "missing image 1" in desk.shard(root).error


@pytest.mark.parametrize(
    "name", ["../../secret.jpg", "/etc/hostname", "sub\\..\\..\\..\\secret.jpg", "../../a/../secret.jpg"]
)
def test_paths_that_leave_the_raw_folder_are_not_opened(name: str, desk: Desk, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "secret.jpg"), np.zeros((120, 160, 3), np.uint8))
    root = plain_set(tmp_path / "a", lambda c: c["images"][1].update(file_name=name))
    for said in (problems(root), desk.evaluate(root).error):
        assert "image 2: file_name" in said and "leads out of" in said
    assert "path outside the raw folder 1" in desk.shard(root).error
    assert "path outside the raw folder" not in problems(plain_set(tmp_path / "b"))


def test_files_beside_the_images_folder_are_within_the_raw_folder(tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", lambda c: c["images"][1].update(file_name="../val2017/2.jpg"))
    assert problems(root) == "" and len(persons(root)) == 3


def test_inputs_are_left_as_they_were(tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", each_annotation(area=None, bbox=None))
    path = root / "annotations/person_keypoints_train2017.json"
    before = path.read_bytes()
    content = json.loads(before)
    kept = copy.deepcopy(content)
    list(read_images(COCO, root, "train"))
    write_annotations(tmp_path, content)
    assert path.read_bytes() == before and content == kept
