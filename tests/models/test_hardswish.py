"""CSPNeXt with hard-swish in the place of SiLU: what it computes, and that weights of both are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from rtmpose.config import Architecture
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.export import export_onnx
from rtmpose.files import UserError
from rtmpose.models import PoseNet, build_pose_net, load_exactly, load_weights, save_tensors
from rtmpose.models.cspnext import ConvNormAct
from tests.models.support import fill
from tests.support import det_input

SIZE = (64, 96)
MARKER = "backbone.hardswish"


def net(activation: str = "hardswish", neck: str | None = None) -> PoseNet:
    return fill(build_pose_net("t", input_size=SIZE, activation=activation, neck=neck))


def images(count: int = 2) -> Tensor:
    return torch.from_numpy(det_input((count, 3, SIZE[1], SIZE[0])))


class ByDefinition(nn.Module):
    """x·relu6(x + 3) / 6, as the paper on MobileNetV3 writes it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.clamp(x + 3, 0, 6) / 6


@pytest.mark.parametrize("neck", [None, "rtmw"])
@torch.inference_mode()
def test_hard_swish_follows_every_convolution(neck: str | None) -> None:
    model = net(neck=neck).double()
    found = [output.clone() for output in model(images().double())]
    layers = [module for module in model.modules() if isinstance(module, ConvNormAct)]
    assert len(layers) > 30
    for layer in layers:
        layer.activation = ByDefinition()
    for ours, expected in zip(found, model(images().double()), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    plain = net("silu", neck=neck).double()(images().double())
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(found, plain, strict=True))


def test_a_file_of_one_kind_is_not_taken_for_the_other(tmp_path: Path) -> None:
    """Shapes are equal, so nothing else would tell."""
    kinds = {activation: net(activation) for activation in ("silu", "hardswish")}
    assert kinds["hardswish"].state_dict().keys() - kinds["silu"].state_dict().keys() == {MARKER}
    for activation, model in kinds.items():
        save_tensors(tmp_path / f"{activation}.pth", {"state_dict": model.state_dict()})
        load_exactly(net(activation), tmp_path / f"{activation}.pth")
    with pytest.raises(UserError, match=rf"missing.*{MARKER}"):
        load_exactly(kinds["hardswish"], tmp_path / "silu.pth")
    for load in (load_exactly, load_weights):  # training of one kind cannot go on from it, either
        with pytest.raises(UserError, match=r"trained with hard-swish; set model\.activation to hardswish"):
            load(kinds["silu"], tmp_path / "hardswish.pth")
    start = load_weights(kinds["hardswish"], tmp_path / "silu.pth", prefix="backbone.")
    assert start.missing == (MARKER,) and not start.wrong_shape  # published weights are a start
    assert str(start) == "They were trained with SiLU, and go on with hard-swish."


def test_an_exported_file_computes_it_and_says_so(tmp_path: Path) -> None:
    model = net().eval()
    card = ModelCard.of(Architecture(size="t", activation="hardswish"), SIZE, "coco17")
    path = export_onnx(model, SIZE, tmp_path / "h.onnx", card=card)
    operations = [node.op_type for node in onnx.load(str(path)).graph.node]
    assert operations.count("HardSwish") == sum(isinstance(one, ConvNormAct) for one in model.modules())
    assert operations.count("Sigmoid") == 1  # the head's attention, which keeps SiLU
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = model(images())
    for ours, theirs in zip(session.run(None, {"input": images().numpy()}), expected, strict=True):
        assert np.abs(np.asarray(ours) - theirs.numpy()).max() <= 1e-5 * theirs.abs().max()
    written = ModelCard.from_properties(
        {each.key: each.value for each in onnx.load(str(path)).metadata_props}, path
    )
    assert written.activation == "hardswish" and MARKER in written.network().state_dict()


def test_a_backbone_without_it_is_refused() -> None:
    with pytest.raises(UserError, match="hardswish goes with backbone cspnext, not with resnet50"):
        build_pose_net("t", "simcc_plain", input_size=SIZE, backbone="resnet50", activation="hardswish")
    with pytest.raises(UserError, match="'relu' is none of silu, hardswish"):
        build_pose_net("t", input_size=SIZE, activation="relu")
