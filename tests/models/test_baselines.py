"""The networks of the ladder's first rungs: ResNet-50 under heatmaps and under SimCC with and without
upsampling.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rtmpose.config import ModelParams
from rtmpose.models import build_model, build_pose_net

SIZE = (96, 128)


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_resnet50_has_torchvisions_names_and_shapes() -> None:
    backbone = build_pose_net("t", "simcc_plain", 17, SIZE, backbone="resnet50").backbone
    state = backbone.state_dict()
    assert count(backbone) == 25_557_032 - 2_049_000  # torchvision's, without its classifier
    assert len(state) == 320 - 2  # batch norm's counters included
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.num_batches_tracked": (),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.running_var": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.weight": (1024,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    assert [number for number in range(6) if f"layer3.{number}.downsample.0.weight" in state] == [0]
    with torch.inference_mode():
        assert backbone.eval()(torch.zeros(2, 3, 128, 96)).shape == (2, 2048, 4, 3)


def test_the_stride_is_in_the_3x3_convolution() -> None:
    backbone = build_pose_net("t", "simcc_plain", 1, (32, 32), backbone="resnet50").backbone
    strides = {name: part.stride for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d)}
    assert strides["layer2.0.conv1"] == (1, 1) and strides["layer2.0.conv2"] == (2, 2)
    assert strides["layer2.0.downsample.0"] == (2, 2) and strides["layer1.0.conv2"] == (1, 1)


@pytest.mark.parametrize("backbone", ["cspnext", "resnet50"])
@pytest.mark.parametrize("head", ["simcc", "simcc_plain", "simcc_deconv", "heatmap"])
def test_every_baseline_has_outputs_and_gradients(backbone: str, head: str) -> None:
    model = build_pose_net("t", head, 5, SIZE, backbone=backbone, kernel=1, hidden=16, gau=False)
    output = model(torch.randn(2, 3, 128, 96))
    outputs = output if isinstance(output, tuple) else (output,)
    expected = [(2, 5, 32, 24)] if head == "heatmap" else [(2, 5, 192), (2, 5, 256)]
    assert [tuple(part.shape) for part in outputs] == expected
    torch.stack([part.square().sum() for part in outputs]).sum().backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in model.parameters())
    assert (
        model.head.state_dict().keys()
        == build_model(
            ModelParams.model_validate(
                {"size": "t", "backbone": backbone, "head": head, "kernel": 1, "hidden": 16, "gau": False}
                | {"weight_decay": 0, "ema_momentum": 0}
            ),
            5,
            SIZE,
        )
        .head.state_dict()
        .keys()
    )


def test_simcc_heads_go_from_cells_to_bins() -> None:
    plain, enlarged = (build_pose_net("t", head, 17, SIZE).head for head in ("simcc_plain", "simcc_deconv"))
    shapes = [
        {key: tuple(value.shape) for key, value in head.state_dict().items()} for head in (plain, enlarged)
    ]
    assert shapes[0]["mlp_head_x.weight"] == (192, 12) and shapes[1]["mlp_head_y.weight"] == (256, 768)
    assert "final_layer.weight" in shapes[0] and "deconv_head.final_layer.weight" in shapes[1]
    assert shapes[0]["final_layer.weight"] == (17, 384, 7, 7)


def test_the_network_of_parameters() -> None:
    params = ModelParams(size="t", kernel=3, hidden=32, gau=False, weight_decay=0, ema_momentum=0)
    ours = build_model(params, 4, SIZE)
    assert (
        ours.state_dict().keys()
        == build_pose_net("t", "simcc", 4, SIZE, kernel=3, hidden=32, gau=False).state_dict().keys()
    )
    pretrained = build_model(params, 4, SIZE, pretrain_hidden=24).state_dict()
    assert pretrained["head.deconv_layers.0.weight"].shape == (384, 24, 4, 4)
