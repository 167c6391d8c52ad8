"""The network that is exported: what the trained one computes, in a form whose every value fits float16.

Float16 ends at 65,504, and numbers below 2⁻¹⁴ lose digits or are flushed to zero. Three changes keep the
values between, and none changes the result by more than float32 rounds it:

1. **Norms** divide by the largest value first, so that their squares lie in [0, 1]. The root mean square is
   sqrt(mean(y·y)): one runtime executes ONNX's ReduceL2 wrongly.
2. **The attention** works on shares: queries, keys, values and scores are each divided by their largest. What
   was divided out is one number for each point. It passes through the output layers, which have no bias, and
   is multiplied at the end, in float32.
3. **One power of two for each stage**: a stage whose values come near the limit is computed in units of that
   power. It is folded into the weights, exactly, and the next layer takes it out again.

The powers come from the largest outputs of each stage's layers over a few calibration images (`calibration`),
computed in float32. A stage gets a power when its largest output is

- above 4,096, which leaves a factor of 16 for images that excite it more;
- below 1/16, where a thousandth of it would no longer be a normal number;

or when the weights that bring values into its units are so small that many would not be normal numbers. Else
the power is 1 and costs nothing. A pyramid joins stages, which must then be in the same units: networks with
a neck have powers behind the head's norms only.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtmpose.deploy.layers import (
    ChannelGate,
    ConvAct,
    Gate,
    ShareHead,
    ShareTwoLevelHead,
    ceiling_power,
    folded,
    wide,
)
from rtmpose.deploy.ranges import LARGEST, emulated
from rtmpose.files import UserError
from rtmpose.models import MEAN, STD, PoseNet, PoseOutput
from rtmpose.models.cspnext import ChannelAttention, ConvNormAct, CSPNeXt
from rtmpose.models.heads.heatmap import HeatmapHead
from rtmpose.models.heads.plain_simcc import PlainSimCCHead
from rtmpose.models.heads.rtmw import RTMWHead
from rtmpose.models.heads.simcc import SimCCHead
from rtmpose.models.hrnet import HRNet
from rtmpose.models.pose_net import features_of
from rtmpose.models.resnet import ResNet50

HIGH, LOW = 4096.0, 1 / 16  # a stage whose largest value lies between is computed as it is
Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
LEAST_WEIGHT = 2.0**-8  # root mean square of a layer's weights: a sixty-fourth of it is a normal number
LEAST_POWER = 2.0**-16  # the norms' eps in units of it, over the smallest largest value, is below 65,504
CALIBRATION = 4  # images of each kind


class DeployNet(nn.Module):
    """A trained network as it is exported: float32 images (N, 3, H, W) in, float32 outputs of the trained
    network's kind out, whatever it computes in between: `half` computes in float16.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        input_size: tuple[int, int],
        neck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.input_size = input_size
        self.powers: dict[str, float] = {}  # of each part
        self.power = 1.0  # what the head's outputs are divided by

    def forward(self, images: Tensor) -> PoseOutput:
        dtype = next(self.parameters()).dtype
        images = images if images.dtype == dtype else images.to(dtype)
        output = self.head(features_of(self.backbone, self.neck, images))
        if isinstance(output, tuple):
            x, y = output
            return self._unscaled(x), self._unscaled(y)
        return self._unscaled(output)

    def _unscaled(self, x: Tensor) -> Tensor:
        return wide(x) if self.power == 1 else wide(x) * self.power


@dataclass(frozen=True)
class Part:
    """Layers whose outputs are divided by one power of two; `entries` are those that read the part before, or
    for a part that `restarts` what a norm has freed of its power.
    """

    name: str
    layers: tuple[Layer, ...]
    entries: tuple[Layer, ...]
    gates: tuple[Gate, ...] = ()
    restarts: bool = False


@torch.no_grad()
def deploy_form(model: PoseNet, crops: Tensor | None = None) -> DeployNet:
    """`model`, which stays as it is, in the form that is exported; in its precision, in evaluation mode.

    crops: normalised float32 (N, 3, H, W), measured beside `calibration`'s images. Outputs are within 1e-5 of
    the largest output of `model`'s. UserError for a network whose values are not finite even in float32.
    """
    source = copy.deepcopy(model).cpu().eval().double()  # so that folding rounds once
    fold_norms(source)
    form = DeployNet(source.backbone, _shared(source.head), model.input_size, source.neck).eval()
    form.to(next(model.parameters()).dtype)
    images = calibration(model.input_size)
    _carry(form, torch.cat((images, crops.float())) if crops is not None else images)
    return form.requires_grad_(False)


