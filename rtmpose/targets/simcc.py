"""SimCC: each coordinate is classified among bins finer than a pixel (arXiv 2107.03332; RTMPose, arXiv
2303.07399).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rtmpose.files import UserError

# The published configurations round sqrt(bins / 16) to these; their weights were trained with the rounded
# values.
PUBLISHED_SIGMAS = {(192, 256): (4.9, 5.66), (288, 384): (6.0, 6.93), (256, 256): (5.66, 5.66)}
PUBLISHED_SPLIT_RATIO = 2.0

SimCCPair = tuple[Tensor, Tensor]


class SimCC:
    """Keypoints <-> one Gaussian per axis over `input_size * split_ratio` bins.

    Args:
        input_size: network input (w, h), px.
        sigma: standard deviation of the Gaussians in bins, one value or (x, y). None: the published values
            for the three published sizes, else sqrt(bins / 16) per axis (RTMPose section 3.3).
        split_ratio: bins per pixel.

    Raises:
        UserError: a size, sigma or split ratio that is not positive.
    """

    udp = False  # the crop this codec was published with maps pixel corners, not pixel centres

    def __init__(
        self,
        input_size: Sequence[int],
        sigma: float | Sequence[float] | None = None,
        split_ratio: float = 2.0,
    ) -> None:
        self.input_size = _size(input_size)
        if not (math.isfinite(split_ratio) and split_ratio > 0):
            raise UserError(f"SimCC: split_ratio must be > 0, got {split_ratio}")
        self.split_ratio = float(split_ratio)
        width, height = (round(side * self.split_ratio) for side in self.input_size)
        if min(width, height) < 1:
            raise UserError(
                f"SimCC: split_ratio {split_ratio} leaves no bin for input_size {self.input_size}"
            )
        self.bins = (width, height)
        self.sigma = self._default_sigma() if sigma is None else _sigma(sigma)

    def _default_sigma(self) -> tuple[float, float]:
        if self.split_ratio == PUBLISHED_SPLIT_RATIO and self.input_size in PUBLISHED_SIGMAS:
            return PUBLISHED_SIGMAS[self.input_size]
        return math.sqrt(self.bins[0] / 16), math.sqrt(self.bins[1] / 16)

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[SimCCPair, Tensor]:
        """Targets of a batch.

        Args:
            keypoints: (N, K, 2) (x, y) in input px. visible: (N, K) weights, 0 = not labelled; below 0.5
            the target is zero and the weight is passed on.

        Returns:
            ((N, K, Wx), (N, K, Wy)) Gaussians with peak 1 (not normalised), and weights (N, K), which
            are 0 where the 3-sigma window of either axis misses its bins. Dtype and device are those of
            `keypoints`.
        """
        keypoints = at_least_float32(keypoints)
        centre = torch.round(keypoints * self.split_ratio)  # (N, K, 2) bins; halves go to the even bin
        visible = visible.to(keypoints)
        x, y = centre.unbind(-1)  # (N, K)
        reaches = _reaches(x, self.sigma[0], self.bins[0]) & _reaches(y, self.sigma[1], self.bins[1])
        labelled = visible >= 0.5
        absent = ~(reaches & labelled)
        # A centre at infinity gives a Gaussian of exact zeros, and NaN coordinates of unlabelled points
        # vanish with it.
        target_x = _gaussian(x.masked_fill(absent, math.inf), self.sigma[0], self.bins[0])
        target_y = _gaussian(y.masked_fill(absent, math.inf), self.sigma[1], self.bins[1])
        return (target_x, target_y), visible.masked_fill(labelled & ~reaches, 0.0)

    def decode(self, outputs: SimCCPair) -> tuple[Tensor, Tensor]:
        """(N, K, Wx), (N, K, Wy) to keypoints (N, K, 2) in input px and scores (N, K).

        The score is the smaller of the two maxima: a raw output, not a probability. Where it is not positive
        both coordinates are -1 bin, that is -1 / split_ratio px.
        """
        x, y = (at_least_float32(axis) for axis in outputs)
        (score_x, bin_x), (score_y, bin_y) = x.max(-1), y.max(-1)  # the first of equal maxima
        scores = torch.minimum(score_x, score_y)  # (N, K)
        bins = torch.stack((bin_x, bin_y), -1).to(scores.dtype)  # (N, K, 2)
        return bins.masked_fill((scores <= 0).unsqueeze(-1), -1.0) / self.split_ratio, scores

    def flip_average(self, outputs: SimCCPair, flipped_outputs: SimCCPair, flip: Sequence[int]) -> SimCCPair:
        """Mean of the outputs (N, K, bins) on an image and on its mirror image; `flip` swaps left and right
        points.
        """
        swap = list(flip)
        x, y = outputs
        mirrored_x, mirrored_y = flipped_outputs
        return (x + mirrored_x[:, swap].flip(-1)) * 0.5, (y + mirrored_y[:, swap]) * 0.5


def _size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"SimCC: input_size must be two positive numbers (w, h), got {tuple(size)}")
    return int(size[0]), int(size[1])


def _sigma(sigma: float | Sequence[float]) -> tuple[float, float]:
    pair = tuple(sigma) if isinstance(sigma, Iterable) else (sigma, sigma)
    if len(pair) != 2 or not all(math.isfinite(value) and value > 0 for value in pair):
        raise UserError(f"SimCC: sigma must be > 0, one number or one for each of x and y, got {sigma}")
    return float(pair[0]), float(pair[1])


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision and integers as float32, float64 as it is: sums of halves lose digits, and bin numbers
    beyond 256 are not representable in bfloat16.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _reaches(centre: Tensor, sigma: float, bins: int) -> Tensor:
    """Whether the window [centre - 3 sigma, centre + 3 sigma + 1] meets the bins."""
    return (centre - 3 * sigma < bins) & (centre + 3 * sigma + 1 >= 0)


def _gaussian(centre: Tensor, sigma: float, bins: int) -> Tensor:
    """(N, K) centres to (N, K, bins)."""
    position = torch.arange(bins, dtype=centre.dtype, device=centre.device)
    return torch.exp((position - centre.unsqueeze(-1)).square_().mul_(-0.5 / sigma**2))
