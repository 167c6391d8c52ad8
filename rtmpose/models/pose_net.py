"""A backbone and a head: the whole network, crop in, SimCC logits or heatmaps out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtmpose.config import UserError
from rtmpose.models.cspnext import SIZES, STRIDE, CSPNeXt
from rtmpose.models.heatmap_head import HeatmapHead
from rtmpose.models.simcc_head import SimCCHead

PoseOutput = tuple[Tensor, Tensor] | Tensor
#: Mean and standard deviation of the RGB channels, in grey levels (those of ImageNet, as the published weights expect).
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def normalise(images: Tensor) -> Tensor:
    """uint8 RGB crops (B, H, W, 3) to the network's input (B, 3, H, W), float32, (pixel - mean) / std per channel.

    The result is a view whose memory is still NHWC, that is `torch.channels_last`: convolutions need no copy of it.
    """
    batch, height, width, _ = images.shape
    # Whole rows of pixels at a time: broadcasting along an axis of 3 is a hundred times slower on a CPU.
    rows = images.reshape(batch, height, width * 3).float()
    rows.sub_(_row(MEAN, rows)).div_(_row(STD, rows))
    return rows.view(batch, height, width, 3).permute(0, 3, 1, 2)  # (B, 3, H, W)


def _row(channels: tuple[float, float, float], rows: Tensor) -> Tensor:
    """The channels' values along one row of pixels (W * 3); filled on the device, for a copy would wait for it."""
    return torch.cat([rows.new_full((1,), value) for value in channels]).repeat(rows.shape[-1] // 3)


class PoseNet(nn.Module):
    """`backbone`, then `head`; `input_size` (w, h) px and `num_keypoints` are kept for whoever feeds or exports it."""

    def __init__(
        self, backbone: CSPNeXt, head: SimCCHead | HeatmapHead, num_keypoints: int, input_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_keypoints = num_keypoints
        self.input_size = input_size

    def forward(self, images: Tensor) -> PoseOutput:
        output: PoseOutput = self.head(self.backbone(images))
        return output


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
) -> PoseNet:
    """An RTMPose network with fresh weights (RTMPose section 3; the sizes t, s, m, l, x of its Table 6).

    Forward takes RGB normalised float images (N, 3, H, W), (W, H) = `input_size` in px, and returns the SimCC logits
    (x (N, K, 2W), y (N, K, 2H)), or with `head="heatmap"` heatmaps (N, K, H/4, W/4). `hidden` is the head's width (the
    channels of the heatmap head's deconvolutions), `kernel` and `gau` are the ablations of the SimCC head. Raises
    `UserError` for values that make no network.
    """
    _check(size, head, num_keypoints, input_size, backbone, kernel, hidden)
    features = CSPNeXt(SIZES[size])
    if head == "heatmap":
        return PoseNet(features, HeatmapHead(features.channels, num_keypoints, hidden), num_keypoints, input_size)
    simcc = SimCCHead(features.channels, num_keypoints, input_size, STRIDE, kernel, hidden, gau)
    return PoseNet(features, simcc, num_keypoints, input_size)


def _check(
    size: str, head: str, num_keypoints: int, input_size: tuple[int, int], backbone: str, kernel: int, hidden: int
) -> None:
    if size not in SIZES:
        raise UserError(f"model size: {size!r} is none of {', '.join(SIZES)}")
    if head not in ("simcc", "heatmap"):
        raise UserError(f"model head: {head!r} is neither 'simcc' nor 'heatmap'")
    if backbone != "cspnext":
        raise UserError(f"model backbone: {backbone!r} is unknown; use 'cspnext'")
    if len(input_size) != 2 or any(side < STRIDE or side % STRIDE for side in input_size):
        raise UserError(f"model input_size: {input_size} must be (width, height) in multiples of {STRIDE} px")
    if num_keypoints < 1 or hidden < 1:
        raise UserError(f"model num_keypoints and hidden: {num_keypoints} and {hidden} must be at least 1")
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"model kernel: {kernel} must be odd and positive, such as 7")
