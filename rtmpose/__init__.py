"""RTMPose: `from rtmpose import PosePipeline` finds the people of a picture and their keypoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtmpose.inference.pipeline import PosePipeline

__all__ = ["PosePipeline"]


def __getattr__(name: str) -> Any:
    """`PosePipeline`, imported when it is asked for: nothing else of the package needs what it needs."""
    if name != "PosePipeline":
        raise AttributeError(f"module 'rtmpose' has no attribute {name!r}")
    from rtmpose.inference.pipeline import PosePipeline

    return PosePipeline
