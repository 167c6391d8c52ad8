"""Optimizer groups, schedule and EMA against the reference vectors."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtmpose.config import OptimParams
from rtmpose.models import build_pose_net
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.training.optim import ADAM_EPS, Ema, adamw, ema_momentum, learning_rate, parameter_groups
from rtmpose.training.update import Updater, heatmap_task, simcc_task
from tests.support import assert_golden, golden


def test_every_parameter_decays_as_in_the_reference() -> None:
    file = json.loads(golden("optim_param_groups.json").read_text())
    for size in ("t", "m"):
        expected = {key: value["weight_decay"] for key, value in file[f"rtmpose-{size}_coco_256x192"].items()}
        model = build_pose_net(size)
        decay = {
            id(p): group["weight_decay"]
            for group in parameter_groups(model, 0.05)
            for p in group["params"]  # type: ignore[attr-defined]
        }
        assert {key: decay[id(p)] for key, p in model.named_parameters()} == pytest.approx(expected)


@pytest.mark.parametrize("name", ["lr_rtmpose_420e.npz", "lr_udp_210e.npz"])
def test_schedule_equals_reference(name: str) -> None:
    file = np.load(golden(name))
    steps, epochs, expected = int(file["epoch_length"]), int(file["max_epochs"]), file["lr"]
    optim = OptimParams(lr=float(expected.max()))
    ours = [learning_rate(i, optim=optim, epochs=epochs, steps_per_epoch=steps) for i in range(len(expected))]
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-12)


def test_the_cosine_begins_where_the_flat_share_ends() -> None:
    """Face6's schedule: of 120 epochs the first 30 are flat, and the rate falls to 0.5 %."""
    optim = OptimParams(lr=4e-3, warmup_steps=0, flat=0.25, final_lr=0.005)
    ours = [learning_rate(step, optim=optim, epochs=120, steps_per_epoch=10) for step in range(1201)]
    assert ours[:301] == [4e-3] * 301 and ours[301] < 4e-3
    assert ours[750] == pytest.approx((4e-3 + 2e-5) / 2) and ours[1200] == pytest.approx(2e-5)
    odd = [
        learning_rate(step, optim=OptimParams(warmup_steps=0), epochs=7, steps_per_epoch=1)
        for step in range(7)
    ]
    assert odd[3] == 4e-3 > odd[4]  # of seven epochs the flat half is three


def test_the_step_schedule_falls_to_a_tenth_twice() -> None:
    optim = OptimParams(lr=1.0, warmup_steps=5, warmup_start=0.2, schedule="step")
    ours = [learning_rate(step, optim=optim, epochs=42, steps_per_epoch=5) for step in range(210)]
    assert ours[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert (
        ours[5:170] == [1.0] * 165
        and ours[170:200] == pytest.approx([0.1] * 30)
        and ours[200:] == pytest.approx([0.01] * 10)
    )
    short = [learning_rate(step, optim=optim, epochs=1, steps_per_epoch=21) for step in range(21)]
    assert short[16:] == pytest.approx([1.0, 0.1, 0.1, 0.1, 0.01])


def test_norms_and_biases_decay_when_asked_to() -> None:
    model = build_pose_net("t", input_size=(32, 32))
    decayed, free = parameter_groups(model, 0.05, decay_norms=True)
    assert len(decayed["params"]) == len(list(model.parameters())) and free["params"] == []  # type: ignore[arg-type]
    assert decayed["weight_decay"] == 0.05
    optimizer = adamw(model, OptimParams(lr=1e-3, decay_norms=True), 0.05)
    model(torch.randn(2, 3, 32, 32))[0].sum().backward()
    optimizer.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]


def test_ema_equals_reference() -> None:
    file = np.load(golden("ema.npz"))
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    keys = [str(key) for key in file["keys"]]
    ema: Ema | None = None
    for call in range(len(file["source"])):
        load_flat(model, keys, file["source"][call])
        ema = ema or Ema(model, momentum=2e-4, gamma=2000.0)
        ema.update(torch.tensor(False))
        flat = {
            key: part for key, part in zip(keys, split_flat(model, keys, file["averaged"][call]), strict=True)
        }
        for key, expected in flat.items():
            assert_golden(ema.state[names(model, keys)[key]].numpy().ravel(), expected)
    momenta = [ema_momentum(update, 2e-4, 2000.0) for update in range(1, len(file["source"]))]
    np.testing.assert_allclose(momenta, file["momentum_at_step"][-len(momenta) :], rtol=1e-9)


def names(model: nn.Module, keys: list[str]) -> dict[str, str]:
    """Keys of the reference's two-layer network → ours, in order of the state dict."""
    return dict(zip(keys, model.state_dict(), strict=True))


def split_flat(model: nn.Module, keys: list[str], flat: np.ndarray) -> list[np.ndarray]:
    sizes = [model.state_dict()[names(model, keys)[key]].numel() for key in keys]
    return np.split(flat, np.cumsum(sizes)[:-1])


def load_flat(model: nn.Module, keys: list[str], flat: np.ndarray) -> None:
    state = model.state_dict()
    for key, part in zip(keys, split_flat(model, keys, flat), strict=True):
        own = state[names(model, keys)[key]]
        own.copy_(torch.from_numpy(np.asarray(part)).reshape(own.shape).to(own.dtype))


def test_epsilons_are_the_references_for_the_scale_of_each_loss() -> None:
    """Ours is a mean over the batch: SimCC's is a sum over 256 samples in the reference, the heatmaps' a
    mean.
    """
    size = (96, 128)
    simcc = simcc_task(build_pose_net("t", input_size=size), SimCC(size), 0.1)
    heatmap = heatmap_task(build_pose_net("t", "heatmap", input_size=size), UDPHeatmap(size))
    options: dict[str, Any] = {
        "global_batch": 4,
        "weight_decay": 0.0,
        "optim": OptimParams(),
        "ema_momentum": 0.0,
    }
    for task, eps in ((simcc, 1e-8 / 256), (heatmap, 1e-8)):
        updater = Updater(task, device=torch.device("cpu"), precision="fp32", **options)
        assert [group["eps"] for group in updater.optimizer.param_groups] == [eps, eps]


def test_the_optimizer_is_pytorchs() -> None:
    ours, theirs = (nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    first = adamw(ours, OptimParams(lr=0.01), 0.05)
    second = torch.optim.AdamW(parameter_groups(theirs, 0.05), lr=0.01, eps=ADAM_EPS, fused=True)
    for step in range(3):
        for net, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            net(torch.full((4, 3), 1.0 + step)).square().sum().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
    assert torch.is_grad_enabled()
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
