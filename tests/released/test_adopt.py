"""Others' ONNX files: what becomes ours, and what does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from rtmpose.cli.released import convert
from rtmpose.config import Architecture
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.files import UserError
from rtmpose.inference.photo import predict_image
from rtmpose.models import MEAN, STD, build_pose_net
from rtmpose.released.adopt import adopt
from rtmpose.released.catalogue import Published, Released, Weights
from rtmpose.released.contents import fit
from rtmpose.released.transfer import Failed
from tests.released.conftest import SIZE, network

BOXES = [(10.0, 5.0, 40.0, 70.0), (0.0, 0.0, 64.0, 96.0)]


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_without_a_card_predicts_as_one_with_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), picture)
    ours = network()
    onnx.helper.set_model_props(ours, ModelCard.of(Architecture(size="t"), SIZE, "coco17").properties())
    written(tmp_path / "ours.onnx", ours)
    theirs = written(tmp_path / "theirs.onnx", network())
    with pytest.raises(UserError, match="metadata has no"):
        predict_image(tmp_path / "photo.png", theirs, BOXES)
    convert(theirs, skeleton="coco17")
    told = json.loads(capsys.readouterr().out)
    expected = (str(tmp_path / "theirs.card.onnx"), "t", list(SIZE))
    assert (told["file"], told["size"], told["input_size"]) == expected
    found, right = (
        predict_image(tmp_path / "photo.png", tmp_path / name, BOXES)
        for name in ("theirs.card.onnx", "ours.onnx")
    )
    assert found == right and len(found) == 2


def test_the_card_says_what_the_file_does(tmp_path: Path) -> None:
    source = written(tmp_path / "a.onnx", network(free=True))
    adopt(source, tmp_path / "b.onnx", "coco17", input_size=SIZE)
    card = read_card(tmp_path / "b.onnx")  # which holds the sizes in the file against the card
    assert (card.size, card.input_size, card.split_ratio, card.precision) == ("t", SIZE, 2.0, "fp32")
    assert (card.mean, card.std) == (MEAN, STD) and len(card.keypoint_names) == 17


def test_the_points_of_a_released_file_are_known_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "rtmpose-m_simcc-ap10k_pt-aic-coco_210e-256x256-7a041aa1_20230206.onnx"
    convert(written(tmp_path / name, network()), size="m")
    told = json.loads(capsys.readouterr().out)
    assert (told["skeleton"], told["size"]) == ("ap10k", "m")


def renamed(old: str, new: str) -> onnx.ModelProto:
    text = network().SerializeToString().replace(old.encode(), new.encode())
    return onnx.load_from_string(text)


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (network(14), {}, "has 14 points, --skeleton coco17 has 17; give another"),
        (network(), {"input_size": (64, 64)}, "input is 32x64; leave --input away"),
        (network(free=True), {}, "leaves the size of its input open; give --input"),
        (network(free=True), {"input_size": (64, 64)}, "the bins do not fit it; give the right --input"),
        (network(batch=1), {}, r"does not run with 2 image\(s\)"),
        (renamed("simcc_x", "heat__x"), {}, "takes input and gives heat__x, simcc_y, not input and simcc_x"),
        (renamed("input", "image"), {}, "takes image and gives"),
        (network(), {"skeleton": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_no_such_network_is_one_line_and_writes_nothing(
    tmp_path: Path, model: onnx.ModelProto, options: dict[str, object], reason: str
) -> None:
    source = written(tmp_path / "a.onnx", model)
    arguments = {"skeleton": "coco17"} | options
    with pytest.raises(UserError, match=rf"^[^\n]*{reason}[^\n]*$"):
        adopt(source, tmp_path / "b.onnx", **arguments)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_a_file_of_ours_and_one_without_points_named_are_told(tmp_path: Path) -> None:
    source = written(tmp_path / "a.onnx", network())
    with pytest.raises(UserError, match=r"a\.onnx: give --skeleton: the data set whose points it has"):
        convert(source)
    adopt(source, source, "coco17")
    with pytest.raises(UserError, match="has a card already"):
        convert(source, skeleton="coco17")


def test_a_checkpoint_is_held_against_its_entry(tmp_path: Path) -> None:
    torch.save(build_pose_net("t", input_size=(64, 96)).state_dict(), tmp_path / "a.pth")
    published = Published(path="a/b-12345678.pth", source="list")
    entry = Weights(
        kind="pose",
        network="rtmpose",
        size="t",
        input=(64, 96),
        skeleton="coco17",
        data=("x",),
        pth=published,
    )
    before = hashlib.sha256((tmp_path / "a.pth").read_bytes()).digest()
    fit(Released("a-b", "pth", entry, published), tmp_path / "a.pth")
    assert hashlib.sha256((tmp_path / "a.pth").read_bytes()).digest() == before
    for change, reason in (
        ({"skeleton": "aic"}, "number of points is 17, not 14"),
        ({"input": (96, 96)}, r"input is \(64, 96\), not \(96, 96\)"),
        ({"size": "m"}, "size is t, not m"),
    ):
        other = entry.model_copy(update=change)
        with pytest.raises(Failed, match=reason):
            fit(Released("a-b", "pth", other, published), tmp_path / "a.pth")
