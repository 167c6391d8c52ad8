"""RTMW's network: its published cost, the official names, its gradients, exports that compute the same."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rtmpose.config import Architecture
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.export import export_onnx, parity
from rtmpose.deploy.form import deploy_form, in_half
from rtmpose.deploy.ranges import LARGEST, emulated
from rtmpose.files import UserError
from rtmpose.models import PoseNet, build_pose_net, load_exactly, save_tensors
from rtmpose.models.shapes import shapes_of
from rtmpose.targets import SimCC
from tests.models.support import fill

SIZE, POINTS = (64, 96), 133
# Multiply-adds of MMPose's table for each model, 10^9; the parameters follow from the published design.
PUBLISHED = {
    ("m", (192, 256)): (4.3, 32_258_207),
    ("l", (192, 256)): (7.9, 57_201_207),
    ("x", (192, 256)): (13.1, 92_041_903),
    ("l", (288, 384)): (17.7, 57_354_295),
    ("x", (288, 384)): (29.3, 92_194_991),
}


def small() -> PoseNet:
    return fill(build_pose_net("t", num_keypoints=POINTS, input_size=SIZE, neck="rtmw"))


@pytest.mark.parametrize(("which", "cost"), PUBLISHED.items())
def test_cost_is_the_published_one(which: tuple[str, tuple[int, int]], cost: tuple[float, int]) -> None:
    (size, (width, height)), (billions, parameters) = which, cost
    with torch.device("meta"):
        model = build_pose_net(size, num_keypoints=POINTS, input_size=(width, height), neck="rtmw").eval()
        with FlopCounterMode(display=False) as counter:
            x, y = model(torch.empty(1, 3, height, width))
    assert sum(each.numel() for each in model.parameters()) == parameters
    # The table's counter adds norms and activations, half a percent.
    assert counter.get_total_flops() / 2e9 == pytest.approx(billions, rel=0.012)
    assert (x.shape, y.shape) == ((1, POINTS, 2 * width), (1, POINTS, 2 * height))


def test_names_and_shapes_are_the_official_ones() -> None:
    """Of RTMW-m, such as the official files hold them; none goes without a place in this list."""
    with torch.device("meta"):
        model = build_pose_net("m", num_keypoints=POINTS, neck="rtmw")
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    expected = {
        "neck.reduce_layers.0.conv.weight": (384, 768, 1, 1),
        "neck.reduce_layers.1.conv.weight": (192, 384, 1, 1),
        "neck.top_down_blocks.0.main_conv.conv.weight": (192, 768, 1, 1),
        "neck.top_down_blocks.1.blocks.1.conv2.depthwise_conv.conv.weight": (96, 1, 5, 5),
        "neck.downsamples.0.conv.weight": (192, 192, 3, 3),
        "neck.bottom_up_blocks.1.final_conv.conv.weight": (768, 768, 1, 1),
        "head.conv_dec.conv.weight": (192, 192, 7, 7),
        "head.final_layer.conv.weight": (133, 768, 7, 7),
        "head.final_layer2.conv.weight": (133, 576, 7, 7),
        "head.final_layer2.bn.running_var": (133,),
        "head.mlp.0.g": (1,),
        "head.mlp.1.weight": (128, 48),
        "head.mlp2.1.weight": (128, 192),
        "head.gau.uv.weight": (1152, 256),
        "head.cls_y.weight": (512, 256),
    }
    assert expected.items() <= shapes.items()
    parts = {".".join(key.split(".")[:2]) for key in shapes if not key.startswith("backbone.")}
    levels = {"neck.reduce_layers", "neck.top_down_blocks", "neck.downsamples", "neck.bottom_up_blocks"}
    heads = ("conv_dec", "final_layer", "final_layer2", "mlp", "mlp2", "gau", "cls_x", "cls_y")
    assert parts == levels | {f"head.{part}" for part in heads}
    assert not any(re.search(r"attention|out_convs", key) for key in shapes if key.startswith("neck."))


def test_a_checkpoint_shows_its_network_and_loads(tmp_path: Path) -> None:
    model = small()
    found = shapes_of(model.state_dict())
    assert found.architecture == Architecture(size="t", neck="rtmw")
    assert (found.num_keypoints, found.input_size) == (POINTS, SIZE)
    save_tensors(tmp_path / "w.pth", {"state_dict": model.state_dict()})
    again = ModelCard.of(found.architecture, SIZE, "coco_wholebody").network()
    load_exactly(again, tmp_path / "w.pth")
    images = torch.randn(1, 3, SIZE[1], SIZE[0])
    with torch.inference_mode():
        assert all(map(torch.equal, model(images), again(images)))
    plain = build_pose_net("t", num_keypoints=POINTS, input_size=SIZE)
    with pytest.raises(UserError, match=r"unexpected|missing|wrong shape"):
        load_exactly(plain, tmp_path / "w.pth")


def test_every_weight_learns() -> None:
    """A fresh network: both levels, the pyramid and all stages get a gradient."""
    torch.manual_seed(0)
    model = build_pose_net("t", num_keypoints=5, input_size=SIZE, neck="rtmw").train()
    x, y = model(torch.randn(2, 3, SIZE[1], SIZE[0]))
    (x.square().sum() + y.square().sum()).backward()
    still = {name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()}
    # ReLU in front of the norm: nothing else may stand still.
    assert still == set()


@torch.inference_mode()
def test_the_exported_form_computes_the_same() -> None:
    model, images = small(), torch.randn(2, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(0))
    exact = copy.deepcopy(model).double()
    expected = exact(images.double())
    largest = max(float(axis.abs().max()) for axis in expected)
    forms = ((deploy_form(exact), images.double(), 1e-11), (form := deploy_form(model), images, 5e-5))
    for tried, given, share in forms:
        for ours, theirs in zip(tried(given), expected, strict=True):
            assert float((ours - theirs).abs().max()) <= share * largest
    _, ranges = emulated(in_half(form), images)
    assert max(found.largest for found in ranges.values()) <= LARGEST


def test_onnx_runtime_computes_the_same_points(tmp_path: Path) -> None:
    model = small()
    card = ModelCard.of(Architecture(size="t", neck="rtmw"), SIZE, "coco_wholebody")
    path = export_onnx(model, SIZE, tmp_path / "w.onnx", card=card)
    assert parity(model, path, SimCC(SIZE))["keypoints_px_max"] <= 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"neck": "fpn"}, "model neck: 'fpn' is none of null, rtmw"),
        ({"head": "heatmap"}, "model neck: rtmw goes with backbone cspnext and head simcc"),
        ({"backbone": "resnet50"}, "model neck: rtmw goes with backbone cspnext and head simcc"),
        ({"hidden": 65}, "model hidden: 65 must be even"),
    ],
)
def test_what_makes_no_network_is_one_line(options: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        build_pose_net("t", **({"neck": "rtmw"} | options))  # type: ignore[arg-type]
