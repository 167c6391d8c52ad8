"""The form that is exported: it computes what the trained network computes, also in float16."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtmpose.deploy.form import (
    CALIBRATION,
    HIGH,
    DeployNet,
    calibration,
    deploy_form,
    in_half,
    parts,
    power_for,
)
from rtmpose.deploy.ranges import LARGEST, TINY, emulated, rounded_alone
from rtmpose.files import UserError
from rtmpose.models import PoseNet, PoseOutput, build_pose_net
from tests.deploy.half import decided, features_times, maps_times, moved, p99, reference, scores_times
from tests.deploy.support import SIZE, formula_net
from tests.models.support import fill
from tests.support import det_input

SMALL = (64, 96)
Change = Callable[[PoseNet], PoseNet]
KINDS: dict[str, dict[str, Any]] = {
    "simcc": {},
    "simcc without attention": {"gau": False},
    "simcc_plain": {"head": "simcc_plain"},
    "simcc_deconv": {"head": "simcc_deconv", "hidden": 32},
    "heatmap": {"head": "heatmap", "hidden": 32},
    "resnet50": {"head": "simcc_plain", "backbone": "resnet50"},
    "hardswish": {"activation": "hardswish"},
}
CASES: dict[str, tuple[Change, bool]] = {  # how the network is changed, and whether subnormals are flushed
    "as it is": (copy.deepcopy, False),
    "flushed": (copy.deepcopy, True),
    "features x30": (partial(features_times, factor=30), False),
    "features x3000": (partial(features_times, factor=3000), False),
    "scores x300": (partial(scores_times, factor=300), False),
    "maps x0.001, flushed": (partial(maps_times, factor=1e-3), True),
}


def noise(count: int, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.from_numpy(det_input((count, 3, size[1], size[0])))


def both(output: PoseOutput) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def relative(output: PoseOutput, expected: PoseOutput) -> float:
    """The largest difference, as a share of the largest output."""
    pairs = list(zip(both(output), both(expected), strict=True))
    return max(float((a - b).abs().max()) for a, b in pairs) / max(float(b.abs().max()) for _, b in pairs)


def small_net(**kind: Any) -> PoseNet:
    return fill(build_pose_net("t", input_size=SMALL, **kind))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@torch.inference_mode()
def test_every_network_computes_the_same(kind: dict[str, Any]) -> None:
    model, images = small_net(**kind), noise(2, SMALL)
    assert relative(deploy_form(model)(images), model(images)) <= 1e-5
    exact = copy.deepcopy(model).double()
    assert relative(deploy_form(exact)(images.double()), reference(model, images)) <= 1e-11


@pytest.mark.parametrize("change", [case[0] for case in CASES.values()], ids=CASES)
@torch.inference_mode()
def test_powers_of_two_change_nothing_in_float32(change: Change) -> None:
    model, images = change(formula_net()), noise(2)
    form = deploy_form(model)
    assert relative(form(images), model(images)) <= 1e-5
    assert all(output.dtype == torch.float32 for output in both(form(images)))


@pytest.mark.parametrize("factor", [3000, 1e-4])
@torch.inference_mode()
def test_powers_of_two_change_nothing_behind_hard_swish(factor: float) -> None:
    model, images = features_times(small_net(activation="hardswish"), factor), noise(2, SMALL)
    form = deploy_form(model)
    assert any(power > 1 if factor > 1 else power < 1 for power in form.powers.values())
    assert relative(form(images), model(images)) <= 1e-5


def test_the_trained_network_stays_as_it_is() -> None:
    model = formula_net().train()
    state, kinds = copy.deepcopy(model.state_dict()), [type(module) for module in model.modules()]
    drawn = torch.get_rng_state()
    form = deploy_form(model)
    assert model.training and not form.training and kinds == [type(module) for module in model.modules()]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


def test_a_network_within_the_limits_gets_no_power() -> None:
    assert set(deploy_form(formula_net()).powers.values()) == {1.0}


def test_powers_leave_room_to_both_limits() -> None:
    assert [power_for(value, 1, 1) for value in (HIGH, HIGH + 1, 3e7)] == [1, 2, 8192]
    assert [power_for(value, 1, 1) for value in (1 / 16, 1e-3, 0)] == [1, 2**-9, 1]
    assert power_for(1, 2**-13, 2**-12) == 2**-5 and power_for(HIGH / 4, 2**-13, 2**-12) == 1 / 4
    assert power_for(1e-9, 1, 4) == 2**-10  # the weights stay below the limit, too
    assert power_for(1e-9, 1e-6, 1e-6) == 2**-16
    form = deploy_form(features_times(formula_net(), 3000))
    changed = {name for name, power in form.powers.items() if power != 1}
    assert changed == {"backbone.stage4", "head.final_layer"}
    with torch.inference_mode():
        _, ranges = emulated(in_half(form), calibration(SIZE))
    largest = max(ranges[part.name].largest for part in parts(form) if part.name in changed)
    assert HIGH / 2 < largest <= HIGH * 1.01


@pytest.mark.parametrize(("change", "flush"), CASES.values(), ids=CASES)
def test_float16_holds_every_value_and_moves_no_point(change: Change, flush: bool) -> None:
    model, images = change(formula_net()), noise(8)
    expected = reference(model, images)
    output, ranges = emulated(in_half(deploy_form(model)), images, flush=flush)
    assert max(found.largest for found in ranges.values()) <= LARGEST / 4
    clear = decided(model, images, expected)
    assert clear.float().mean() > 0.5
    assert p99(moved(output, expected, SIZE)[clear]) <= 0.5


@pytest.mark.parametrize("name", ["features x3000", "scores x300"])
@torch.inference_mode()
def test_pytorchs_own_float16(name: str) -> None:
    model, images = CASES[name][0](formula_net()), noise(4)
    expected = reference(model, images)
    output = in_half(deploy_form(model))(images)
    assert all(axis.dtype == torch.float32 for axis in both(output))
    assert p99(moved(output, expected, SIZE)[decided(model, images, expected)]) <= 0.5


@pytest.mark.parametrize(("change", "flush"), [CASES["as it is"], CASES["features x3000"]])
def test_float16_of_the_m_network(change: Change, flush: bool) -> None:
    model, images = change(fill(build_pose_net("m", input_size=SIZE))), noise(4)
    expected = reference(model, images)
    output, ranges = emulated(in_half(deploy_form(model)), images, flush=flush)
    assert max(found.largest for found in ranges.values()) <= LARGEST / 4
    assert p99(moved(output, expected, SIZE)[decided(model, images, expected)]) <= 0.5


@pytest.mark.parametrize("name", ["scores x300", "maps x0.001, flushed"])
def test_the_trained_network_itself_fails_in_float16(name: str) -> None:
    change, flush = CASES[name]
    model, images = change(formula_net()), noise(4)
    expected = reference(model, images)
    output, _ = emulated(copy.deepcopy(model).half(), images.half(), flush=flush)
    assert p99(moved(output, expected, SIZE)[decided(model, images, expected)]) > 20


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_float16_of_every_network(kind: dict[str, Any]) -> None:
    model, images = small_net(**kind), noise(2, SMALL)
    alone = relative(rounded_alone(model, images), reference(model, images))
    output, ranges = emulated(in_half(deploy_form(model)), images)
    assert relative(output, reference(model, images)) <= max(3 * alone, 1e-3) < 0.05
    assert max(found.largest for found in ranges.values()) <= LARGEST / 4


def changed(form: DeployNet, name: str, factor: float) -> DeployNet:
    with torch.no_grad():
        form.get_parameter(name).mul_(factor)
    return form


def test_what_float16_cannot_hold_is_refused_in_one_line() -> None:
    form = deploy_form(formula_net())
    with pytest.raises(UserError, match=r"weight head\.cls_x\.weight exceeds 65504; export in fp32"):
        in_half(changed(copy.deepcopy(form), "head.cls_x.weight", 1e6))
    with pytest.raises(UserError, match=r"head\.final_layer computes .*, beyond 65504; export in fp32"):
        in_half(changed(copy.deepcopy(form), "head.final_layer.weight", 1e5))
    broken = formula_net()
    with torch.no_grad():
        broken.get_parameter("backbone.stage2.0.bn.bias").fill_(torch.nan)
    with pytest.raises(UserError, match=r"backbone\.stage2 gives values that are not finite"):
        deploy_form(broken)


def test_crops_are_measured_beside_the_calibration_images() -> None:
    bright = 200 * noise(1)
    assert deploy_form(formula_net(), bright).powers["backbone.stem"] == 1
    assert deploy_form(formula_net(), 100 * bright).powers["backbone.stem"] > 1


def test_calibration_shows_noise_and_the_strongest_image() -> None:
    images = calibration(SIZE)
    assert images.shape == (2 * CALIBRATION, 3, 128, 96) and torch.equal(images, calibration(SIZE))
    assert images[:CALIBRATION].std().sub(1).abs() < 0.01
    assert all(part.unique().numel() == 2 for part in images[CALIBRATION:].unbind(1))


class Operations(nn.Module):
    """Overflows, underflows and writes in place."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * x, torch.relu_(x * 0.001), (x * x).float() + 1


def test_the_emulation_rounds_each_operation() -> None:
    x = torch.tensor([300.0, 255.0, 1 / 3, 2.0**-9]).half()
    large, small, sums = Operations()(x)
    output, ranges = emulated(Operations(), x)
    assert torch.equal(output[0], large) and torch.equal(output[1], small) and torch.equal(output[2], sums)
    assert large[0] == torch.inf and sums[0] == torch.inf and 0 < small[3] < TINY
    assert ranges[""].largest == 90000 and ranges[""].small == 4 and ranges[""].count == 16
    flushed, _ = emulated(Operations(), x, flush=True)
    assert flushed[0][3] == 0 and flushed[1][3] == 0 and flushed[1][0] == small[0]
    digits = rounded_alone(Operations(), x.float())
    assert digits[0][0] == 89984 and digits[1][3] > 0
