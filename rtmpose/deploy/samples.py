"""Real network inputs on which runtimes are compared: on noise, an argmax says little."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch

from rtmpose.data.shards.manifest import read_eval
from rtmpose.geometry import box_to_center_scale, crop_matrix, warp
from rtmpose.models import normalise


def person_crops(folder: Path, input_size: tuple[int, int], count: int) -> np.ndarray:
    """The first `count` labelled persons of a folder of evaluation shards, as the network sees them.

    Returns normalised float32 (at most count, 3, H, W) for input_size (w, h) px: SimCC's plain crop, padded
    by 1.25.
    """
    crops = []
    boxes = (
        (photograph.image, annotation["bbox"])
        for photograph in read_eval(folder)
        for annotation in photograph.annotations
        if annotation.get("num_keypoints")
        and not annotation.get("iscrowd")
        and min(annotation["bbox"][2:]) > 0
    )
    for image, box in islice(boxes, count):
        center, scale = box_to_center_scale(box, input_size[0] / input_size[1])
        crops.append(warp(image, crop_matrix(center, scale, 0.0, input_size, udp=False), input_size))
    if not crops:
        return np.zeros((0, 3, input_size[1], input_size[0]), np.float32)
    return normalise(torch.from_numpy(np.stack(crops))).contiguous().numpy()
