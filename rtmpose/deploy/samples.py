"""Network inputs to compare runtimes on: real persons where there are any; an argmax on noise says little."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from rtmpose.data.shards.manifest import read_eval
from rtmpose.deploy.card import ModelCard
from rtmpose.topdown import Crops, crop_box, planes_of


def person_crops(folder: Path, card: ModelCard, count: int) -> np.ndarray:
    """The first `count` labelled persons of a folder of evaluation shards, as the card's network sees them.

    Returns normalised float32 (at most count, 3, H, W) of crops that are padded by 1.25.
    """
    boxes = (
        (photograph.image, annotation["bbox"])
        for photograph in read_eval(folder)
        for annotation in photograph.annotations
        if annotation.get("num_keypoints")
        and not annotation.get("iscrowd")
        and min(annotation["bbox"][2:]) > 0
    )
    udp = card.codec().udp
    crops = [crop_box(image, box, card.input_size, udp=udp) for image, box in islice(boxes, count)]
    if not crops:
        return noise(card.input_size, 0)
    return planes_of(Crops.of(crops).pixels, card.mean, card.std)


def noise(input_size: tuple[int, int], count: int) -> np.ndarray:
    """Seeded normal float32 (count, 3, H, W) for an input_size (w, h) px: always the same."""
    width, height = input_size
    return np.random.default_rng(0).standard_normal((count, 3, height, width), np.float32)
