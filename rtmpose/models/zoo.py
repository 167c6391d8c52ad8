"""Networks by their parameters: which backbone and head make an RTMPose of a size, or one of its ablations
and baselines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from rtmpose.files import UserError
from rtmpose.models.cspnext import SIZES, STRIDE, CSPNeXt, use_hardswish
from rtmpose.models.heads.heatmap import HeatmapHead
from rtmpose.models.heads.plain_simcc import PlainSimCCHead
from rtmpose.models.heads.rtmw import RTMWHead
from rtmpose.models.heads.simcc import SimCCHead
from rtmpose.models.hrnet import WIDTHS, HRNet
from rtmpose.models.pose_net import PoseNet
from rtmpose.models.pyramid import Pyramid
from rtmpose.models.resnet import ResNet50

if TYPE_CHECKING:
    from rtmpose.config import Activation, Architecture, Backbone, Head, Neck

HEADS: tuple[Head, ...] = ("simcc", "simcc_plain", "simcc_deconv", "heatmap")
BACKBONES: tuple[Backbone, ...] = ("cspnext", "resnet50", "hrnet_w32", "hrnet_w48")
NECKS: tuple[Neck | None, ...] = (None, "rtmw")
ACTIVATIONS: tuple[Activation, ...] = ("silu", "hardswish")
PYRAMID = (256, 512, 1024)  # channels of the full network's levels that a pyramid mixes
PYRAMID_BLOCKS = 2  # in each of its layers, in networks of every size


def build_model(
    model: Architecture,
    num_keypoints: int,
    input_size: tuple[int, int],
    *,
    pretrain_hidden: int | None = None,
) -> PoseNet:
    """The network that parameters describe, or with `pretrain_hidden` its backbone under the heatmap head of
    that width that it is pretrained with. Arguments and errors as `build_pose_net` has them.
    """
    head, hidden = (model.head, model.hidden) if pretrain_hidden is None else ("heatmap", pretrain_hidden)
    return build_pose_net(
        model.size,
        head,
        num_keypoints,
        input_size,
        backbone=model.backbone,
        kernel=model.kernel,
        hidden=hidden,
        gau=model.gau,
        neck=model.neck if pretrain_hidden is None else None,
        activation=model.activation,
    )


def build_pose_net(
    size: str,
    head: str = "simcc",
    num_keypoints: int = 17,
    input_size: tuple[int, int] = (192, 256),
    *,
    backbone: str = "cspnext",
    kernel: int = 7,
    hidden: int = 256,
    gau: bool = True,
    neck: str | None = None,
    activation: str = "silu",
) -> PoseNet:
    """An RTMPose network with fresh weights (RTMPose section 3; the sizes t, s, m, l, x of its Table 6).

    Forward takes RGB normalised float images (N, 3, H, W), (W, H) = `input_size` in px, and returns the SimCC
    logits (x (N, K, 2W), y (N, K, 2H)), or with `head="heatmap"` heatmaps (N, K, H/4, W/4). `hidden` is the
    head's width (the channels of the heatmap head's deconvolutions), `kernel` and `gau` are the ablations of
    the SimCC head. The baselines are `head="simcc_plain"` (SimCC without upsampling), `"simcc_deconv"` (with)
    and `backbone="resnet50"`, `"hrnet_w32"` and `"hrnet_w48"`, which have no sizes. HRNet's maps have a
    quarter of the input's size by themselves: its heatmap head has no deconvolutions. `neck="rtmw"` is RTMW's
    (arXiv 2407.08634): a pyramid over three levels, and a head that reads two of them. With
    `activation="hardswish"` CSPNeXt and its neck have hard-swish in the place of SiLU. Raises `UserError` for
    values that make no network.
    """
    _check(size, head, num_keypoints, input_size, backbone, kernel, hidden)
    _check_activation(activation, backbone)
    if neck is not None:
        _check_neck(neck, head, backbone, hidden)
        net = _with_pyramid(size, num_keypoints, input_size, kernel, hidden, gau)
    else:
        features = _backbone(backbone, size)
        layers = _head(features, head, num_keypoints, input_size, kernel, hidden, gau)
        net = PoseNet(features, layers, num_keypoints, input_size)
    if activation == "hardswish":
        use_hardswish(net)
    return net


def _head(
    features: CSPNeXt | ResNet50 | HRNet,
    head: str,
    num_keypoints: int,
    input_size: tuple[int, int],
    kernel: int,
    hidden: int,
    gau: bool,
) -> nn.Module:
    stride = features.stride if isinstance(features, HRNet) else STRIDE
    if head == "heatmap":
        return HeatmapHead(features.channels, num_keypoints, hidden if stride == STRIDE else None)
    if head == "simcc":
        return SimCCHead(features.channels, num_keypoints, input_size, stride, kernel, hidden, gau)
    upsample = hidden if head == "simcc_deconv" else None
    return PlainSimCCHead(features.channels, num_keypoints, input_size, stride, kernel, upsample)


def _backbone(backbone: str, size: str) -> CSPNeXt | ResNet50 | HRNet:
    if backbone in WIDTHS:
        return HRNet(backbone)
    return CSPNeXt(SIZES[size]) if backbone == "cspnext" else ResNet50()


def _with_pyramid(
    size: str, num_keypoints: int, input_size: tuple[int, int], kernel: int, hidden: int, gau: bool
) -> PoseNet:
    features = CSPNeXt(SIZES[size])
    neck = Pyramid([SIZES[size].channels(full) for full in PYRAMID], None, PYRAMID_BLOCKS)
    head = RTMWHead(features.channels, num_keypoints, input_size, STRIDE, kernel, hidden, gau)
    return PoseNet(features, head, num_keypoints, input_size, neck)


def check_names(size: str, head: str) -> None:
    """UserError for a size or head that there is not."""
    if size not in SIZES:
        raise UserError(f"model size: {size!r} is none of {', '.join(SIZES)}")
    if head not in HEADS:
        raise UserError(f"model head: {head!r} is none of {', '.join(HEADS)}")


def _check_activation(activation: str, backbone: str) -> None:
    if activation not in ACTIVATIONS:
        raise UserError(f"model activation: {activation!r} is none of {', '.join(ACTIVATIONS)}")
    if activation != "silu" and backbone != "cspnext":
        raise UserError(
            f"model activation: {activation} goes with backbone cspnext, not with {backbone}; set it to silu"
        )


def _check_neck(neck: str, head: str, backbone: str, hidden: int) -> None:
    if neck not in NECKS:
        raise UserError(f"model neck: {neck!r} is none of null, {', '.join(filter(None, NECKS))}")
    if backbone != "cspnext" or head != "simcc":
        raise UserError(
            f"model neck: {neck} goes with backbone cspnext and head simcc, not with {backbone} and {head}; "
            "set it to null"
        )
    if hidden % 2:
        raise UserError(f"model hidden: {hidden} must be even with neck {neck}, whose head joins two halves")


def _check(
    size: str,
    head: str,
    num_keypoints: int,
    input_size: tuple[int, int],
    backbone: str,
    kernel: int,
    hidden: int,
) -> None:
    check_names(size, head)
    if backbone not in BACKBONES:
        raise UserError(f"model backbone: {backbone!r} is none of {', '.join(BACKBONES)}")
    if backbone in WIDTHS and head == "simcc_deconv":
        raise UserError(
            f"model head: simcc_deconv enlarges maps that {backbone} has not made small; use heatmap, simcc "
            "or simcc_plain"
        )
    if len(input_size) != 2 or any(side < STRIDE or side % STRIDE for side in input_size):
        raise UserError(f"model input_size: {input_size} must be (width, height) in multiples of {STRIDE} px")
    if num_keypoints < 1 or hidden < 1:
        raise UserError(f"model num_keypoints and hidden: {num_keypoints} and {hidden} must be at least 1")
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"model kernel: {kernel} must be odd and positive, such as 7")
