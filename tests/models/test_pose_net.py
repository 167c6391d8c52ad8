"""The networks against the reference: keys, shapes, parameters, forward passes, initial values, half
precision.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtmpose.config import Activation, Backbone, Head
from rtmpose.files import UserError
from rtmpose.models import PoseNet, build_pose_net
from rtmpose.models.heads.simcc import GatedAttention, ScaleNorm, SimCCHead
from rtmpose.models.zoo import ACTIVATIONS, BACKBONES, HEADS
from tests.models.support import build_named, fill, golden_names, golden_shapes
from tests.support import SHARED, assert_golden, det_input, golden

PARAMETERS = {"t": 3_337_007, "s": 5_473_251, "m": 13_587_611, "l": 27_660_339}
NAMES = golden_names(r"state_dict_(.+)\.json")
DESCRIBED = SHARED / "golden" / "models.json"  # of all reference configurations


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_the_references(name: str) -> None:
    with torch.device("meta"):
        model = build_named(name)
    state = model.state_dict()
    assert [(key, tuple(value.shape)) for key, value in state.items()] == list(golden_shapes(name).items())
    if DESCRIBED.exists():
        facts = json.loads(DESCRIBED.read_text())[name]
        outputs = model(torch.zeros(1, 3, model.input_size[1], model.input_size[0], device="meta"))
        assert sum(p.numel() for p in model.parameters()) == facts["params_total"]
        shapes = [list(one.shape) for one in outputs] if isinstance(outputs, tuple) else list(outputs.shape)
        assert shapes == facts["output_shapes"]


def test_all_reference_networks_are_covered() -> None:
    if not DESCRIBED.exists():
        pytest.skip("../shared/golden/models.json is not on this machine")
    assert set(NAMES) == set(json.loads(DESCRIBED.read_text())) and len(NAMES) == 35


@pytest.mark.parametrize(("size", "count"), PARAMETERS.items())
def test_parameter_counts(size: str, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in build_pose_net(size).parameters()) == count


def test_x_has_its_published_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in build_pose_net("x", input_size=(288, 384)).parameters()) == 49_434_283


def test_batch_norm_constants() -> None:
    with torch.device("meta"):
        nets = build_pose_net("t"), build_pose_net("t", "heatmap")
    norms = [module for net in nets for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def reference_forward(name: str) -> tuple[Any, PoseNet, Tensor]:
    stored = np.load(golden(f"forward_{name}.npz"), allow_pickle=False)
    model = fill(build_named(name))
    width, height = model.input_size
    batch = len(stored["simcc_x"] if "simcc_x" in stored else stored["heatmaps"])
    images = torch.from_numpy(det_input((2, 3, height, width))[:batch])
    return stored, model, images


@torch.no_grad()
@pytest.mark.parametrize("name", golden_names(r"forward_(rtmpose.+)\.npz"))
def test_simcc_forward_is_the_reference(name: str) -> None:
    stored, model, images = reference_forward(name)
    gap = stored["f32_vs_f64_maxabs"]
    features: Tensor = model.backbone(images)
    scale = max(1.0, float(np.abs(stored["feat"]).max()))
    assert_golden(features[0] / scale, stored["feat"] / scale)
    for axis, logits in zip("xy", model(images), strict=True):
        assert_golden(logits, stored[f"simcc_{axis}"], gap)


@torch.no_grad()
@pytest.mark.parametrize("name", golden_names(r"forward_(rtmpose.+)\.npz"))
def test_simcc_forward_in_float64(name: str) -> None:
    stored, model, images = reference_forward(name)
    for axis, logits in zip("xy", model.double()(images.double()), strict=True):
        expected = stored[f"simcc_{axis}_f64"]
        assert_golden(logits[:, : expected.shape[1]] * 1e4, expected * 1e4)  # to 1e-8


@torch.no_grad()
@pytest.mark.parametrize("name", golden_names(r"forward_(cspnext.+)\.npz"))
def test_heatmap_forward_is_the_reference(name: str) -> None:
    stored, model, images = reference_forward(name)
    for actual, expected in (
        (model.backbone(images)[0], stored["feat"]),
        (model(images), stored["heatmaps"]),
    ):
        scale = float(np.abs(expected).max())
        assert_golden(actual / scale, expected / scale, stored["f32_vs_f64_maxabs"] / scale)


@torch.no_grad()
def test_heatmap_head_in_stages() -> None:
    """On any clone: every layer of the heatmap head in numpy-free terms, from the same weights,
    written out.
    """
    model = fill(build_pose_net("t", "heatmap", input_size=(64, 64))).double()
    features = torch.randn(1, 384, 2, 2, dtype=torch.float64)
    state = {key: value for key, value in model.state_dict().items() if key.startswith("head.")}
    x = features
    for index in (0, 3, 6):
        x = nn.functional.conv_transpose2d(
            x, state[f"head.deconv_layers.{index}.weight"], stride=2, padding=1
        )
        mean, var, gain, bias = (
            state[f"head.deconv_layers.{index + 1}.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        x = ((x - mean) / (var + 1e-5).sqrt() * gain + bias).clamp(min=0)
    expected = nn.functional.conv2d(x, state["head.final_layer.weight"], state["head.final_layer.bias"])
    assert expected.shape == (1, 17, 16, 16)
    torch.testing.assert_close(model.head(features), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", golden_names(r"init_stats_(.+)\.json"))
def test_initial_values_are_distributed_as_the_reference(name: str) -> None:
    torch.manual_seed(0)
    state = {key: value for key, value in build_named(name).state_dict().items() if value.is_floating_point()}
    expected = json.loads(golden(f"init_stats_{name}.json").read_text())
    assert expected.keys() == state.keys()
    for key, facts in expected.items():
        value, count = state[key].double(), state[key].numel()
        error = (
            6.0 * facts["std"] / count**0.5 + 1e-12
        )  # both are draws: their means differ by ~1.4 standard errors
        assert abs(float(value.mean()) - facts["mean"]) <= error, key
        assert abs(float(value.std(correction=0)) - facts["std"]) <= error, key
        if facts["std"] and count >= 1000:  # a normal reaches 3.5 sigma, a uniform stops at 1.73
            assert (float(value.abs().max()) > 2.5 * facts["std"]) == (facts["max"] > 2.5 * facts["std"]), key


def test_initial_values_of_the_heads() -> None:
    """On any clone: N(0, 1e-3) convolutions, N(0, 1e-2) linears, U(0, 1) gamma and beta, zero biases."""
    torch.manual_seed(0)
    model = build_pose_net("t")
    head = model.head
    assert not any(bool(value.any()) for key, value in model.state_dict().items() if key.endswith(".bias"))
    assert isinstance(head, SimCCHead) and isinstance(head.gau, GatedAttention)
    assert float(head.final_layer.weight.detach().std()) == pytest.approx(1e-3, rel=0.02)
    names = ("mlp.1", "gau.uv", "gau.o", "cls_x", "cls_y")
    for weight in (head.state_dict()[f"{name}.weight"] for name in names):
        assert float(weight.std()) == pytest.approx(1e-2, rel=0.05)
    for uniform in (head.gau.gamma, head.gau.beta):
        assert bool((uniform >= 0).all()) and bool((uniform <= 1).all())
        assert float(uniform.detach().mean()) == pytest.approx(0.5, abs=0.12)
    heatmap = build_pose_net("t", "heatmap").head.state_dict()
    assert float(heatmap["deconv_layers.0.weight"].std()) == pytest.approx(1e-3, rel=0.02)


def plain_scale_norm(x: Tensor, g: Tensor) -> Tensor:
    return x / (x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5).clamp(min=1e-5) * g


@pytest.mark.parametrize("magnitude", [0.0, 1e-9, 1e-5, 1.0, 1e5])
def test_scale_norm_is_the_plain_formula_with_its_gradient(magnitude: float) -> None:
    torch.manual_seed(1)
    norm = ScaleNorm().double()
    norm.g.data.fill_(1.3)
    base = torch.randn(3, 5, 48, dtype=torch.float64) * magnitude
    weight = torch.randn(3, 5, 48, dtype=torch.float64)
    outputs, gradients = [], []
    for function in (norm, lambda x: plain_scale_norm(x, norm.g)):
        x = base.clone().requires_grad_()
        outputs.append(function(x))
        gradients.append(torch.autograd.grad((outputs[-1] * weight).sum(), x)[0])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def plain_attention(gau: GatedAttention, x: Tensor) -> Tensor:
    """RTMPose equation 2 as the published weights need it (no 1/n), written without any scaling."""
    expanded = gau.expanded
    uv = nn.functional.silu(plain_scale_norm(x, gau.ln.g) @ gau.uv.weight.T)
    u, v, base = uv[..., :expanded], uv[..., expanded : 2 * expanded], uv[..., 2 * expanded :]
    q, k = base * gau.gamma[0] + gau.beta[0], base * gau.gamma[1] + gau.beta[1]
    kernel = torch.relu(torch.einsum("nis,njs->nij", q, k) / 128**0.5) ** 2
    return gau.res_scale.scale * x + (u * torch.einsum("nij,nje->nie", kernel, v)) @ gau.o.weight.T


@pytest.mark.parametrize("gain", [0.01, 1.0, 30.0])
def test_attention_is_the_plain_formula_with_its_gradient(gain: float) -> None:
    torch.manual_seed(2)
    gau = GatedAttention(64).double()
    gau.gamma.data.mul_(gain)
    gau.res_scale.scale.data.uniform_()
    base = torch.randn(2, 7, 64, dtype=torch.float64)
    weight = torch.randn(2, 7, 64, dtype=torch.float64)
    outputs, gradients = [], []
    for function in (gau, lambda x: plain_attention(gau, x)):
        x = base.clone().requires_grad_()
        outputs.append(function(x))
        gradients.append(torch.autograd.grad((outputs[-1] * weight).sum(), [x, gau.gamma, gau.uv.weight]))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-10, atol=1e-10)
    for mine, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-9, atol=1e-9 * float(plain.abs().max()))


@torch.no_grad()
def test_head_in_float16_keeps_its_accuracy() -> None:
    """Maps of norm 1e5 and attention scores of several hundred: their squares are far beyond float16's
    65,504.
    """
    torch.manual_seed(3)
    head = SimCCHead(64, 17, (192, 256), 32, kernel=7, hidden=256, gau=True)
    state = head.state_dict()
    for key, value in state.items():
        if value.ndim >= 2 and key.endswith("weight"):
            nn.init.normal_(value, std=value[0].numel() ** -0.5)
    nn.init.normal_(state["gau.gamma"], std=20.0)
    state["gau.o.weight"].mul_(1e-3)
    features = torch.randn(2, 64, 8, 6) * 1.2e4
    half, double = head.half(), SimCCHead(64, 17, (192, 256), 32, kernel=7, hidden=256, gau=True).double()
    double.load_state_dict(half.state_dict())
    features = features.half()
    assert bool(features.isfinite().all())
    maps = double.final_layer(features.double()).flatten(2)
    assert 6e4 < float(maps.norm(dim=-1).max()) < 3e5
    assert isinstance(double.gau, GatedAttention)
    scores = attention_scores(double.gau, double.mlp(maps))
    assert float(scores.max()) > 300  # squared: above 65,504
    for mine, expected in zip(half(features), double(features.double()), strict=True):
        assert mine.dtype == torch.float16 and bool(mine.isfinite().all())
        error = float((mine.double() - expected).norm() / expected.norm())
        assert error < 0.02, f"relative error {error:.3g}"


def attention_scores(gau: GatedAttention, x: Tensor) -> Tensor:
    base = nn.functional.silu(gau.uv(gau.ln(x)))[..., 2 * gau.expanded :]
    q, k = base * gau.gamma[0] + gau.beta[0], base * gau.gamma[1] + gau.beta[1]
    return q @ k.transpose(1, 2) / 128**0.5


@torch.no_grad()
def test_batch_size_memory_format_and_autocast_do_not_matter() -> None:
    model = fill(build_pose_net("t"))
    images = torch.from_numpy(det_input((3, 3, 256, 192)))
    expected = model(images)
    single = model(images[1:2])
    with torch.autocast("cpu", torch.bfloat16):
        low = model(images)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    features = model.backbone(images.contiguous(memory_format=torch.channels_last))
    assert features.is_contiguous(memory_format=torch.channels_last)
    last = model.head(features)
    for axis in (0, 1):
        torch.testing.assert_close(last[axis], expected[axis], rtol=0, atol=2e-4)
        torch.testing.assert_close(single[axis], expected[axis][1:2], rtol=0, atol=2e-4)
        assert float((low[axis].float() - expected[axis]).norm() / expected[axis].norm()) < 0.1


def test_exports_with_any_batch() -> None:
    model = fill(build_pose_net("t", input_size=(96, 128)))
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(model, (torch.zeros(2, 3, 128, 96),), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        for count in (1, 5):
            images = torch.randn(count, 3, 128, 96)
            for mine, expected in zip(program.module()(images), model(images), strict=True):
                torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


def test_options_of_the_simcc_head() -> None:
    images = torch.randn(2, 3, 128, 96)
    model = build_pose_net("t", num_keypoints=5, input_size=(96, 128), kernel=3, hidden=48, gau=False)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items() if key.startswith("head.")}
    assert shapes == {
        "head.final_layer.weight": (5, 384, 3, 3), "head.final_layer.bias": (5,), "head.mlp.0.g": (1,),
        "head.mlp.1.weight": (48, 12), "head.cls_x.weight": (192, 48), "head.cls_y.weight": (256, 48),
    }  # fmt: skip
    assert [tuple(one.shape) for one in model(images)] == [(2, 5, 192), (2, 5, 256)]
    gau = build_pose_net("t", input_size=(96, 128), hidden=48).state_dict()
    assert gau["head.gau.uv.weight"].shape == (2 * 96 + 128, 48) and gau["head.gau.o.weight"].shape == (
        48,
        96,
    )
    narrow = build_pose_net("t", "heatmap", 3, (96, 128), hidden=16)
    assert narrow(images).shape == (2, 3, 32, 24)
    assert narrow.state_dict()["head.deconv_layers.3.weight"].shape == (16, 16, 4, 4)


def test_training_reaches_every_parameter() -> None:
    for head in ("simcc", "heatmap"):
        torch.manual_seed(4)
        model = build_pose_net("t", head, input_size=(64, 64))
        outputs = model(torch.randn(2, 3, 64, 64))
        sum(one.square().sum() for one in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": "tiny"}, "size"),
        ({"head": "regression"}, "head"),
        ({"backbone": "vit"}, "backbone"),
        ({"input_size": (200, 256)}, "input_size"),
        ({"input_size": (0, 32)}, "input_size"),
        ({"num_keypoints": 0}, "num_keypoints"),
        ({"hidden": 0}, "hidden"),
        ({"kernel": 4}, "kernel"),
    ],
)
def test_impossible_networks_are_refused_in_one_line(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        build_pose_net(**{"size": "t", **options})
    assert "\n" not in str(caught.value)


def test_the_names_of_parameters_are_those_of_networks() -> None:
    assert get_args(Head) == HEADS and get_args(Backbone) == BACKBONES
    assert get_args(Activation) == ACTIVATIONS
