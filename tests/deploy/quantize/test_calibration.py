"""Calibration crops: always the same, from all over the set, and refused where they are unlike the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtmpose.data.stream.mix import Mix, MixEntry
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.quantize.calibration import (
    Calibration,
    Pixels,
    evaluation_crops,
    from_folder,
    from_mix,
    refuse_unlike,
)
from rtmpose.files import UserError


@pytest.fixture(scope="module")
def data(shards: Path, own_card: ModelCard) -> Pixels:
    return evaluation_crops(shards / "val", own_card, 32)


def test_honest_crops_pass(calibration: Calibration, own_card: ModelCard, data: Pixels) -> None:
    refuse_unlike(calibration, own_card, data)
    refuse_unlike(calibration, own_card)
    assert calibration.inputs(own_card).shape == (40, 3, 128, 96)
    assert calibration.described()["sha256"] == calibration.sha256


def test_the_same_crops_each_time(shards: Path, calibration: Calibration, own_card: ModelCard) -> None:
    again = from_folder(shards / "train", own_card, 40)
    assert again.sha256 == calibration.sha256
    assert from_folder(shards / "train", own_card, 40, seed=1).sha256 != calibration.sha256
    mix = Mix((MixEntry(shards / "train", 2),), shards / "val", {})
    assert from_mix(mix, own_card, 40).pixels.shape == calibration.pixels.shape


def test_evaluation_crops_are_spread(shards: Path, own_card: ModelCard, data: Pixels) -> None:
    every = evaluation_crops(shards / "val", own_card, 10_000)
    few = evaluation_crops(shards / "val", own_card, 8)
    assert len(few) == 8 and len(every) > len(few)
    places = [int(np.flatnonzero((every == crop).all(axis=(1, 2, 3)))[0]) for crop in few]
    assert places == sorted(places) and places[-1] - places[0] > len(every) // 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_small_set_gives_every_person_once(shards: Path, own_card: ModelCard, split: str) -> None:
    found = from_folder(shards / split, own_card, 4000)
    count = len(found.pixels)
    assert 24 < count < 4000 and len(np.unique(found.pixels.reshape(count, -1), axis=0)) == count
    used, probe = found.shared_out(3000, 1000)
    assert len(used.pixels) == count * 3 // 4 and len(used.pixels) + len(probe.pixels) == count
    exactly = from_folder(shards / split, own_card, 24).shared_out(16, 8)
    assert [len(part.pixels) for part in exactly] == [16, 8]


def test_too_few(shards: Path, own_card: ModelCard, calibration: Calibration) -> None:
    with pytest.raises(UserError, match="16 crops are too few"):
        refuse_unlike(calibration.split(16)[0], own_card)
    with pytest.raises(UserError, match=r"manifest\.json: is missing; give a folder of"):
        from_folder(shards, own_card, 40)


def broken(pixels: Pixels, fault: str) -> Pixels:
    match fault:
        case "clipped above":
            return np.minimum(pixels, 150)
        case "clipped below":
            return np.maximum(pixels, 60)
        case "squeezed":
            return (96 + pixels.astype(int) // 4).astype(np.uint8)
        case "dark":
            return pixels // 3
        case "one channel grey":
            changed = pixels.copy()
            changed[..., 1] = 128
            return changed
        case "copies":
            return np.repeat(pixels[:4], 10, axis=0)
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("clipped above", r"R lie outside of the set's 0\.\.150: it is clipped"),
        ("clipped below", r"R lie outside of the set's 60\.\.\d+: it is clipped"),
        ("squeezed", "it is clipped|contrast|spans"),
        ("dark", "it is clipped|contrast|spans"),
        ("one channel grey", "of the data's G lie outside"),
        ("copies", "only 4 of 40 calibration crops are different"),
    ],
)
def test_a_broken_set_is_one_line(
    calibration: Calibration, own_card: ModelCard, data: Pixels, fault: str, text: str
) -> None:
    planted = Calibration(broken(calibration.pixels, fault), "data/shards/broken")
    with pytest.raises(UserError, match=text) as caught:
        refuse_unlike(planted, own_card, data)
    assert str(caught.value).startswith("data/shards/broken: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["squeezed", "one channel grey", "copies"])
def test_without_data_the_card_says_what_is_odd(
    calibration: Calibration, own_card: ModelCard, fault: str
) -> None:
    with pytest.raises(UserError):
        refuse_unlike(Calibration(broken(calibration.pixels, fault), "set"), own_card)


def test_normalised_pixels_are_refused(calibration: Calibration, own_card: ModelCard) -> None:
    wrong = calibration.inputs(own_card).transpose(0, 2, 3, 1)
    with pytest.raises(UserError, match="give uint8 RGB of 96x128 px, not normalised"):
        refuse_unlike(Calibration(wrong, "set"), own_card)  # type: ignore[arg-type]  # the mistake itself
