"""What every raw format becomes: images and persons."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.descriptors import Frame

UNLISTED = "image not listed"
Fault = tuple[str, str]  # the reason that persons are skipped for, and the line that says what to mend


@dataclass(frozen=True, eq=False)
class Person:
    """One annotated person. `box` xywh px and `keypoints` (K, 2) px lie in the full image; `visible` (K,) is
    0 not labelled, 1 labelled but hidden, 2 seen; `area` px^2 is what OKS normalises by.
    """

    image_id: int | str
    annotation_id: int
    box: tuple[float, float, float, float]
    keypoints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    area: float
    iscrowd: bool
    dataset: str


@dataclass(frozen=True, eq=False)
class RawImage:
    """One image: the persons to train on, the COCO-form annotations to evaluate against, and (reason,
    annotation id) of what is not among `persons`: `left_out` by the format's own rules, `skipped` for a
    defect. `width` and `height` are None where the raw format does not say. `exif` is the frame that all of
    it refers to, `fault` why the file is not to be opened at all. `page` is the image's place, from 0, where
    `path` is a file of many.
    """

    image_id: int | str
    path: Path
    width: int | None
    height: int | None
    persons: list[Person]
    annotations: list[dict[str, Any]]
    left_out: list[tuple[str, int]] = field(default_factory=list)
    skipped: list[tuple[str, int]] = field(default_factory=list)
    exif: Frame = "stored"
    fault: Fault | None = None
    page: int | None = None

    @property
    def file_name(self) -> str:
        """What the image is called, without its folder; one of a stack by its number, as a PNG."""
        return self.path.name if self.page is None else f"{self.path.stem}_{self.page + 1}.png"

    @property
    def unlisted(self) -> bool:
        """Whether annotations name an image that the list of images does not."""
        return (self.fault is not None and self.fault[0] == UNLISTED) or any(
            reason == UNLISTED for reason, _ in self.skipped
        )
