"""A network cut to a smaller size is an ordinary one of that size; cut to its own it stays bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtmpose.config import Architecture
from rtmpose.files import UserError
from rtmpose.models import PoseNet, build_pose_net
from rtmpose.models.cspnext import Block, ConvNormAct, CSPNeXt
from rtmpose.models.shapes import shapes_of
from rtmpose.pruning.cut import best, cut, summed
from rtmpose.pruning.run import pruned
from rtmpose.pruning.scores import norm_scores, taylor_scores

SIZE = (64, 64)
HEADS: dict[str, dict[str, Any]] = {
    "simcc": {},
    "without attention": {"gau": False, "kernel": 3},
    "heatmap": {"head": "heatmap", "hidden": 16},
    "plain": {"head": "simcc_plain", "kernel": 3},
    "deconv": {"head": "simcc_deconv", "hidden": 16},
    "hardswish": {"activation": "hardswish"},
}


def net(size: str, **options: Any) -> PoseNet:
    """A network whose norms are all unlike, as training leaves them; in evaluation mode."""
    torch.manual_seed(0)
    model = build_pose_net(size, input_size=SIZE, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.2, 2.0),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                assert values is not None
                nn.init.uniform_(values, low, high)
    return model.eval()


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def outputs(model: PoseNet) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        found = model(images())
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_a_cut_to_the_same_size_changes_no_bit(options: dict[str, Any]) -> None:
    source, same = net("t", **options), build_pose_net("t", input_size=SIZE, **options).eval()
    cut(source, same, norm_scores(source))
    assert all(map(torch.equal, source.state_dict().values(), same.state_dict().values()))
    assert all(map(torch.equal, outputs(source), outputs(same)))


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_what_is_left_is_a_network_of_the_smaller_size(options: dict[str, Any]) -> None:
    source = net("s", **options)
    smaller = pruned(source, Architecture.model_validate({"size": "s"} | options), "t", norm_scores(source))
    found = shapes_of(smaller.state_dict())
    assert found.architecture.size == "t" and found.num_keypoints == 17
    assert all(bool(axis.isfinite().all()) for axis in outputs(smaller))


def widened(small: PoseNet) -> PoseNet:
    """An s network that computes exactly what the t network `small` does: its channels and blocks spread
    among others that give 0, and whose norms score 0.
    """
    large = build_pose_net("s", input_size=SIZE).eval()
    state = {key: torch.zeros_like(value) for key, value in large.state_dict().items()}
    for key, value in small.state_dict().items():
        at = key.replace(".blocks.0.", ".blocks.1.") if _deeper(key) else key
        state[at][_places(state[at].shape, value.shape, at)] = value
    for key, value in state.items():
        if key.endswith("running_var"):
            value[value == 0] = 1.0
    large.load_state_dict(state)
    return large


def _deeper(key: str) -> bool:
    """Whether a weight lies in a stage that has two blocks in s and one in t."""
    return key.startswith(("backbone.stage2", "backbone.stage3"))


def _places(large: torch.Size, small: torch.Size, key: str) -> tuple[Tensor, ...]:
    """Where a weight's numbers go: every axis' last places, those of joined maps each in its own part."""
    places = []
    for axis, (more, less) in enumerate(zip(large, small, strict=True)):
        joined = 4 if ".conv2.conv" in key and key.startswith("backbone.stage4.1") and axis == 1 else 1
        if ("attention.fc" in key and axis < 2) or (".final_conv.conv" in key and axis == 1):
            joined = 2
        part, kept = more // joined, less // joined
        ranges = [torch.arange(number * part + part - kept, (number + 1) * part) for number in range(joined)]
        places.append(torch.cat(ranges))
    return torch.meshgrid(*places, indexing="ij") if places else ()


def test_channels_that_give_nothing_are_those_that_go() -> None:
    """The strictest test of a consistent cut: nothing may go astray in any layer."""
    small = net("t")
    large = widened(small)
    torch.testing.assert_close(outputs(large), outputs(small), rtol=1e-4, atol=1e-6)
    again = pruned(large, Architecture(size="s"), "t", norm_scores(large))
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in small.state_dict().items())


def test_a_block_behind_a_shortcut_goes_by_its_last_norm() -> None:
    source = net("s")
    assert isinstance(source.backbone, CSPNeXt)
    blocks = source.backbone.get_submodule("stage2.1.blocks")
    first = blocks.get_submodule("0.conv2.pointwise_conv.bn.weight".rpartition(".")[0])
    nn.init.constant_(first.weight, 1e-3)  # type: ignore[arg-type]
    smaller = pruned(source, Architecture(size="s"), "t", norm_scores(source))
    kept = smaller.state_dict()["backbone.stage2.1.blocks.0.conv2.pointwise_conv.bn.weight"]
    assert float(kept.min()) > 1e-2, "the second block is left"


def test_taylor_scores_are_the_squared_change_to_first_order() -> None:
    source = net("t")
    before = copy.deepcopy(source.state_dict())

    def loss(model: PoseNet) -> Tensor:
        return sum((axis * axis).mean() for axis in model(images()))

    found = taylor_scores(source, [loss])
    assert all(map(torch.equal, before.values(), source.state_dict().values())) and not source.training
    # One norm by differences of the loss: γ and β of a channel a little nearer to 0.
    name, step = "backbone.stage4.2.final_conv", 1e-3
    layer = source.get_submodule(name)
    assert isinstance(layer, ConvNormAct)
    double = copy.deepcopy(source).double()
    gate = [double.get_parameter(f"{name}.bn.{each}") for each in ("weight", "bias")]
    wide = images().double()
    with torch.no_grad():
        changes = []
        for sign in (1 + step, 1 - step):
            for values in gate:
                values[5] *= sign
            changes.append(float(sum((axis * axis).mean() for axis in double(wide))))
            for values in gate:
                values[5] /= sign
    slope = (changes[0] - changes[1]) / (2 * step)
    assert float(found[name][5]) == pytest.approx(slope**2, rel=1e-2)


def test_scores_that_go_together_are_shares_of_their_own_mean() -> None:
    assert summed([torch.tensor([1.0, 3.0]), torch.tensor([300.0, 100.0])]).tolist() == [2.0, 2.0]
    assert best(torch.tensor([3.0, 1.0, 2.0, 4.0]), 2, "x").tolist() == [0, 3]


def test_what_cannot_be_cut_is_one_line() -> None:
    source = net("t")
    with pytest.raises(UserError, match=r"^--to t: the weights are of that size already"):
        pruned(source, Architecture(size="t"), "t", norm_scores(source))
    with pytest.raises(UserError, match=r"^prune: backbone\.stem\.0 has 12 channels .* has 16; [^\n]*$"):
        pruned(source, Architecture(size="t"), "s", norm_scores(source))
    necked = build_pose_net("s", input_size=SIZE, neck="rtmw")
    with pytest.raises(UserError, match="neck rtmw cannot be cut"):
        pruned(necked, Architecture(size="s", neck="rtmw"), "t", norm_scores(necked))
    assert isinstance(necked.get_submodule("backbone.stage2.1.blocks.0"), Block)
