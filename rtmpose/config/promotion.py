"""What a candidate has to keep to become the champion."""

from __future__ import annotations

from pydantic import Field

from rtmpose.config.base import Strict


class PromotionParams(Strict):
    """The thresholds of `rtmpose promote`. AP and recall are in points of 100; where an interval is known,
    its unfavourable end counts.
    """

    targets: list[str] | None = Field(
        None, min_length=1, description="required deploy targets; null: all of `targets`"
    )
    min_ap: float = Field(0.0, ge=0, le=100, description="AP of the picked file on the first evaluation set")
    max_ap_loss: float = Field(2.0, ge=0, le=100, description="points less than the champion's, on any set")
    slice_floors: dict[str, float] = Field(
        default_factory=dict, description="recall that a slice of the first evaluation set needs, by its name"
    )
    max_slice_loss: float = Field(
        6.0, ge=0, le=100, description="points of a slice's recall less than the champion's"
    )
    least_persons: int = Field(
        20, ge=1, description="a slice of fewer persons is shown; with a floor it fails"
    )
    max_parity_px: float = Field(
        1.0, gt=0, description="mean distance of the picked file's points to PyTorch fp32's, input pixels"
    )
    max_latency_ratio: float = Field(1.1, gt=0, description="p50 in times of the champion's")
    max_memory_ratio: float = Field(
        1.1, gt=0, description="memory of the process, and of the GPU, in times of the champion's"
    )
    max_size_ratio: float = Field(1.25, gt=0, description="size of the files in times of the champion's")
    max_evidence_days: float = Field(30.0, gt=0, description="older measurements do not count")
