"""HRNet: names, shapes and number of the published weights; what it computes, and that it is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rtmpose.deploy.export import export_onnx, parity
from rtmpose.files import UserError
from rtmpose.models import PoseNet, build_pose_net, hrnet, load_weights
from rtmpose.models.hrnet import HRNet
from rtmpose.models.shapes import shapes_of
from rtmpose.targets import UDPHeatmap

SIZE = (64, 96)


def meta(name: str, head: str = "heatmap", points: int = 17) -> PoseNet:
    with torch.device("meta"):
        return build_pose_net("m", head, points, (192, 256), backbone=name)


@pytest.mark.parametrize(("name", "count"), [("hrnet_w32", 28_536_113), ("hrnet_w48", 63_595_745)])
def test_it_has_the_published_number_of_parameters(name: str, count: int) -> None:
    """28.5 M and 63.6 M with the head for COCO's 17 points (arXiv 1902.09212, tables 1 and 2)."""
    model = meta(name)
    assert sum(weight.numel() for weight in model.parameters()) == count
    assert sorted(key for key in model.state_dict() if key.startswith("head.")) == [
        "head.final_layer.bias", "head.final_layer.weight"
    ]  # fmt: skip


def test_names_and_shapes_are_those_of_published_weights() -> None:
    state = meta("hrnet_w32").backbone.state_dict()
    shapes = {
        "conv1.weight": (64, 3, 3, 3), "bn2.running_mean": (64,), "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.1.weight": (256,), "layer1.3.conv3.weight": (256, 64, 1, 1),
        "transition1.0.0.weight": (32, 256, 3, 3), "transition1.1.0.0.weight": (64, 256, 3, 3),
        "transition2.2.0.0.weight": (128, 64, 3, 3), "transition3.3.0.1.weight": (256,),
        "stage2.0.branches.1.3.conv2.weight": (64, 64, 3, 3),
        "stage2.0.fuse_layers.0.1.0.weight": (32, 64, 1, 1),
        "stage3.3.fuse_layers.2.0.0.0.weight": (32, 32, 3, 3),
        "stage3.3.fuse_layers.2.0.1.0.weight": (128, 32, 3, 3),
        "stage4.2.branches.3.0.bn1.weight": (256,), "stage4.2.fuse_layers.0.3.1.bias": (32,),
        "stage4.1.fuse_layers.3.0.2.0.weight": (256, 32, 3, 3),
    }  # fmt: skip
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    last = [key for key in state if key.startswith("stage4.2.fuse_layers.")]
    assert last and all(key.startswith("stage4.2.fuse_layers.0.") for key in last)  # the finest alone leaves
    assert not any(key.startswith(("transition2.0", "transition2.1", "transition3.2")) for key in state)


@pytest.fixture(scope="module")
def model() -> PoseNet:
    torch.manual_seed(0)
    return build_pose_net("m", "heatmap", 5, SIZE, backbone="hrnet_w32")


def test_maps_have_a_quarter_of_the_inputs_size_and_all_weights_learn(model: PoseNet) -> None:
    model.train()
    maps = model(torch.randn(2, 3, 96, 64))
    assert maps.shape == (2, 5, 24, 16)
    maps.square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all() and weight.grad.any(), name
    model.zero_grad(set_to_none=True)


def test_every_branch_reaches_the_finest_maps(model: PoseNet) -> None:
    """Without a branch's way into the last sum, the output is another one."""
    backbone, images = model.backbone.eval(), torch.randn(1, 3, 96, 64)
    assert isinstance(backbone, HRNet)
    with torch.inference_mode():
        whole = backbone(images)
        for branch in (1, 2, 3):
            norm = backbone.get_submodule(f"stage4.2.fuse_layers.0.{branch}.1")
            assert isinstance(norm, nn.BatchNorm2d)
            kept = norm.weight.clone()
            norm.weight.zero_()
            assert not torch.allclose(backbone(images), whole), branch
            norm.weight.copy_(kept)
        assert torch.equal(backbone(images), whole)


def test_published_backbones_load(model: PoseNet, tmp_path: Path) -> None:
    """A whole published network, of which the head has another number of points."""
    state = {f"backbone.{key}": value + 1 for key, value in model.backbone.state_dict().items()}
    state |= {"head.final_layer.weight": torch.zeros(17, 32, 1, 1), "head.final_layer.bias": torch.zeros(17)}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    torch.manual_seed(1)
    other = build_pose_net("m", "heatmap", 5, SIZE, backbone="hrnet_w32")
    found = load_weights(other, tmp_path / "w.pth")
    assert set(found.wrong_shape) == {"head.final_layer.weight", "head.final_layer.bias"}
    assert not found.missing and not found.unexpected
    assert torch.equal(
        other.state_dict()["backbone.stage3.1.branches.0.2.bn1.bias"],
        state["backbone.stage3.1.branches.0.2.bn1.bias"],
    )


@pytest.mark.parametrize("name", ["hrnet_w32", "hrnet_w48"])
@pytest.mark.parametrize("head", ["heatmap", "simcc", "simcc_plain"])
def test_weights_say_that_they_are_of_it(name: str, head: str) -> None:
    found = shapes_of(meta(name, head, 38).state_dict())
    assert (found.architecture.backbone, found.architecture.head, found.num_keypoints) == (name, head, 38)


def test_heads_that_enlarge_maps_are_refused() -> None:
    with pytest.raises(UserError, match="simcc_deconv enlarges maps that hrnet_w32 has not made small"):
        build_pose_net("m", "simcc_deconv", 5, SIZE, backbone="hrnet_w32")


@pytest.mark.slow
def test_it_is_exported_and_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one exchange in each stage: more of the same take their time, and show nothing new."""
    for stage in hrnet.MODULES:
        monkeypatch.setitem(hrnet.MODULES, stage, 1)
    torch.manual_seed(0)
    model = build_pose_net("m", "heatmap", 5, SIZE, backbone="hrnet_w32")
    file = export_onnx(model.eval(), SIZE, tmp_path / "hrnet.onnx")
    crops = np.random.default_rng(2).standard_normal((1, 3, SIZE[1], SIZE[0])).astype(np.float32)
    found = parity(model, file, UDPHeatmap(SIZE), crops)
    scale = float(model(torch.from_numpy(crops)).abs().max())
    assert found["max_diff"] < 1e-3 * max(scale, 1.0)
