"""The heatmap head that the backbone is pretrained with (RTMPose section 3.2; layers of arXiv 1804.06208, section 2).

State-dict keys and shapes are those of the official checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn

WIDTH = 256  # channels of every deconvolution


def _upsample(inputs: int) -> tuple[nn.Module, ...]:
    """Twice the height and width, `WIDTH` channels."""
    return nn.ConvTranspose2d(inputs, WIDTH, 4, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)


class HeatmapHead(nn.Module):
    """(N, C, H/32, W/32) features -> heatmaps (N, K, H/4, W/4)."""

    def __init__(self, channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.deconv_layers = nn.Sequential(*_upsample(channels), *_upsample(WIDTH), *_upsample(WIDTH))
        self.final_layer = nn.Conv2d(WIDTH, num_keypoints, 1)
        self.apply(_initialise)

    def forward(self, features: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(features))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.001)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
