"""Which parts of a network suffer from eight bits: each is left out of quantisation in turn, and what becomes
better of the decoded points is measured.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtmpose.config import Strict
from rtmpose.deploy.export import differences
from rtmpose.deploy.quantize.graph import HEAD
from rtmpose.deploy.quantize.onnx import Quantizer, Recipe, outputs_of
from rtmpose.targets import Codec

SENSITIVE = 0.1  # a part is sensitive where keeping it in float takes away this share of the error
MOST_PARTS = 3  # that stay in float besides the head: the others are what makes the file fast


class Sensitivity(Strict):
    """Mean distance, input px, of decoded points to the float file's: with all parts quantised that the
    recipe quantises, and with one part after another in float; parts that the time did not suffice for are
    `unmeasured`.
    """

    all_px: float
    without_px: dict[str, float]
    unmeasured: tuple[str, ...] = ()

    def sensitive(self) -> tuple[str, ...]:
        """The parts to keep in float, the worst first."""
        gains = {part: self.all_px - left for part, left in self.without_px.items()}
        worst = sorted(gains, key=lambda part: -gains[part])[:MOST_PARTS]
        return tuple(part for part in worst if gains[part] > SENSITIVE * self.all_px)


def measure(
    quantizer: Quantizer, recipe: Recipe, probe: NDArray[np.float32], codec: Codec, seconds: float
) -> Sensitivity:
    """The sensitivity of every part that `recipe` quantises, on inputs (N, 3, H, W) that were not calibrated
    on; parts are measured as long as `seconds` suffice.
    """
    began = time.monotonic()
    wanted = outputs_of(quantizer.model, probe)

    def error(kept: Recipe) -> float:
        outputs = outputs_of(quantizer.quantized(kept), probe)
        return differences(outputs, wanted, codec)["keypoints_px_mean"]

    everything = error(recipe)
    without: dict[str, float] = {}
    candidates = [part for part in quantizer.parts if part != HEAD and part not in recipe.kept_float]
    for part in candidates:
        if time.monotonic() - began > seconds:
            break
        without[part] = error(replace(recipe, kept_float=(*recipe.kept_float, part)))
    left = tuple(part for part in candidates if part not in without)
    return Sensitivity(all_px=everything, without_px=without, unmeasured=left)
