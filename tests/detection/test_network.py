"""RTMDet has the official checkpoints' weights, computes what the published file does, and goes through our
own file.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from rtmpose.detection.conversion import Deployed, export_detector, rtmdet_from_onnx, with_statistics
from rtmpose.detection.detector import open_detector, suppressed
from rtmpose.detection.graph import Graph, Pixels
from rtmpose.detection.letterbox import letterbox
from rtmpose.detection.network import RTMDet, load_rtmdet, points, strides
from rtmpose.files import UserError
from rtmpose.models import MEAN, STD, save_tensors
from tests.detection import planted
from tests.detection.test_detector import REAL
from tests.support import realdata

# Trainable numbers of the official configurations: nano's of people, the others' of 80 classes.
OFFICIAL = {
    "nano": 994_423, "tiny": 4_896_168, "s": 8_886_924, "m": 24_709_188, "l": 52_315_804, "x": 94_855_572,
}  # fmt: skip


@pytest.fixture(scope="module")
def published() -> RTMDet:
    return rtmdet_from_onnx(realdata(REAL))


def _photograph(name: str) -> NDArray[np.uint8]:
    image = cv2.imread(str(realdata(f"coco/val2017/{name}")))
    assert image is not None
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def test_sizes_are_the_official_ones() -> None:
    with torch.device("meta"):
        found = {
            size: sum(w.numel() for w in RTMDet(size, 1 if size == "nano" else 80).parameters())
            for size in OFFICIAL
        }
        keys = RTMDet("tiny", 80).state_dict().keys()
    assert found == OFFICIAL
    assert {
        "backbone.stage4.1.conv2.conv.weight",
        "neck.reduce_layers.1.bn.running_var",
        "neck.top_down_blocks.0.blocks.0.conv2.depthwise_conv.conv.weight",
        "bbox_head.cls_convs.2.1.conv.weight",
        "bbox_head.rtm_reg.0.bias",
    } <= keys


def test_levels_share_convolutions_but_for_nano() -> None:
    with torch.device("meta"):
        tiny, nano = RTMDet("tiny").bbox_head, RTMDet("nano").bbox_head
    convs, norms = (
        [tiny.get_submodule(f"cls_convs.{n}.1.{part}") for n in (0, 2)] for part in ("conv", "bn")
    )
    assert convs[0] is convs[1] and norms[0] is not norms[1]
    first, last = (nano.get_submodule(f"reg_convs.{n}.0.pointwise_conv.conv") for n in (0, 2))
    assert first is not last


def test_cells_begin_with_the_finest_level() -> None:
    assert points(64, 32).shape == (32 + 8 + 2, 2)
    assert points(64, 32)[[0, 1, 8, 32, 41]].tolist() == [[0, 0], [8, 0], [0, 8], [0, 0], [32, 0]]
    assert strides(64, 32)[[31, 32, 41]].tolist() == [8, 16, 32]


def test_published_weights_give_the_published_boxes(published: RTMDet) -> None:
    image = _photograph("000000000785.jpg")
    expected = open_detector(realdata(REAL), threshold=0.1)(image)
    letter = letterbox(image, (320, 320), Pixels(MEAN, STD, bgr=False))
    with torch.inference_mode():
        logits, boxes = published(torch.from_numpy(letter.blob))
    scores = logits[0, :, 0].sigmoid().numpy()
    sure = scores > 0.1
    kept = suppressed(boxes[0].numpy()[sure], scores[sure], 0.6)
    assert len(kept) == len(expected) > 1
    found = letter.to_image(boxes[0].numpy()[sure][kept]).clip(0, 640)
    np.testing.assert_allclose(found, expected[:, :4], atol=0.01)
    np.testing.assert_allclose(scores[sure][kept], expected[:, 4], atol=1e-4)


def test_statistics_change_nothing_but_what_training_sees(published: RTMDet) -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = published(images)
        trainable = rtmdet_from_onnx(realdata(REAL))
        asleep = trainable.train()(images)
        trainable = with_statistics(rtmdet_from_onnx(realdata(REAL)), [images[:2], images[2:]])
        after, awake = trainable(images), trainable.train()(images)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=1e-3)
    # With these very images as a batch, its statistics are those that the norms hold.
    torch.testing.assert_close(after[0], awake[0], atol=0.5, rtol=0.05)
    assert (asleep[0] - before[0]).abs().mean() > 10 * (awake[0] - before[0]).abs().mean()


@pytest.mark.parametrize("size", ["nano", "tiny", "m"])
def test_norms_are_folded_where_no_level_shares_a_convolution(size: str) -> None:
    torch.manual_seed(0)
    network = RTMDet(size).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            for one in (norm.weight.data, norm.running_var):
                one.uniform_(0.5, 1.5)
            for one in (norm.bias.data, norm.running_mean):
                one.normal_(0, 0.25)
    deployed = Deployed(network)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        logits, boxes = network(images)
        found, scores = deployed(images)
    assert (found - boxes).abs().max() < 1e-4 * boxes.abs().max()
    torch.testing.assert_close(scores, logits.sigmoid(), atol=1e-5, rtol=1e-4)
    left = sum(isinstance(one, nn.BatchNorm2d) for one in deployed.modules())
    assert left == (0 if size == "nano" else 12)
    assert len({*deployed.parameters()}) < len({*network.parameters()})


def test_our_own_file_is_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = RTMDet("nano").train()
    with pytest.raises(UserError, match="multiples of 32 px, not 100x64"):
        export_detector(network, tmp_path / "own.onnx", (100, 64))
    assert not list(tmp_path.iterdir())
    path = export_detector(network, tmp_path / "own.onnx", (96, 64))
    assert network.training
    graph = Graph(path)
    assert graph.pixels() == Pixels(MEAN, STD, bgr=False) and graph.size(None) == (96, 64)
    assert graph.card is not None and graph.card.classes == ("person",)
    detector = open_detector(path, threshold=0.0, nms=1.0)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    letter = letterbox(image, (96, 64), graph.pixels())
    with torch.inference_mode():
        logits, boxes = network.eval()(torch.from_numpy(letter.blob))
    found, scores = detector.form(detector.run(letter.blob), 0.0)
    np.testing.assert_allclose(found, boxes[0].numpy(), atol=1e-3)
    np.testing.assert_allclose(scores, logits[0, :, 0].sigmoid().numpy(), atol=1e-5)


def test_checkpoints_say_their_size(tmp_path: Path) -> None:
    network = RTMDet("nano", classes=2)
    save_tensors(tmp_path / "official.pth", {"state_dict": network.state_dict(), "meta": {"epoch": 300}})
    loaded = load_rtmdet(tmp_path / "official.pth")
    assert (loaded.size, loaded.classes, loaded.training) == ("nano", 2, False)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, network.state_dict()[key])
    save_tensors(tmp_path / "torn.pth", dict(list(network.state_dict().items())[:-1]))
    with pytest.raises(UserError, match="missing key"):
        load_rtmdet(tmp_path / "torn.pth")
    save_tensors(tmp_path / "other.pth", {"backbone.stem.0.conv.weight": torch.zeros(8, 3, 3, 3)})
    with pytest.raises(UserError, match="holds no RTMDet"):
        load_rtmdet(tmp_path / "other.pth")


def test_only_an_exported_nano_gives_its_weights(tmp_path: Path) -> None:
    path = planted.write(tmp_path / "planted.onnx", planted.outputs("boxes"))
    with pytest.raises(UserError, match=r"no weight bbox_head\.rtm_cls"):
        rtmdet_from_onnx(path)
    with pytest.raises(UserError, match="not a complete ONNX model"):
        rtmdet_from_onnx(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="give one of nano, tiny"):
        RTMDet("huge")