def _shared(head: nn.Module) -> nn.Module:
    """A head on shares, where it has norms."""
    if isinstance(head, RTMWHead):
        return ShareTwoLevelHead(head)
    return ShareHead(head) if isinstance(head, SimCCHead) else head


def in_half(form: DeployNet) -> DeployNet:
    """A copy that computes in float16; UserError where a weight, or a value that it computes from an image of
    each kind of `calibration`, does not fit into it.
    """
    half = copy.deepcopy(form).half()
    for name, weight in half.named_parameters():
        if not weight.isfinite().all():
            raise UserError(f"fp16 export: the weight {name} exceeds {LARGEST:.0f}; export in fp32")
    for name, found in emulated(half, calibration(form.input_size)[::CALIBRATION])[1].items():
        if found.largest > LARGEST:
            raise UserError(
                f"fp16 export: {name} computes {found.largest:.3g}, beyond {LARGEST:.0f}; export in fp32"
            )
    return half


def calibration(input_size: tuple[int, int]) -> Tensor:
    """Images (8, 3, H, W) for an input_size (w, h) px, always the same: noise, and large patches of black and
    white in each channel, the strongest input that an image can be.
    """
    width, height = input_size
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(CALIBRATION, 3, height, width, generator=random)
    coins = torch.rand(CALIBRATION, 3, height // 32, width // 32, generator=random) < 0.5
    patches = F.interpolate(coins.float() * 255, size=(height, width), mode="nearest")
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return torch.cat((noise, (patches - mean) / std))


def parts(form: DeployNet) -> Iterator[Part]:
    """The network's stages in the order in which they compute, each with the power of two it may need."""
    head = form.head
    if isinstance(head, ShareTwoLevelHead):
        halves = (head.mlp, head.mlp2)
        yield Part("head.mlp", halves, halves, restarts=True)
        yield from _attention_parts(head)
        return
    yield from _backbone_parts(form.backbone)
    if isinstance(head, ShareHead):
        yield _part("head.final_layer", head.final_layer)
        yield _part("head.mlp", head.mlp, restarts=True)
        yield from _attention_parts(head)
    elif isinstance(head, HeatmapHead):
        yield from _deconvolutions(head, "head")
    else:
        assert isinstance(head, PlainSimCCHead)
        if isinstance(head.deconv_head, HeatmapHead):
            yield from _deconvolutions(head.deconv_head, "head.deconv_head")
        else:
            yield _part("head.final_layer", head.final_layer)
        outputs = (head.mlp_head_x, head.mlp_head_y)
        yield Part("head.mlp_head", outputs, outputs)


def _attention_parts(head: ShareHead) -> Iterator[Part]:
    if head.gau is not None:
        yield Part("head.gau.uv", (head.gau.uv,), (head.gau.uv,), (head.gau.act,), restarts=True)
        yield _part("head.gau.o", head.gau.o, restarts=True)
    outputs = (head.cls_x, head.cls_y)
    yield Part("head.cls", outputs, outputs, restarts=head.gau is not None)


def _backbone_parts(backbone: nn.Module) -> Iterator[Part]:
    if isinstance(backbone, CSPNeXt):
        for name, stage in backbone.named_children():
            yield _stage(f"backbone.{name}", stage, stage.get_submodule("0.conv"))
    elif isinstance(backbone, HRNet):
        yield from _branches(backbone)
    else:
        assert isinstance(backbone, ResNet50)
        yield _part("backbone.conv1", backbone.conv1)
        for name in ("layer1", "layer2", "layer3", "layer4"):
            stage = backbone.get_submodule(name)
            entries = (stage.get_submodule("0.conv1"), stage.get_submodule("0.downsample.0"))
            yield _stage(f"backbone.{name}", stage, *entries)


def _branches(backbone: HRNet) -> Iterator[Part]:
    """The stem and the first stage, one after another; then all branches together: they are added up, so that
    they need one power.
    """
    yield _part("backbone.conv1", backbone.conv1)
    yield _part("backbone.conv2", backbone.conv2)
    first = (backbone.layer1.get_submodule("0.conv1"), backbone.layer1.get_submodule("0.downsample.0"))
    yield _stage("backbone.layer1", backbone.layer1, *first)
    branches = nn.ModuleList(
        module for name, module in backbone.named_children() if name.startswith(("transition", "stage"))
    )
    entries = (backbone.get_submodule("transition1.0.0"), backbone.get_submodule("transition1.1.0.0"))
    yield _stage("backbone.branches", branches, *entries)


def _deconvolutions(head: HeatmapHead, name: str) -> Iterator[Part]:
    for index, layer in head.deconv_layers.named_children():
        if isinstance(layer, nn.ConvTranspose2d):
            yield _part(f"{name}.deconv_layers.{index}", layer)
    yield _part(f"{name}.final_layer", head.final_layer)


def _part(name: str, layer: nn.Module, restarts: bool = False) -> Part:
    return Part(name, _layers(layer), _layers(layer), restarts=restarts)


def _stage(name: str, stage: nn.Module, *entries: nn.Module) -> Part:
    gates = tuple(module for module in stage.modules() if isinstance(module, Gate))
    return Part(name, _layers(*stage.modules()), _layers(*entries), gates)


def _layers(*modules: nn.Module) -> tuple[Layer, ...]:
    return tuple(module for module in modules if isinstance(module, Layer))


def _carry(form: DeployNet, images: Tensor) -> None:
    """Divide each part by its power of two: weights, biases, and what depends on the units of its input."""
    powers, before = form.powers, 1.0
    for part, largest in _largest_outputs(form, images):
        source = 1.0 if part.restarts else before
        rms = min(float(layer.weight.double().square().mean().sqrt()) for layer in part.entries)
        peak = max(float(layer.weight.abs().max()) for layer in part.entries)
        power = powers[part.name] = power_for(largest, rms * source, peak * source)
        for layer in part.layers:
            layer.weight.mul_((source if layer in part.entries else power) / power)
            if layer.bias is not None:
                layer.bias.div_(power)
        for gate in part.gates:
            gate.power = power
        before = power
    form.power = before
    if isinstance(form.head, ShareHead):
        form.head.norm.eps /= powers.get("head.final_layer", 1.0)
        if form.head.gau is not None:
            form.head.gau.carry(*(powers[f"head.{name}"] for name in ("mlp", "gau.uv", "gau.o")))


def _largest_outputs(form: DeployNet, images: Tensor) -> list[tuple[Part, float]]:
    """Each part with the largest |value| that its layers give over `images`."""
    found: dict[nn.Module, float] = {}

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        value = float(output.abs().max())  # of a NaN, no comparison is true
        found[layer] = max(found.get(layer, 0.0), value if math.isfinite(value) else math.inf)

    divided = list(parts(form))
    hooks = [layer.register_forward_hook(note) for part in divided for layer in part.layers]
    for image in images.split(1):
        form(image)
    for hook in hooks:
        hook.remove()
    largest = [(part, max(found[layer] for layer in part.layers)) for part in divided]
    for part, value in largest:
        if not math.isfinite(value):
            raise UserError(f"export: {part.name} gives values that are not finite; train the model again")
    return largest


def power_for(largest: float, rms: float, peak: float) -> float:
    """The power of two that a part is divided by: `largest` is its largest value, `rms` and `peak` are the
    root mean square and the largest of its first weights.
    """
    least = ceiling_power(max(largest, peak) / HIGH)  # a smaller one takes them too near to the limit
    most = 1.0
    if 0 < largest < LOW:
        most = ceiling_power(largest)
    if 0 < rms < LEAST_WEIGHT:
        most = min(most, ceiling_power(rms / LEAST_WEIGHT))
    return max(least, most, LEAST_POWER)


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm of a network in evaluation mode into the convolution before it, in place."""
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for name, child in children:
            if isinstance(child, ConvNormAct):
                setattr(parent, name, ConvAct(child))
            elif isinstance(child, ChannelAttention):
                setattr(parent, name, ChannelGate(child))
        if isinstance(parent, ConvNormAct):
            continue
        for (name, layer), (other, norm) in pairwise(children):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, folded(layer, norm))
                setattr(parent, other, nn.Identity())
