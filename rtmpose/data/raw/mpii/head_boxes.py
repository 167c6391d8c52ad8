"""The sizes of heads that PCKh divides by, from MPII's file of head boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.formats import ListedImage
from rtmpose.files import UserError

# Of the diagonal of the head's box: what MPII takes for the length of the segment from neck to top of the
# head (Andriluka et al., "2D Human Pose Estimation", CVPR 2014; its evaluation script's SC_BIAS).
HEAD_PER_DIAGONAL = 0.6
BOXES = "headboxes_src"  # of the file: (2, 2, N), two opposite corners, their x and y, for each person


def with_head_sizes(images: Iterable[ListedImage], path: Path, persons: int) -> Iterator[ListedImage]:
    """MPII's images, each annotation with its `head_size` px by the file at `path`, whose `persons` have the
    order of the annotation file; as they are where there is no such file, which only evaluation needs.

    Raises UserError for a file that holds no head boxes, or those of other persons.
    """
    if not path.exists():
        yield from images
        return
    sizes = head_sizes(path)
    if len(sizes) != persons:
        raise UserError(
            f"{path}: {BOXES}: {len(sizes)} head boxes for {persons} persons; take the file that belongs to "
            "the annotations"
        )
    for listed in images:
        for annotation, _ in listed.poses:
            size = float(sizes[annotation["id"] - 1])  # ids are places in the file, from 1
            if np.isfinite(size) and size > 0:
                annotation["head_size"] = size
        yield listed


def head_sizes(path: Path) -> NDArray[np.float64]:
    """The size px of every person's head (N,), 0.6 of the diagonal of its box; UserError for another file."""
    from scipy.io import loadmat

    fix = "fetch it again (mpii_gt_val.mat, with the annotations)"
    try:
        boxes = np.asarray(loadmat(path, variable_names=[BOXES])[BOXES], np.float64)
    except Exception as error:  # a damaged file raises whatever its bytes lead SciPy to
        said = " ".join(str(error).split())
        raise UserError(f"{path}: {BOXES}: cannot be read ({said}); {fix}") from error
    if boxes.ndim != 3 or boxes.shape[:2] != (2, 2):
        raise UserError(f"{path}: {BOXES}: has the shape {boxes.shape}, not (2, 2, persons); {fix}")
    return np.asarray(HEAD_PER_DIAGONAL * np.linalg.norm(boxes[1] - boxes[0], axis=0))
