"""Heatmaps in pixel-centre coordinates (UDP, arXiv 1911.07524), decoded by one Newton step (DARK, arXiv
1910.06278).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

from rtmpose.files import UserError
from rtmpose.targets.simcc import at_least_float32

BLUR = 11  # side of the Gaussian that smooths a predicted map before its logarithm is differentiated
RADIUS = BLUR // 2
BLUR_SIGMA = 0.3 * (RADIUS - 1) + 0.8  # the standard deviation OpenCV derives from that side
LOG_RANGE = (1e-3, 50.0)
HESSIAN_EPS = torch.finfo(torch.float32).eps


class UDPHeatmap:
    """Keypoints <-> one Gaussian map per keypoint; pixel centres of input and heatmap corners coincide (UDP
    section 3).

    Args:
        input_size: network input (w, h), px.
        heatmap_size: (w, h) of the maps; None: a quarter of the input.
        sigma: standard deviation in heatmap px; the Gaussian is cut 3 sigma from the nearest pixel.

    Raises:
        UserError: a size below 2 or a sigma that is not positive.
    """

    udp = True  # wants the crop that maps pixel centres

    def __init__(
        self, input_size: Sequence[int], heatmap_size: Sequence[int] | None = None, sigma: float = 2.0
    ) -> None:
        self.input_size = _size("input_size", input_size)
        self.heatmap_size = _size("heatmap_size", heatmap_size or [side // 4 for side in self.input_size])
        if not (math.isfinite(sigma) and sigma > 0):
            raise UserError(f"UDPHeatmap: sigma must be > 0, got {sigma}")
        self.sigma = float(sigma)

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Targets of a batch.

        Args:
            keypoints: (N, K, 2) (x, y) in input px.
            visible: (N, K) weights, 0 = not labelled; below 0.5 the map is zero and the weight is passed on.

        Returns:
            heatmaps (N, K, Hh, Wh) with the sub-pixel peak 1, and weights (N, K), which are 0 where the
            Gaussian lies outside the map. Dtype and device are those of `keypoints`.
        """
        keypoints = at_least_float32(keypoints)
        visible = visible.to(keypoints)
        axes, reaches = [], torch.ones_like(visible, dtype=torch.bool)
        for axis in range(2):
            stretch = (self.input_size[axis] - 1) / (self.heatmap_size[axis] - 1)
            profile, meets = self._profile(keypoints[..., axis] / stretch, self.heatmap_size[axis])
            axes.append(profile)
            reaches = reaches & meets
        labelled = visible >= 0.5
        present = (reaches & labelled)[..., None, None]
        maps = axes[1].unsqueeze(-1) * axes[0].unsqueeze(-2)  # (N, K, Hh, Wh): a round Gaussian is a product
        return maps.masked_fill(~present, 0.0), visible.masked_fill(labelled & ~reaches, 0.0)

    def _profile(self, centre: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """One axis of the Gaussians (N, K, size) around centres (N, K), and whether the cut window meets the
        axis.
        """
        radius = int(3 * self.sigma + 0.5)
        nearest = torch.trunc(centre + 0.5)
        position = torch.arange(size, dtype=centre.dtype, device=centre.device)
        inside = (position - nearest.unsqueeze(-1)).abs() <= radius
        values = torch.exp((position - centre.unsqueeze(-1)).square() * (-0.5 / self.sigma**2))
        return values.masked_fill(~inside, 0.0), (nearest - radius < size) & (nearest + radius + 1 >= 0)

    def decode(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps (N, K, Hh, Wh) to keypoints (N, K, 2) in input px and scores (N, K) = the maxima of the
        maps.

        The points are in the frame that `geometry.crop_to_image` expects: stretched by w / (w - 1), because
        the UDP crop maps (w - 1) px onto the box. A map without a positive value gives (-1, -1) heatmap px
        and no refinement.
        """
        heatmaps = at_least_float32(outputs)
        scores, index = heatmaps.flatten(-2).max(-1)  # (N, K); the first of equal maxima
        column, row = index % heatmaps.shape[-1], index // heatmaps.shape[-1]
        step = _newton_step(_log_neighbours(heatmaps, scores, column, row))  # (N, K, 2)
        points = torch.stack((column, row), -1).to(scores.dtype) - step
        points = points.masked_fill((scores <= 0).unsqueeze(-1), -1.0)
        width, height = self.heatmap_size
        # One multiplication per axis: building a tensor of the two factors would copy from the host.
        x = points[..., 0] * (self.input_size[0] / (width - 1))
        y = points[..., 1] * (self.input_size[1] / (height - 1))
        return torch.stack((x, y), -1), scores

    def flip_average(self, outputs: Tensor, flipped_outputs: Tensor, flip: Sequence[int]) -> Tensor:
        """Mean of the maps (N, K, Hh, Wh) of an image and of its mirror image; `flip` swaps left and right
        points.
        """
        return (outputs + flipped_outputs[:, list(flip)].flip(-1)) * 0.5


def _size(name: str, size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 2:
        raise UserError(f"UDPHeatmap: {name} must be two numbers (w, h) of at least 2, got {tuple(size)}")
    return int(size[0]), int(size[1])


def _blur(heatmaps: Tensor) -> Tensor:
    """Gaussian blur of (N, K, H, W) with zeros outside the map: along rows, then along columns.

    Shifted sums, not a convolution: autocast and TF32 would round a convolution to 8 or 10 bits. They add up
    in the order in which OpenCV does, for where a map is nearly flat the last bit of float32 moves the Newton
    step by 1e-4 px.
    """
    weights = [math.exp(-0.5 * ((tap - RADIUS) / BLUR_SIGMA) ** 2) for tap in range(BLUR)]
    taps = [weight / sum(weights) for weight in weights]
    height, width = heatmaps.shape[-2:]
    padded = functional.pad(heatmaps, (RADIUS, RADIUS, RADIUS, RADIUS))
    rows = padded.narrow(-1, 0, width) * taps[0]
    for shift in range(1, BLUR):
        rows.add_(padded.narrow(-1, shift, width), alpha=taps[shift])
    blurred = rows.narrow(-2, RADIUS, height) * taps[RADIUS]
    for shift in range(1, RADIUS + 1):
        pair = rows.narrow(-2, RADIUS + shift, height) + rows.narrow(-2, RADIUS - shift, height)
        blurred.add_(pair, alpha=taps[RADIUS + shift])
    return blurred


def _log_neighbours(heatmaps: Tensor, peak: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Logarithm of the blurred maps at the 3x3 neighbours of each maximum: (N, K, 3 rows, 3 columns).

    The blurred map is scaled back to the old peak, as its height decides what is cut off at `LOG_RANGE`.
    Neighbours beyond the border repeat it.
    """
    blurred = _blur(heatmaps)
    height, width = heatmaps.shape[-2:]
    offset = torch.arange(-1, 2, device=heatmaps.device)
    rows = (row[..., None] + offset).clamp(0, height - 1)  # (N, K, 3)
    columns = (column[..., None] + offset).clamp(0, width - 1)
    index = (rows[..., :, None] * width + columns[..., None, :]).flatten(-2)  # (N, K, 9)
    # An all-zero map has no peak to scale back to.
    highest = blurred.amax((-2, -1)).clamp_min(torch.finfo(blurred.dtype).tiny)
    values = blurred.flatten(-2).gather(-1, index) * (peak / highest).unsqueeze(-1)
    return values.clamp(*LOG_RANGE).log().unflatten(-1, (3, 3))


def _newton_step(patch: Tensor) -> Tensor:
    """H^-1 g at the centre of (N, K, 3, 3) by finite differences, (N, K, 2) as (x, y); zero where it is not
    defined.
    """
    up, mid, down = patch.unbind(-2)  # each (N, K, 3)
    centre = mid[..., 1]
    dx, dy = (mid[..., 2] - mid[..., 0]) / 2, (down[..., 1] - up[..., 1]) / 2
    dxx = mid[..., 2] - 2 * centre + mid[..., 0] + HESSIAN_EPS
    dyy = down[..., 1] - 2 * centre + up[..., 1] + HESSIAN_EPS
    # The mixed difference along one diagonal, as the reference takes it; exact for a quadratic.
    dxy = (down[..., 2] - mid[..., 2] - down[..., 1] + 2 * centre - mid[..., 0] - up[..., 1] + up[..., 0]) / 2
    determinant = dxx * dyy - dxy * dxy
    step = torch.stack((dyy * dx - dxy * dy, dxx * dy - dxy * dx), -1) / determinant.unsqueeze(-1)
    return torch.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)
