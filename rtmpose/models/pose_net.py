"""A backbone, perhaps a neck, and a head: the whole network, crop in, SimCC logits or heatmaps out; how its
input is normalised, and in which precision it runs.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

PoseOutput = tuple[Tensor, Tensor] | Tensor
Features = tuple[Tensor, Tensor] | Tensor
LEVELS_READ = 2  # of a neck, by the head
RGB = tuple[float, float, float]
#: Mean and standard deviation of the RGB channels in grey levels, which every network here is trained with:
#: those of ImageNet, as the published weights expect. An exported file's card names its own.
MEAN: RGB = (123.675, 116.28, 103.53)
STD: RGB = (58.395, 57.12, 57.375)
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Autocast to "bf16" or "fp16" on a kind of device, such as "cpu"; "fp32" changes nothing."""
    half = HALVES.get(precision)
    return torch.autocast(device, dtype=half or torch.bfloat16, enabled=half is not None)


def normalise(images: Tensor, mean: RGB = MEAN, std: RGB = STD) -> Tensor:
    """uint8 RGB crops (B, H, W, 3) to the network's input (B, 3, H, W), float32, (pixel - mean) / std per
    channel.

    The result is a view whose memory is still NHWC, that is `torch.channels_last`: convolutions need no copy
    of it.
    """
    batch, height, width, _ = images.shape
    # Whole rows of pixels at a time: broadcasting along an axis of 3 is a hundred times slower on a CPU.
    rows = images.reshape(batch, height, width * 3).float()
    rows.sub_(_row(mean, rows)).div_(_row(std, rows))
    return rows.view(batch, height, width, 3).permute(0, 3, 1, 2)  # (B, 3, H, W)


def _row(channels: RGB, rows: Tensor) -> Tensor:
    """The channels' values along one row of pixels (W * 3); filled on the device, for a copy would wait for
    it.
    """
    return torch.cat([rows.new_full((1,), value) for value in channels]).repeat(rows.shape[-1] // 3)


class PoseNet(nn.Module):
    """`backbone`, `neck` if there is one, then `head`; `input_size` (w, h) px and `num_keypoints` are kept
    for whoever feeds or exports it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        num_keypoints: int,
        input_size: tuple[int, int],
        neck: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.num_keypoints = num_keypoints
        self.input_size = input_size

    def forward(self, images: Tensor) -> PoseOutput:
        output: PoseOutput = self.head(self.features(images))
        return output

    def features(self, images: Tensor) -> Features:
        """What the head reads: the backbone's last map (N, C, H/32, W/32), or of a neck the levels it gives,
        the finest first and that one last.
        """
        return features_of(self.backbone, self.neck, images)


def features_of(backbone: nn.Module, neck: nn.Module | None, images: Tensor) -> Features:
    """See `PoseNet.features`; the exported form of a network is put together in the same way."""
    if neck is None:
        found: Features = backbone(images)
        return found
    fine, coarse = neck(backbone.levels(images))[-LEVELS_READ:]  # type: ignore[operator]  # CSPNeXt has them
    return fine, coarse
