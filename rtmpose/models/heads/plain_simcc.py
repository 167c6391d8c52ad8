"""SimCC's own head, before RTMPose: each point's flattened map straight to the bins of both axes (arXiv
2107.03332, section 3). It is where the ladder of RTMPose's Table 1 begins. State-dict keys are those of
MMPose's `SimCCHead`.
"""

from __future__ import annotations

from torch import Tensor, nn

from rtmpose.models.heads.heatmap import HeatmapHead
from rtmpose.models.heads.simcc import SPLIT_RATIO

UPSAMPLING = 8  # of the three deconvolutions


class PlainSimCCHead(nn.Module):
    """(N, C, H/32, W/32) features -> SimCC logits x (N, K, 2W) and y (N, K, 2H).

    With `upsample` channels the maps come from a heatmap head of that width, at a quarter of the input's
    size; with None from one convolution of size `kernel` on the features as they are.
    """

    def __init__(
        self,
        channels: int,
        num_keypoints: int,
        input_size: tuple[int, int],
        stride: int,
        kernel: int,
        upsample: int | None,
    ) -> None:
        super().__init__()
        width, height = input_size
        cells = (width // stride) * (height // stride)
        self.deconv_head: nn.Module = nn.Identity()
        self.final_layer: nn.Module = nn.Identity()
        if upsample is None:
            self.final_layer = nn.Conv2d(channels, num_keypoints, kernel, padding=kernel // 2)
        else:
            self.deconv_head, cells = HeatmapHead(channels, num_keypoints, upsample), cells * UPSAMPLING**2
        self.mlp_head_x = nn.Linear(cells, width * SPLIT_RATIO)
        self.mlp_head_y = nn.Linear(cells, height * SPLIT_RATIO)
        self.apply(_initialise)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        points = self.final_layer(self.deconv_head(features)).flatten(2)  # (N, K, cells)
        return self.mlp_head_x(points), self.mlp_head_y(points)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.001 if isinstance(module, nn.Conv2d) else 0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
