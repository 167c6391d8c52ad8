"""One person of one frame: what a pose pipeline gives and a tracker takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Person:
    """A box, K keypoints in the order of the model's names, and who it is.

    `confidence` is the calibrated probability that a point lies within half an OKS standard deviation of
    where it would have been marked. Of a model without a calibration it is the raw score, limited to [0, 1].
    """

    box: Floats  # (4,) x1, y1, x2, y2 px of the frame
    keypoints: Floats  # (K, 2) px of the frame
    scores: Floats  # (K,) raw, as the codec gives them
    confidence: Floats  # (K,) in [0, 1]
    box_score: float = 1.0  # the detector's; 1 where the box was given or follows from the last frame
    identity: int | None = None  # the same for the same person in all frames; None without a tracker
