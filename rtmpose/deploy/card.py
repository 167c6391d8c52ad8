"""What an exported file says about itself: everything needed to prepare its input, read its output and
rebuild it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtmpose.files import UserError
from rtmpose.fingerprint import git_commit

PREFIX = "rtmpose."


@dataclass(frozen=True)
class ModelCard:
    """Metadata of an exported SimCC model, stored as JSON strings under `rtmpose.<field>` in the ONNX file.

    input_size (w, h) px; mean and std of RGB in 0..255; split_ratio bins per pixel; size, kernel, hidden and
    gau are `build_pose_net`'s arguments.
    """

    size: str
    kernel: int
    hidden: int
    gau: bool
    input_size: tuple[int, int]
    skeleton: str
    keypoint_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    split_ratio: float
    git_commit: str
    version: str

    @classmethod
    def of(cls, *, keypoint_names: Sequence[str], **facts: Any) -> ModelCard:
        """A card of this very code: commit and product version are filled in."""
        return cls(
            keypoint_names=tuple(keypoint_names), git_commit=git_commit(), version=version("rtmpose"), **facts
        )

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], path: Path) -> ModelCard:
        """Read the card back from the metadata of the file `path`; UserError when it is not one of ours."""
        missing = [field.name for field in fields(cls) if PREFIX + field.name not in properties]
        if missing:
            raise UserError(
                f"{path}: metadata has no '{PREFIX}{missing[0]}'; export the model again with this product"
            )
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = json.loads(properties[PREFIX + field.name])
            values[field.name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def properties(self) -> dict[str, str]:
        """The card as ONNX metadata properties."""
        return {PREFIX + key: json.dumps(value) for key, value in asdict(self).items()}
