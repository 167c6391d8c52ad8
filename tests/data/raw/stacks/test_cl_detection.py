"""The CL-Detection challenge's own form: what is read of it, and what is no file of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtmpose.data.raw.annotations import RawImage, in_share, index_raw, read_images
from rtmpose.data.raw.check import check_split
from rtmpose.data.raw.photograph import decode, read_photograph
from rtmpose.data.raw.stacks.metaimage import write_stack
from rtmpose.data.shards.manifest import read_eval
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError
from rtmpose.skeleton import Skeleton

SET = load_dataset("cephalometric38_stack")
STACK, POINTS, SIZE = "train_stack.mha", "train-gt.json", (60, 50)
SIZES = ((60, 50), (41, 50), (60, 33), (50, 47))


def entries(images: int = len(SIZES)) -> list[dict[str, Any]]:
    """All points of each image: point k of image n at (k + 0.25, n + 2), 0.1 * n mm per px."""
    return [
        {"name": str(k), "point": [k + 0.25, n + 2.0, n], "scale": f"{n / 10:g}" if n == 2 else n / 10}
        for n in range(1, images + 1)
        for k in range(1, 39)
    ]


def challenge(root: Path, points: list[dict[str, Any]] | None = None) -> Path:
    """A set of grey images of SIZES, padded, in the folder `root`."""
    pages = []
    for n, (width, height) in enumerate(SIZES, 1):
        page = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        page[:height, :width] = 40 * n + np.arange(width)[None, :, None] % 7
        pages.append(page)
    write_stack(root / STACK, pages, len(pages))
    (root / POINTS).write_text(json.dumps({"points": entries() if points is None else points}))
    return root


def everything(root: Path) -> dict[Any, RawImage]:
    return {raw.image_id: raw for split in SET.splits for raw in read_images(SET, root, split)}


def test_each_image_is_one_pose_in_the_whole_image(tmp_path: Path) -> None:
    found = everything(challenge(tmp_path))
    assert sorted(found) == [1, 2, 3, 4]
    for n, (width, height) in enumerate(SIZES, 1):
        raw, (person,) = found[n], found[n].persons
        assert (raw.width, raw.height, raw.page, raw.file_name) == (
            width, height, n - 1, f"train_stack_{n}.png"
        )  # fmt: skip
        assert person.box == (0, 0, width, height) and (person.visible == 2).all()
        assert person.keypoints[:, 0].tolist() == [k + 0.25 for k in range(1, 39)]
        assert (person.keypoints[:, 1] == n + 2).all()
        (annotation,) = raw.annotations
        assert annotation["spacing"] == pytest.approx(n / 10) and annotation["num_keypoints"] == 38
        content, pixels = read_photograph(raw)
        assert pixels.shape == (height, width, 3) and pixels[0, 0].tolist() == [40 * n] * 3
        again = decode(content)
        assert again is not None and np.array_equal(again, pixels)


def test_a_dark_border_takes_no_landmark_with_it(tmp_path: Path) -> None:
    points = entries()
    points[38]["point"] = [55.5, 49.0, 2]  # in what looks like padding: image 2 is 41 px wide
    raw = everything(challenge(tmp_path, points))[2]
    assert (raw.width, raw.height) == (57, 50) and len(raw.persons) == 1


def test_an_image_without_points_has_nobody(tmp_path: Path) -> None:
    found = everything(challenge(tmp_path, [each for each in entries() if each["point"][2] != 3]))
    assert not found[3].annotations and [len(found[n].persons) for n in (1, 2, 4)] == [1, 1, 1]


def test_a_black_image_is_skipped_and_named(tmp_path: Path) -> None:
    root = challenge(tmp_path)
    write_stack(root / STACK, [np.zeros((50, 60, 3), np.uint8)] * 4, 4)
    found = everything(root)
    assert {n: raw.skipped for n, raw in found.items()} == {n: [("black image", n)] for n in found}


def test_shares_divide_the_images(tmp_path: Path) -> None:
    root = challenge(tmp_path)
    splits = {split: [int(raw.image_id) for raw in read_images(SET, root, split)] for split in SET.splits}
    assert sorted(number for held in splits.values() for number in held) == [1, 2, 3, 4]
    many = [sum(in_share(n, layout.share) for n in range(400)) for layout in SET.splits.values()]
    assert sum(many) == 400 and many == pytest.approx([300, 50, 50], abs=25)
    assert in_share("any", None)


def test_colour_stays_colour(tmp_path: Path) -> None:
    root = challenge(tmp_path)
    page = np.zeros((50, 60, 3), np.uint8)
    page[..., 0], page[..., 2] = 200, 10
    write_stack(root / STACK, [page] * 4, 4)
    raw = everything(root)[1]
    content, pixels = read_photograph(raw)
    again = decode(content)
    assert again is not None and np.array_equal(again, pixels) and pixels[0, 0].tolist() == [200, 0, 10]
    assert read_photograph(raw, bgr=True)[1][0, 0].tolist() == [10, 0, 200]


def test_spacing_reaches_index_and_shards(tmp_path: Path) -> None:
    root = challenge(tmp_path / "raw")
    index = index_raw(SET, root, ("train", "val"))
    stack = root / STACK
    for held in index["splits"].values():
        assert held["image_files"]["count"] == 1 and held["image_files"]["bytes"] == stack.stat().st_size
    assert check_split(SET, root, "train", workers=1).problems == []
    raws = list(everything(root).values())
    manifest = write_eval_shards(raws, tmp_path / "val", dataset=SET, workers=1)
    assert manifest["samples"] == 4 and len(manifest["shards"]) == 1
    for image in read_eval(tmp_path / "val"):
        n = int(image.image_id)
        assert (image.width, image.height) == SIZES[n - 1] == image.image.shape[1::-1]
        assert image.annotations[0]["spacing"] == pytest.approx(n / 10)
        assert image.file_name == f"train_stack_{n}.png"
    trained = write_train_shards(raws, tmp_path / "train", dataset=SET, input_size=(64, 64), workers=1)
    assert trained["samples"] == 4
    assert not Skeleton.from_dict(trained["skeleton"]).mirrors


def without(key: str) -> Callable[[list[dict[str, Any]]], None]:
    return lambda points: points[40].pop(key)


def with_value(key: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda points: points[40].update({key: value})  # point 3 of image 2


BAD_POINTS: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], str]] = {
    "missing": (lambda points: points.pop(40), r"image 2: lacks the points 3; add them"),
    "many missing": (lambda points: points.__delitem__(slice(40, 50)), r"points 3, 4, 5, 6 and 6 more"),
    "twice": (lambda points: points.append(points[40]), r"entry 152: point 3 of image 2 is there twice"),
    "unknown point": (with_value("name", "39"), r"entry 40: name 39 is none of the points 1 to 38"),
    "no name": (without("name"), r"entry 40: name None is not a whole number"),
    "no spacing": (without("scale"), r"entry 40: scale None: mm per px must be above 0"),
    "spacing 0": (with_value("scale", 0), r"entry 40: scale 0: mm per px"),
    "two spacings": (with_value("scale", 0.3), r"scale 0\.3, other points of the same image have 0\.2"),
    "no such image": (with_value("point", [1, 2, 5]), r"image 5 is not in .*, which holds 4"),
    "image 0": (with_value("point", [1, 2, 0]), r"image 0 is not in"),
    "no coordinate": (with_value("point", [None, 2, 2]), r"entry 40: point \[None, 2, 2\] is not x and y"),
    "text": (with_value("point", ["a", 2, 2]), r"entry 40: point: 'a' is not a number"),
    "flat": (with_value("point", 7), r"entry 40 is \{.*it must be as in"),
}


@pytest.mark.parametrize(("change", "says"), BAD_POINTS.values(), ids=BAD_POINTS)
def test_what_is_wrong_in_the_list_is_one_line(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], Any], says: str
) -> None:
    points = [dict(entry) for entry in entries()]
    change(points)
    with pytest.raises(UserError, match=says) as caught:
        everything(challenge(tmp_path, points))
    assert str(caught.value).startswith(str(tmp_path / POINTS)) and "\n" not in str(caught.value)


def test_another_file_is_refused(tmp_path: Path) -> None:
    root = challenge(tmp_path)
    (root / POINTS).write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match="not a file of the CL-Detection challenge"):
        everything(root)
    (root / STACK).write_bytes(b"no stack")
    (root / POINTS).write_text(json.dumps({"points": entries()}))
    with pytest.raises(UserError, match="no MetaImage file"):
        everything(root)
