"""Rounding as int8 does, with gradients that pass; and a short run through the loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtmpose.config import load_params, with_values
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.data.stream.mix import Mix, MixEntry
from rtmpose.descriptors import load_dataset
from rtmpose.models import build_pose_net, load_exactly
from rtmpose.training.qat import (
    EIGHT_BITS,
    SEVEN_BITS,
    RoundedConv2d,
    finetune_for_int8,
    round_convolutions,
    rounded_inputs,
    rounded_weights,
)
from tests.support import ROOT

SIZE = (96, 128)


@pytest.mark.parametrize("largest", [EIGHT_BITS, SEVEN_BITS])
def test_weights_are_whole_multiples_of_a_scale_per_channel(largest: int) -> None:
    weight = torch.randn(5, 3, 3, 3) * torch.tensor([1e-3, 1.0, 10.0, 100.0, 0.0]).view(-1, 1, 1, 1)
    rounded = rounded_weights(weight, largest)
    scale = weight.flatten(1).abs().amax(1) / largest
    steps = (rounded / scale.view(-1, 1, 1, 1))[:4]
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert steps.abs().max() <= largest + 1e-3 and (rounded[4] == 0).all()
    assert ((rounded - weight).abs().flatten(1).amax(1) <= 0.5001 * scale + 1e-12).all()


def test_inputs_have_256_steps_and_an_exact_zero() -> None:
    values = torch.cat([torch.linspace(-0.278, 6.0, 5000), torch.zeros(1)])
    rounded = rounded_inputs(values)
    assert len(rounded.unique()) <= 256 and rounded[-1] == 0
    assert (rounded - values).abs().max() <= 0.51 * (6.278 / 255)
    assert (rounded_inputs(torch.zeros(4)) == 0).all()


def test_gradients_pass_straight_through() -> None:
    values = torch.linspace(-1, 1, 11, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, requires_grad=True)
    rounded_inputs(values).sum().backward()
    rounded_weights(weight, SEVEN_BITS).sum().backward()
    assert values.grad is not None and weight.grad is not None
    assert (values.grad == 1).all() and (weight.grad == 1).all()


def test_the_backbone_rounds_the_head_does_not_and_names_stay() -> None:
    network = build_pose_net("t", input_size=SIZE).eval()
    before, images = list(network.state_dict()), torch.randn(1, 3, 128, 96)
    exact = network.backbone(images)
    count = round_convolutions(network, SEVEN_BITS)
    rounding = [name for name, each in network.named_modules() if isinstance(each, RoundedConv2d)]
    assert len(rounding) == count == 37 and all(name.startswith("backbone.") for name in rounding)
    assert type(network.head.get_submodule("final_layer")) is nn.Conv2d
    assert list(network.state_dict()) == before
    off = (network.backbone(images) - exact).abs().mean() / exact.abs().mean()
    assert 1e-4 < off < 1


@pytest.mark.slow
def test_a_short_run_gives_weights_that_any_network_loads(tmp_path: Path) -> None:
    dataset = load_dataset("coco17")
    images = {"train": 10, "val": 4}
    render_dataset(tmp_path / "raw", "coco17", images=images, size=(160, 120), seed=1, workers=1)
    train, val = (list(read_images(dataset, tmp_path / "raw", split)) for split in ("train", "val"))
    write_train_shards(train, tmp_path / "train", dataset=dataset, workers=1, input_size=SIZE)
    write_eval_shards(val, tmp_path / "tune", dataset=dataset, split="val", workers=1)
    mix = Mix((MixEntry(tmp_path / "train", 1),), tmp_path / "tune", {})
    weights = tmp_path / "weights.pt"
    torch.save(build_pose_net("t", input_size=SIZE).state_dict(), weights)
    changes = {"finetune.batch_size": 8, "finetune.log_steps": 1, "hardware.loader_workers": 0}
    params = with_values(load_params(ROOT / "params.yaml"), changes)
    lines: list[dict[str, Any]] = []
    options: dict[str, Any] = {"epochs": 1, "largest": SEVEN_BITS, "tau": 0.1, "sigma": None}
    best = finetune_for_int8(params, mix, weights, tmp_path / "runs", **options, report=lines.append)
    assert [line for line in lines if "AP" in line] and "loss" in lines[0]
    network = build_pose_net("t", input_size=SIZE)
    load_exactly(network, best)
    before = torch.load(weights, weights_only=True)["backbone.stem.0.conv.weight"]
    assert not torch.equal(network.state_dict()["backbone.stem.0.conv.weight"], before)
    again: list[dict[str, Any]] = []
    assert finetune_for_int8(params, mix, weights, tmp_path / "runs", **options, report=again.append) == best
    assert again == [], json.dumps(again)  # it is finished
