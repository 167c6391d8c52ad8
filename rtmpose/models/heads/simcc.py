"""The SimCC head of RTMPose: each point's x and y as two classifications over sub-pixel bins.

RTMPose sections 3.2 and 3.4; SimCC, arXiv 2107.03332, section 3; gated attention unit, arXiv 2202.10447,
section 2. State-dict keys and shapes are those of the official checkpoints.

Everything here also runs in float16: the two places where squares of activations would overflow (the norm's
sum and the attention's relu²) are computed on values divided by their largest. That divisor cancels in the
result, so it is detached: the gradient stays exact, and cheap.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPLIT_RATIO = 2  # bins per input pixel
QUERY_DIM = 128  # s of the attention


class ScaleNorm(nn.Module):
    """x / max(‖x‖·d^-½, 1e-5)·g over the last dimension d, with one learned scalar g (arXiv 1910.05895)."""

    EPS = 1e-5

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        largest = x.detach().abs().amax(-1, keepdim=True).clamp(min=self.EPS)
        rms = torch.linalg.vector_norm(x / largest, dim=-1, keepdim=True) * x.shape[-1] ** -0.5 * largest
        return x / rms.clamp(min=self.EPS) * self.g


class ChannelScale(nn.Module):
    """x times a learned factor per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GatedAttention(nn.Module):
    """Gated attention unit over the points: (N, K, D) -> (N, K, D), with a scaled residual.

    A = relu(Q Kᵀ/√s)², O = (U ⊙ A V) W. The paper's equation 2 has 1/n in front of A; the published weights
    were trained without it, so it is absent here.
    """

    def __init__(self, width: int, expansion: int = 2) -> None:
        super().__init__()
        self.expanded = width * expansion
        self.gamma = nn.Parameter(torch.rand(2, QUERY_DIM))
        self.beta = nn.Parameter(torch.rand(2, QUERY_DIM))
        self.o = nn.Linear(self.expanded, width, bias=False)
        self.uv = nn.Linear(width, 2 * self.expanded + QUERY_DIM, bias=False)
        self.ln = ScaleNorm()
        self.res_scale = ChannelScale(width)

    def forward(self, x: Tensor) -> Tensor:
        u, v, base = torch.split(
            F.silu(self.uv(self.ln(x))), [self.expanded, self.expanded, QUERY_DIM], dim=-1
        )
        query = (base * self.gamma[0] + self.beta[0]) * QUERY_DIM**-0.5
        key = base * self.gamma[1] + self.beta[1]
        scores = F.relu(query @ key.transpose(1, 2))  # (N, K, K)
        # Row i of A is largest_i² times the squares of numbers in [0, 1]; W has no bias, so that factor can
        # follow it.
        largest = scores.detach().amax(-1, keepdim=True).clamp(min=1.0)  # (N, K, 1)
        share = scores / largest
        attended = self.o(u * ((share * share) @ v))
        return self.res_scale(x) + attended * largest * largest


def mixed(cells: int, width: int) -> nn.Sequential:
    """A flattened map (N, K, cells) -> (N, K, width)."""
    return nn.Sequential(ScaleNorm(), nn.Linear(cells, width, bias=False))


class SimCCHead(nn.Module):
    """(N, C, H/32, W/32) features -> SimCC logits x (N, K, 2W) and y (N, K, 2H).

    `kernel` is the size of the convolution that makes one map per point (Table 2 of the paper), `hidden` the
    width that each flattened map is mixed to, `gau` whether the points then attend to each other.
    """

    def __init__(
        self,
        channels: int,
        num_keypoints: int,
        input_size: tuple[int, int],
        stride: int,
        kernel: int,
        hidden: int,
        gau: bool,
    ) -> None:
        super().__init__()
        width, height = input_size
        cells = (width // stride) * (height // stride)
        self.final_layer = nn.Conv2d(channels, num_keypoints, kernel, padding=kernel // 2)
        self.mlp = mixed(cells, hidden)
        self.gau = GatedAttention(hidden) if gau else nn.Identity()
        self.cls_x = nn.Linear(hidden, width * SPLIT_RATIO, bias=False)
        self.cls_y = nn.Linear(hidden, height * SPLIT_RATIO, bias=False)
        self.apply(initialise)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        points = self.final_layer(features).flatten(2)  # (N, K, cells)
        points = self.gau(self.mlp(points))  # (N, K, hidden)
        return self.cls_x(points), self.cls_y(points)


def initialise(module: nn.Module) -> None:
    """Fresh weights of one layer: convolutions N(0, 1e-3) with biases 0, linear layers N(0, 1e-2)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.001)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
