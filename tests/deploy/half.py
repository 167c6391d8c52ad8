"""Networks whose values leave float16 in one place or another, and how far float16 moves their points."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from rtmpose.deploy.ranges import rounded_alone
from rtmpose.models import PoseNet, PoseOutput
from rtmpose.targets import SimCC


def features_times(model: PoseNet, factor: float) -> PoseNet:
    """A copy whose backbone gives features that many times larger."""
    return _layer_times(model, "backbone.stage4.2.final_conv.bn", factor)


def maps_times(model: PoseNet, factor: float) -> PoseNet:
    """A copy whose maps, one for each point, are that many times larger."""
    return _layer_times(model, "head.final_layer", factor)


@torch.no_grad()
def _layer_times(model: PoseNet, layer: str, factor: float) -> PoseNet:
    model = copy.deepcopy(model)
    for name in ("weight", "bias"):
        model.get_parameter(f"{layer}.{name}").mul_(factor)
    return model


@torch.no_grad()
def scores_times(model: PoseNet, factor: float) -> PoseNet:
    """A copy whose attention has scores that many times larger."""
    model = copy.deepcopy(model)
    for name in ("gamma", "beta"):
        model.get_parameter(f"head.gau.{name}")[0].mul_(factor)
    return model


@torch.no_grad()
def reference(model: PoseNet, images: Tensor) -> PoseOutput:
    """What the trained network gives in float64."""
    output: PoseOutput = copy.deepcopy(model).double()(images.double())
    return output


def moved(output: PoseOutput, expected: PoseOutput, input_size: tuple[int, int]) -> Tensor:
    """How far each point (N, K) lies from where it should, input px; a whole side where it is undefined."""
    assert isinstance(output, tuple) and isinstance(expected, tuple)
    codec = SimCC(input_size)
    distance = (codec.decode(output)[0] - codec.decode(expected)[0]).norm(dim=-1)
    defined = torch.stack([axis.isfinite().all(-1) for axis in output]).all(0)
    return distance.masked_fill(~defined, float(max(input_size)))


def decided(model: PoseNet, images: Tensor, expected: PoseOutput) -> Tensor:
    """Which points (N, K) have no near-tie: on both axes the maximum leads all bins but its neighbours by
    more than four times what rounding to float16's digits alone, without its limits, changes at that point.
    """
    rounded = rounded_alone(model, images)
    clear = []
    for axis, noisy in zip(expected, rounded, strict=True):
        noise = (axis - noisy).abs().amax(-1)
        best, where = axis.max(-1, keepdim=True)
        away = (torch.arange(axis.shape[-1]) - where).abs() > 1
        rival = axis.masked_fill(~away, -torch.inf).amax(-1)
        clear.append(best[..., 0] - rival > 4 * noise)
    return clear[0] & clear[1]


def p99(distances: Tensor) -> float:
    return float(distances.double().quantile(0.99))
