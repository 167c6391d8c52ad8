"""The library calls that one training sample cannot do without, timed alone on the samples of our shards.

No framework is a tighter peer: what the data path takes beyond the sum of these is its own doing.
"""

from __future__ import annotations

import json
import os
import tarfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from peers.environment import published_augmentation
from rtmpose.data.raw.photograph import decode
from rtmpose.data.shards.sample import decode_part
from rtmpose.data.stream.augment import (
    MARGIN,
    MIRROR,
    Augmenter,
    Draws,
    cut_hole,
    draw,
    jitter_hsv,
    transform_pixels,
)
from rtmpose.geometry import Floats, compose, crop_to_photograph, transform_points, warp
from rtmpose.skeleton import Skeleton

Image = NDArray[np.uint8]
WHOLE = "JPEG decode of the whole crop (not done)"


@dataclass(frozen=True, eq=False)
class Sample:
    """What each call needs of one sample, made beforehand by the calls before it."""

    file: int
    offset: int
    content: bytes  # of the tar from the image's first to the JSON's last byte
    image: bytes
    text: bytes
    fields: dict[str, Any]
    part: Image  # what the view shows, with a margin
    low: Floats
    high: Floats
    matrix: Floats
    warped: Image  # RGBA
    coloured: Image  # RGB
    drawn: Draws


def samples_of(shards: Path, skeleton: Skeleton, size: tuple[int, int], count: int) -> list[Sample]:
    """`count` samples of a folder of shards, chosen and augmented by seeded chance."""
    augmenter = Augmenter(published_augmentation(), skeleton, size, udp=False)
    places = []
    for path in sorted(shards.glob("*.tar")):
        spans: dict[str, dict[bool, tuple[int, int]]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.rpartition(".")
                spans.setdefault(key, {})[suffix == "json"] = (member.offset_data, member.size)
        places += [(path, span[False], span[True]) for span in spans.values()]
    files = {path: os.open(path, os.O_RDONLY) for path in {place[0] for place in places}}
    chosen = np.random.default_rng(0).permutation(len(places))[:count].tolist()
    return [_prepared(augmenter, files[places[i][0]], places[i][1], places[i][2], i) for i in chosen]


def _prepared(
    augmenter: Augmenter, file: int, image: tuple[int, int], text: tuple[int, int], number: int
) -> Sample:
    offset = min(image[0], text[0])
    content = os.pread(file, max(sum(image), sum(text)) - offset, offset)
    picture, words = (content[at - offset : at - offset + length] for at, length in (image, text))
    fields = json.loads(words)
    drawn = draw(augmenter.config, np.random.default_rng((1, number)))
    matrix = matrices(augmenter, fields, drawn)
    seen = transform_points(augmenter.corners, cv2.invertAffineTransform(matrix))
    low, high = seen.min(axis=0) - MARGIN, seen.max(axis=0) + MARGIN
    part, begin = decode_part(memoryview(picture), low, high)
    matrix[:, 2] += matrix[:, :2] @ begin
    warped = warp(cv2.cvtColor(part, cv2.COLOR_RGB2RGBA), matrix, augmenter.size)
    coloured = cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)
    return Sample(
        file, offset, content, picture, words, fields, part, low, high, matrix, warped, coloured, drawn
    )


def matrices(augmenter: Augmenter, fields: dict[str, Any], drawn: Draws) -> Floats:
    """Our own mathematics for one sample: crop px to input px, and the keypoints there."""
    to_image = crop_to_photograph(fields["origin"], fields["scale"])
    points = transform_points(fields["keypoints"], to_image)
    to_input, points, _ = augmenter.place(fields, points, np.asarray(fields["visible"]), to_image, drawn)
    transform_points(points, to_input)
    return compose(compose(to_input, MIRROR) if drawn.flip else to_input, to_image)


def calls(skeleton: Skeleton, size: tuple[int, int]) -> dict[str, Callable[[Sample], object]]:
    """Each step of a sample's way as a bare call."""
    augmenter = Augmenter(published_augmentation(), skeleton, size, udp=False)
    images, points = (
        np.empty((64, size[1], size[0], 3), np.uint8),
        np.empty((64, len(skeleton.names), 2), np.float32),
    )

    def colours(sample: Sample) -> None:
        if any(sample.drawn.gains):
            jitter_hsv(sample.warped, sample.drawn.gains)
        else:
            cv2.cvtColor(sample.warped, cv2.COLOR_RGBA2RGB)

    def assemble(sample: Sample) -> None:
        images[sample.offset % 64] = sample.coloured
        points[sample.offset % 64] = sample.fields["keypoints"]

    def blurs_and_hole(sample: Sample) -> None:
        image = transform_pixels(sample.coloured, augmenter.transforms, sample.drawn.seeds)
        cut_hole(image, sample.drawn.hole)

    return {
        "read from the page cache": lambda sample: os.pread(sample.file, len(sample.content), sample.offset),
        "checksum (CRC-32)": lambda sample: zlib.crc32(sample.content),
        "JSON": lambda sample: json.loads(sample.text),
        "draws and matrices": lambda sample: matrices(
            augmenter, sample.fields, draw(augmenter.config, np.random.default_rng((1, 2, 3, sample.offset)))
        ),
        "JPEG decode of what is seen": lambda sample: decode_part(
            memoryview(sample.image), sample.low, sample.high
        ),
        "warp, four channels": lambda sample: warp(
            cv2.cvtColor(sample.part, cv2.COLOR_RGB2RGBA), sample.matrix, size
        ),
        "HSV": colours,
        "blur, median blur, hole": blurs_and_hole,
        "copy into the batch": assemble,
        WHOLE: lambda sample: decode(sample.image),
    }


def milliseconds(samples: Sequence[Any], call: Callable[[Any], object], rounds: int) -> float:
    """Processor time of one call per sample: the median over the rounds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        for sample in samples:
            call(sample)
        times.append(1000 * (time.process_time() - start) / len(samples))
    return median(times)
