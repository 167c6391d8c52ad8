"""What the stream gives to training. It needs torch alone, so that an update does, too."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """uint8 RGB images (B, H, W, 3), keypoints (B, K, 2) float32 in input px, weights (B, K) float32, the
    samples' keys, and what was wrong with the damaged ones, which are black and weigh nothing.
    """

    images: torch.Tensor
    keypoints: torch.Tensor
    weights: torch.Tensor
    keys: list[str]
    damaged: list[str]
