"""A checkpoint's shapes name its network, for every network that parameters can describe."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from rtmpose.models import build_pose_net
from rtmpose.models.shapes import Shapes, shapes_of
from tests.models.support import golden_names, golden_shapes

NETWORKS: dict[str, dict[str, Any]] = {
    "simcc": {},
    "kernel 3": {"kernel": 3},
    "kernel 1, no gau": {"kernel": 1, "gau": False},
    "hidden 48": {"hidden": 48},
    "simcc_plain": {"head": "simcc_plain", "kernel": 3},
    "simcc_deconv": {"head": "simcc_deconv", "hidden": 16},
    "heatmap": {"head": "heatmap", "hidden": 24},
    "resnet50": {"backbone": "resnet50", "kernel": 5, "hidden": 32},
    "rtmw": {"neck": "rtmw", "kernel": 3},
    "hardswish": {"activation": "hardswish"},
    "hardswish heatmap": {"activation": "hardswish", "head": "heatmap"},
    "resnet50 heatmap": {"backbone": "resnet50", "head": "heatmap", "hidden": 16},
}


def rebuilt(shapes: Shapes, input_size: tuple[int, int]) -> torch.nn.Module:
    facts = shapes.architecture.model_dump()
    points = shapes.num_keypoints or 1
    return build_pose_net(facts.pop("size"), facts.pop("head"), points, input_size, **facts)


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS.keys())
def test_the_network_comes_back(options: dict[str, Any]) -> None:
    model = build_pose_net("t", num_keypoints=5, input_size=(96, 160), **options)
    found = shapes_of(model.state_dict())
    assert found.num_keypoints == 5
    assert found.input_size == (None if options.get("head") == "heatmap" else (96, 160))
    assert {name: getattr(found.architecture, name) for name in options} == options
    again = rebuilt(found, (96, 160)).state_dict()
    assert {key: value.shape for key, value in again.items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("name", golden_names(r"state_dict_(.+)\.json"))
def test_official_checkpoints_name_their_network(name: str) -> None:
    match = re.fullmatch(r"(rtmpose|cspnext)-(\w)\w*_.*?(\d+)x(\d+).*", name)
    assert match, name
    shapes = golden_shapes(name)
    found = shapes_of({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    heatmap, size = match[1] == "cspnext", match[2]
    assert found.architecture.size == size
    assert found.architecture.head == ("heatmap" if heatmap else "simcc")
    assert found.input_size == (None if heatmap else (int(match[4]), int(match[3])))
    assert found.num_keypoints == shapes["head.final_layer.weight"][0]


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"head.cls_x.weight": torch.zeros(())},
        {"head.cls_x.weight": torch.zeros(4, 2), "head.final_layer.weight": torch.zeros(3)},
        {"head.deconv_layers.0.weight": torch.zeros(3, 1, 2, 2)},
        {"backbone.stem.2.conv.weight": torch.zeros(17)},
        {"head.cls_x.weight": torch.zeros(0, 0), "head.cls_y.weight": torch.zeros(0, 0)},
    ],
)
def test_shapes_of_no_network_give_defaults(weights: dict[str, torch.Tensor]) -> None:
    found = shapes_of(weights)
    assert found.architecture.hidden >= 8 and found.architecture.size == "m" and found.input_size is None
