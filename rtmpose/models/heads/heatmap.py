"""The heatmap head that the backbone is pretrained with (RTMPose section 3.2; layers of arXiv 1804.06208,
section 2).

State-dict keys and shapes are those of the official checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn


def _upsample(inputs: int, width: int) -> tuple[nn.Module, ...]:
    """Twice the height and width of the map, `width` channels."""
    return (
        nn.ConvTranspose2d(inputs, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


class HeatmapHead(nn.Module):
    """(N, C, H/32, W/32) features -> heatmaps (N, K, H/4, W/4); `width` channels in every deconvolution. With
    None there are none: the features have a quarter of the input's size already.
    """

    def __init__(self, channels: int, num_keypoints: int, width: int | None = 256) -> None:
        super().__init__()
        self.deconv_layers: nn.Module = nn.Identity()
        if width is not None:
            layers = (*_upsample(channels, width), *_upsample(width, width), *_upsample(width, width))
            self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(channels if width is None else width, num_keypoints, 1)
        self.apply(_initialise)

    def forward(self, features: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(features))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.001)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
