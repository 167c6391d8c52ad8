"""EXIF turns in either frame, for the check, shards and evaluation alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.data.raw.annotations import read_images
from rtmpose.data.raw.check import check_split
from rtmpose.data.raw.exif import orientation, upright
from rtmpose.data.raw.photograph import decode, read_photograph
from rtmpose.data.shards.manifest import read_eval
from rtmpose.descriptors import load_dataset
from tests.data.raw.real_files import (
    Desk,
    doubts,
    plain_set,
    problems,
)
from tests.support import ROOT


def with_turn(content: bytes, turn: int, order: str = "little", before: bytes = b"") -> bytes:
    """A JPEG with EXIF's orientation noted."""
    mark = b"II" if order == "little" else b"MM"
    number = lambda value, size: value.to_bytes(size, order)  # noqa: E731
    entry = number(0x0112, 2) + number(3, 2) + number(1, 4) + number(turn, 2) + b"\0\0"
    block = mark + number(42, 2) + number(8, 4) + number(1, 2) + entry + number(0, 4)
    segment = b"Exif\0\0" + block
    return content[:2] + before + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]


def picture(size: tuple[int, int] = (48, 32)) -> np.ndarray:
    ramp = np.add.outer(np.arange(size[1]) * 3, np.arange(size[0]) * 2).astype(np.uint8)
    return np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turn_is_done_as_viewers_do_it(turn: int, order: str) -> None:
    encoded = cv2.imencode(".jpg", picture())[1].tobytes()
    jfif = b"\xff\xe0\x00\x04\x00\x00"
    content = with_turn(encoded, turn, order, before=jfif if order == "big" else b"")
    assert orientation(content) == turn
    stored = decode(content)
    assert stored is not None and stored.shape == (32, 48, 3)
    viewer = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(upright(stored, turn), viewer)


def test_a_turn_that_is_none_or_damaged_is_upright() -> None:
    plain = cv2.imencode(".jpg", picture())[1].tobytes()
    whole = with_turn(plain, 6)
    assert orientation(plain) == orientation(b"") == orientation(b"\xff\xd8") == orientation(b"II*\0") == 1
    assert orientation(with_turn(plain, 0)) == orientation(with_turn(plain, 9)) == 1
    assert all(orientation(whole[:cut]) in (1, 6) for cut in range(60))


def turned_set(root: Path, turn: int, size: tuple[int, int], listed: tuple[int, int] | None) -> Path:
    """Photographs of `size` px as stored with a turn; the annotation file lists the size `listed`."""

    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image |= {"width": listed[0], "height": listed[1]} if listed else {}
            if listed is None:
                del image["width"], image["height"]

    plain_set(root, change, size=size)
    for path in root.glob("*2017/*.jpg"):
        path.write_bytes(with_turn(path.read_bytes(), turn))
    return root


def display(folder: Path) -> str:
    text = (ROOT / "datasets/coco17.yaml").read_text().replace("reader: coco", "reader: coco\nexif: display")
    (folder / "display.yaml").write_text(text)
    return str(folder / "display.yaml")


@pytest.mark.parametrize("turn", range(2, 9))
def test_either_frame_by_the_descriptor(turn: int, desk: Desk, tmp_path: Path) -> None:
    stored, shown = (160, 120), (120, 160) if turn >= 5 else (160, 120)
    root = turned_set(tmp_path / "a", turn, stored, stored)
    assert problems(
        root
    ) == "" and f"3 photographs have an EXIF turn which is ignored: orientation {turn}" in doubts(root)
    browser, descriptor = turned_set(tmp_path / "b", turn, stored, shown), display(tmp_path)
    mine = load_dataset(descriptor)
    assert check_split(mine, browser, "train", workers=1).problems == [] and doubts(browser, mine) == ""
    cut = desk.shard(browser, descriptor)
    assert "train 3 persons" in cut.out, cut.said
    (raw, *_) = read_images(mine, browser, "val")
    (shard, *_) = read_eval(desk.folder / "data/shards/mine/val")
    np.testing.assert_array_equal(shard.image, read_photograph(raw)[1])
    assert (shard.width, shard.height) == shown == (shard.image.shape[1], shard.image.shape[0])
    assert desk.evaluate(browser, "--descriptor", descriptor).figures["persons"] == 3


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_sizes_of_the_other_frame_name_turn_and_key(turn: int, desk: Desk, tmp_path: Path) -> None:
    browser = turned_set(tmp_path / "a", turn, (160, 120), (120, 160))
    for said in (problems(browser), desk.shard(browser).error, desk.evaluate(browser).error):
        assert f"orientation {turn}" in said and "set `exif: display`" in said and "wrong image" not in said
    scripted = turned_set(tmp_path / "b", turn, (160, 120), (160, 120))
    assert "set `exif: stored`" in problems(scripted, load_dataset(display(tmp_path)))


def test_other_sizes_are_another_photograph(tmp_path: Path) -> None:
    root = turned_set(tmp_path / "a", 6, (160, 120), (121, 160))
    assert "wrong image" in problems(root) and "exif" not in problems(root)
    plain = plain_set(
        tmp_path / "b", lambda c: [image.update(width=120, height=160) for image in c["images"]]
    )
    assert "wrong image" in problems(plain)


def test_squares_and_unlisted_sizes_are_counted(tmp_path: Path) -> None:
    square = turned_set(tmp_path / "a", 6, (160, 160), (160, 160))
    unlisted = turned_set(tmp_path / "b", 8, (160, 120), None)
    for root in (square, unlisted):
        assert "3 photographs have an EXIF turn which is ignored" in doubts(root) and problems(root) == ""
