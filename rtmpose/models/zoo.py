"""Networks by their parameters: which backbone and head make an RTMPose of a size, or one of its ablations."""

from __future__ import annotations

from rtmpose.config import UserError
from rtmpose.models.cspnext import SIZES, STRIDE, CSPNeXt
from rtmpose.models.heatmap_head import HeatmapHead
from rtmpose.models.pose_net import PoseNet
from rtmpose.models.simcc_head import SimCCHead


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
