"""Crops to calibrate on: which activations a network has is read from them, so they must look like the data.

A calibration set that is clipped or squeezed gives ranges that real photographs leave, and a file that is
quietly wrong on them. So each set is compared with pixels that it should resemble before it is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.config import AugmentConfig
from rtmpose.data.shards.manifest import MANIFEST, read_eval, read_manifest
from rtmpose.data.stream.mix import Mix, MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.deploy.card import ModelCard
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.coco import person_annotations
from rtmpose.files import UserError, read_json
from rtmpose.topdown import crop_box, planes_of

Pixels = NDArray[np.uint8]  # (N, H, W, 3) RGB

LEAST = 32  # crops; with fewer, ranges and medians depend on who happens to be among them
LEAST_DISTINCT = 0.9  # share of crops that are no copy of another
BEYOND = 1e-3  # share of the data's grey levels that may lie beyond all of the calibration set's
COVERED = 0.8  # least share of the data's central range (1 % to 99 %) that the calibration set spans
CONTRAST = 1.5  # how many times more or less contrast the set may have
CARD_CONTRAST = 2.5  # the same against a card's std, which is of other photographs
CLEAN = AugmentConfig(
    flip=0, half_body=0, shift=0, scale=0, rotate=0, hue=0, saturation=0, value=0, pixels=(), hole=0
)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Crops as the network sees them, before they are normalised, and where they come from."""

    pixels: Pixels
    source: str

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the crops' shape and bytes."""
        return hashlib.sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes()).hexdigest()

    def inputs(self, card: ModelCard) -> NDArray[np.float32]:
        """Normalised float32 (N, 3, H, W)."""
        return planes_of(self.pixels, card.mean, card.std)

    def split(self, first: int) -> tuple[Calibration, Calibration]:
        """The first crops, and the others."""
        return Calibration(self.pixels[:first], self.source), Calibration(self.pixels[first:], self.source)

    def shared_out(self, crops: int, probe: int) -> tuple[Calibration, Calibration]:
        """`crops` to calibrate on and `probe` others; of a smaller set each in its proportion."""
        return self.split(len(self.pixels) * crops // (crops + probe))

    def described(self) -> dict[str, Any]:
        """What a report says of the set."""
        low, high = np.quantile(self.pixels, [0.01, 0.99])
        return {
            "source": self.source,
            "crops": len(self.pixels),
            "sha256": self.sha256,
            "grey_1_percent": float(low),
            "grey_99_percent": float(high),
        }


def from_mix(mix: Mix, card: ModelCard, count: int, seed: int = 0) -> Calibration:
    """At most `count` unaugmented training crops of a mix, always the same ones: the beginning of a shuffled
    epoch, which holds every set in its proportion. Where shards lie at a URL, of the tuning split: it is
    local.
    """
    remote = [entry.dir for entry in mix.train if read_manifest(entry.dir, "train")["url"] is not None]
    if remote:
        return from_folder(mix.tune, card, count)
    return Calibration(_training_crops(mix.train, card, count, seed), f"{len(mix.train)} training sets")


def from_folder(folder: Path, card: ModelCard, count: int, seed: int = 0) -> Calibration:
    """At most `count` crops of a folder of training or evaluation shards, always the same ones, from all over
    it.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{path}: is missing; give a folder of training or evaluation shards")
    content = read_json(path, "cut the shards again (stage shard)")
    if isinstance(content, dict) and content.get("kind") == "train":
        return Calibration(_training_crops([MixEntry(folder, 1)], card, count, seed), str(folder))
    return Calibration(evaluation_crops(folder, card, count), str(folder))


def _training_crops(entries: Sequence[MixEntry], card: ModelCard, count: int, seed: int) -> Pixels:
    udp = card.codec().udp
    skeleton = load_skeleton(card.skeleton)
    stream = TrainStream(entries, skeleton, card.input_size, batch_size=count, seed=seed, udp=udp)
    batch = next(iter(stream.epoch(0, CLEAN)))
    return batch.images.numpy()[: stream.samples_per_epoch]  # behind the last sample it begins anew


def evaluation_crops(folder: Path, card: ModelCard, count: int) -> Pixels:
    """At most `count` crops of persons in a folder of evaluation shards, from images evenly spread over it.

    UserError where it has none.
    """
    images = int(read_manifest(folder, "eval")["samples"])
    udp = card.codec().udp
    crops = [
        crop_box(image.image, annotation["bbox"], card.input_size, udp=udp).pixels
        for image in islice(read_eval(folder), 0, None, max(images // count, 1))
        for annotation in person_annotations(image.annotations)
        if min(annotation["bbox"][2:]) > 0
    ]
    if not crops:
        raise UserError(f"{folder}: no person in it has a box; give another folder of shards")
    chosen = np.unique(np.linspace(0, len(crops) - 1, min(count, len(crops))).round().astype(int))
    return np.stack([crops[index] for index in chosen])


def refuse_unlike(calibration: Calibration, card: ModelCard, data: Pixels | None = None) -> None:
    """UserError for a set that is too small, repeats itself, or does not look like the data.

    data: crops (M, H, W, 3) of the images that the network is judged on. Where there are none, the contrast
    is compared with the card's mean and std alone.
    """
    pixels, source = calibration.pixels, calibration.source
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (*card.input_size[::-1], 3):
        width, height = card.input_size
        raise UserError(
            f"{source}: calibration crops are {pixels.dtype} {pixels.shape[1:]}; give uint8 RGB of "
            f"{width}x{height} px, not normalised"
        )
    if len(pixels) < LEAST:
        raise UserError(f"{source}: {len(pixels)} crops are too few to calibrate on; give at least {LEAST}")
    distinct = len({hashlib.sha256(crop.tobytes()).digest() for crop in pixels})
    if distinct < LEAST_DISTINCT * len(pixels):
        raise UserError(
            f"{source}: only {distinct} of {len(pixels)} calibration crops are different; give others"
        )
    reason = _unlike_card(pixels, card) if data is None else _unlike_data(pixels, data)
    if reason:
        raise UserError(f"{source}: calibration crops are unlike the data: {reason}; calibrate on such data")


def _unlike_data(pixels: Pixels, data: Pixels) -> str | None:
    """What of the data's grey levels the set lacks, for the first channel that lacks something."""
    for name, mine, theirs in zip("RGB", _channels(pixels), _channels(data), strict=True):
        beyond = float(np.mean((theirs < mine.min()) | (theirs > mine.max())))
        if beyond > BEYOND:
            return (
                f"{beyond:.1%} of the data's {name} lie outside of the set's {mine.min()}..{mine.max()}: "
                "it is clipped"
            )
        (low, high), (least, most) = (np.quantile(one, [0.01, 0.99]) for one in (mine, theirs))
        covered = (min(high, most) - max(low, least)) / max(most - least, 1)
        if covered < COVERED:
            return f"{name} spans {low:.0f}..{high:.0f}, the data {least:.0f}..{most:.0f}"
        contrast = float(mine.std() / max(theirs.std(), 1e-6))
        if not 1 / CONTRAST <= contrast <= CONTRAST:
            return f"{name} has {contrast:.2f} times the data's contrast"
    return None


def _unlike_card(pixels: Pixels, card: ModelCard) -> str | None:
    for name, mine, mean, std in zip("RGB", _channels(pixels), card.mean, card.std, strict=True):
        if not 1 / CARD_CONTRAST <= mine.std() / std <= CARD_CONTRAST or abs(mine.mean() - mean) > 2 * std:
            return (
                f"{name} is {mine.mean():.0f} ± {mine.std():.0f}, the model was trained on {mean:.0f} ± "
                f"{std:.0f}"
            )
    return None


def _channels(pixels: Pixels) -> NDArray[np.uint8]:
    """(N, H, W, 3) to (3, N·H·W)."""
    return np.moveaxis(pixels, -1, 0).reshape(3, -1)
