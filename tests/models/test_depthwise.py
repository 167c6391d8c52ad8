"""The depthwise convolution's own gradient: the same as PyTorch's, as exact in bf16, and used in bf16
training alone.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rtmpose.models import build_pose_net
from rtmpose.models.cspnext import DepthwiseConv, _Depthwise
from tests.models.support import fill
from tests.support import bf16_cpu

MAPS = [
    (1, 1),
    (1, 7),
    (2, 3),
    (3, 2),
    (5, 5),
    (8, 6),
    (9, 4),
]  # smaller, as large and larger than the kernel


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same values, differently in memory."""
    wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])
    wide[..., ::2] = x
    return {
        "contiguous": x.contiguous(),
        "channels-last": x.contiguous(memory_format=torch.channels_last),
        "every other": wide[..., ::2],
        "transposed": x.mT.contiguous().mT,
    }


def gradients(own: bool, x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """Output and the gradients of input and weight, by our convolution or by PyTorch's."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    if own:
        output = _Depthwise.apply(x, weight)
    else:
        output = nn.functional.conv2d(
            x, weight.to(x.dtype), padding=weight.shape[-1] // 2, groups=len(weight)
        )
    return output.detach(), *torch.autograd.grad(output, (x, weight), grad)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_it_is_the_convolution_with_its_gradient(rows: int, size: tuple[int, int], kernel: int) -> None:
    torch.manual_seed(0)
    x, grad = torch.randn(2, rows, 3, *size, dtype=torch.float64)
    weight = torch.randn(3, 1, kernel, kernel, dtype=torch.float64)
    expected = gradients(False, x, weight, grad)
    for name, each in layouts(x).items():
        for other, its in layouts(grad).items():
            for mine, theirs in zip(gradients(True, each, weight, its), expected, strict=True):
                torch.testing.assert_close(
                    mine, theirs, rtol=1e-12, atol=1e-12, msg=f"input {name}, gradient {other}"
                )


@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
def test_numerical_gradients(size: tuple[int, int]) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_Depthwise.apply, (x, weight))
    assert torch.autograd.gradcheck(lambda weight: _Depthwise.apply(x.detach(), weight), (weight,))
    assert torch.autograd.gradgradcheck(_Depthwise.apply, (x, weight))


def relative_error(actual: Tensor, exact: Tensor) -> float:
    return float((actual.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(
    ("rows", "size", "mean"), [(1, (8, 6), 0.0), (16, (8, 6), 0.0), (64, (8, 6), 1.0), (20, (9, 7), 0.0)]
)
def test_in_bf16_it_is_as_exact_as_the_plain_gradient(rows: int, size: tuple[int, int], mean: float) -> None:
    torch.manual_seed(1)
    x = (torch.randn(rows, 32, *size) + mean).bfloat16().contiguous(memory_format=torch.channels_last)
    weight, grad = torch.randn(32, 1, 5, 5) / 5, torch.randn_like(x)
    exact = gradients(False, x.double(), weight.bfloat16().double(), grad.double())
    plain, own = gradients(False, x, weight, grad), gradients(True, x, weight, grad)
    assert torch.equal(plain[0], own[0])
    assert own[2].dtype == torch.float32
    for mine, theirs, truth in zip(own, plain, exact, strict=True):
        assert relative_error(mine, truth) < 1.25 * relative_error(theirs, truth)


@bf16_cpu
def test_the_network_trains_with_it_in_bf16_alone() -> None:
    model = fill(build_pose_net("t", input_size=(96, 128)))
    layer = model.backbone.get_submodule("stage1.1.blocks.0.conv2.depthwise_conv.conv")
    assert (
        isinstance(layer, DepthwiseConv)
        and sum(isinstance(one, DepthwiseConv) for one in model.modules()) == 4
    )
    x = torch.randn(2, layer.in_channels, 9, 7)

    def way(x: Tensor) -> str:
        output = layer(x)
        return "nothing" if output.grad_fn is None else output.grad_fn.name()

    assert way(x.bfloat16()) == "_DepthwiseBackward"
    assert way(x) == "ConvolutionBackward0"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert way(x.bfloat16()) == "nothing"
    layer.weight.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert way(x.bfloat16().requires_grad_()) == "ConvolutionBackward0"


@bf16_cpu
def test_gradients_of_the_whole_network_are_those_of_bf16() -> None:
    """Ours in bf16 against float32, and PyTorch's in bf16 against float32: the same distance."""
    images = torch.randn(4, 3, 128, 96).contiguous(memory_format=torch.channels_last)
    found: dict[str, dict[str, Tensor]] = {}
    base = fill(build_pose_net("t", input_size=(96, 128))).train()
    for way in ("float32", "plain", "own"):
        model = copy.deepcopy(base)
        for module in model.modules():
            if way == "plain" and isinstance(module, DepthwiseConv):
                object.__setattr__(module, "__class__", nn.Conv2d)
        with torch.autocast("cpu", torch.bfloat16, enabled=way != "float32"):
            x, y = model(images)
        (x.float().square().sum() + y.float().square().sum()).backward()
        found[way] = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    names = [name for name in found["own"] if name.endswith("depthwise_conv.conv.weight")]
    assert len(names) == 4
    joined = {way: torch.cat([grads[name].flatten() for name in names]) for way, grads in found.items()}
    errors = {way: relative_error(joined[way], joined["float32"].double()) for way in ("plain", "own")}
    assert errors["own"] < 1.2 * errors["plain"], errors


@bf16_cpu
def test_exports_hold_the_plain_convolution() -> None:
    layer = DepthwiseConv(4, 4, 5, padding=2, groups=4, bias=False)
    program = torch.export.export(layer.bfloat16(), (torch.randn(1, 4, 6, 5).bfloat16(),))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["aten.conv2d.default"]


def test_every_depthwise_convolution_keeps_the_maps_size() -> None:
    """What its own gradient takes for granted."""
    found = [module for module in build_pose_net("m").modules() if isinstance(module, DepthwiseConv)]
    assert len(found) == 12
    for module in found:
        assert module.stride == (1, 1) and module.dilation == (1, 1) and module.bias is None
        assert (
            module.padding == (module.kernel_size[0] // 2,) * 2
            and module.kernel_size[0] == module.kernel_size[1]
        )
