"""Pixel transforms by name: by coins and seeds of our own, in their order, and mistakes in one line."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

from rtmpose.config import AugmentConfig, Params, PixelTransform, with_values
from rtmpose.config.environment import setup_environment
from rtmpose.data.stream.augment import Augmenter, draw, transform_pixels
from rtmpose.data.stream.pixels import Impossible, build, built, check_pixels
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError
from tests.ladder.test_rungs import recipe
from tests.support import golden

COCO = load_skeleton("coco17")
N = 40_000
BLURS = ({"name": "Blur", "p": 0.1, "blur_limit": [3, 7]}, {"name": "MedianBlur", "p": 0.1})
KERNELS = (3, 5, 7)


def config(*entries: Mapping[str, Any]) -> AugmentConfig:
    return AugmentConfig.model_validate({"pixels": entries})


def noise(height: int = 16, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def scene(height: int, width: int) -> np.ndarray:
    return np.asarray(cv2.resize(noise(), (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def transformed(augment: AugmentConfig, image: np.ndarray, seed: int) -> np.ndarray:
    seeds = draw(augment, np.random.default_rng(seed)).seeds
    return transform_pixels(image.copy(), built(augment.pixels), seeds)


def test_blurs_are_rare_independent_and_of_the_published_kernels() -> None:
    """The two of the published recipes: which kernels an image went through is told by its pixels."""
    text = json.loads(golden("transforms_stats.json").read_text())["blur"]
    assert "Blur p=0.1" in text and "{3,5,7}; MedianBlur p=0.1" in text
    image = noise()
    known = {image.tobytes(): (1, 1)}
    for blur in (1, *KERNELS):
        blurred = cv2.blur(image, (blur, blur)) if blur > 1 else image
        for median in (1, *KERNELS):
            shown = cv2.medianBlur(blurred, median) if median > 1 else blurred
            known.setdefault(shown.tobytes(), (blur, median))
    assert len(known) == 16
    augment = config(*BLURS)
    counts: Counter[tuple[int, int]] = Counter()
    for seed in range(N):
        seeds = draw(augment, np.random.default_rng(seed)).seeds
        shown = transform_pixels(image, built(augment.pixels), seeds)
        counts[known[shown.tobytes()]] += 1
    for (blur, median), count in counts.items():
        expected = (0.9 if blur == 1 else 0.1 / 3) * (0.9 if median == 1 else 0.1 / 3)
        assert count / N == pytest.approx(expected, abs=5 * np.sqrt(expected / N)), (blur, median)
    assert len(counts) == 16


def test_coins_and_seeds_of_a_sample_are_independent() -> None:
    augment = config(*[{"name": "Blur", "p": 0.3}] * 3, {"name": "CLAHE", "p": 0.9})
    seeds = [draw(augment, np.random.default_rng((3, i))).seeds for i in range(N)]
    fell = np.array([[seed is not None for seed in one] for one in seeds], float)
    np.testing.assert_allclose(fell.mean(axis=0), [0.3, 0.3, 0.3, 0.9], atol=4 * np.sqrt(0.25 / N))
    assert np.abs(np.corrcoef(fell.T) - np.eye(4)).max() < 0.02
    both = np.array([(one[0], one[1]) for one in seeds if one[0] is not None and one[1] is not None], float)
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.05
    assert 0 <= both.min() < 2**25 and 2**32 - 2**25 < both.max() < 2**32
    hidden = [draw(augment, np.random.default_rng((3, i))).hole for i in range(2000)]
    assert abs(np.corrcoef(fell[:2000, 0], [hole[0] for hole in hidden if hole])[0, 1]) < 0.1


def test_other_draws_do_not_depend_on_the_list() -> None:
    """With or without pixel transforms, and with one more at the end, every other draw stays."""
    lists: list[tuple[Mapping[str, Any], ...]] = [(), BLURS, (*BLURS, {"name": "CLAHE", "p": 0.5})]
    for seed in range(200):
        plain, two, three = (draw(config(*entries), np.random.default_rng(seed)) for entries in lists)
        assert plain.seeds == () and three.seeds[:2] == two.seeds
        for name in ("flip", "half_body", "shift", "scale", "rotation", "gains", "hole"):
            assert getattr(plain, name) == getattr(two, name) == getattr(three, name)


def test_the_same_seed_gives_the_same_pixels_whatever_came_before() -> None:
    """For every pixel transform that can stand in a recipe, and those are nearly all there are."""
    import albumentations

    names = [
        name
        for name, kind in vars(albumentations).items()
        if inspect.isclass(kind) and issubclass(kind, albumentations.ImageOnlyTransform)
    ]
    image, tried = scene(64, 48), 0
    for name in names:
        entry = PixelTransform(name=name, p=1.0)
        try:
            first, other = build(entry), build(entry)
            other.set_random_seed(1)
            other(image=image.copy())
        except (Impossible, ValueError, KeyError):  # needs other images, fonts or is the base of all
            continue
        tried += 1
        shown = []
        for transform in (first, other):
            transform.set_random_seed(2**32 - 1)
            shown.append(transform(image=image.copy())["image"])
        assert (shown[0] == shown[1]).all(), name
    assert tried > 45


def test_the_order_of_the_list_is_kept() -> None:
    median = {"name": "MedianBlur", "p": 1, "blur_limit": [7, 7]}
    invert = {"name": "Solarize", "p": 1, "threshold_range": [0.5, 0.5]}
    image = scene(64, 48)
    expected = []
    for names in ((median, invert), (invert, median)):
        shown = transformed(config(*names), image, 4)
        by_hand = image
        for entry in names:
            by_hand = transformed(config(entry), by_hand, 4)
        assert (shown == by_hand).all()
        expected.append(shown)
    assert (expected[0] != expected[1]).any()


def test_they_change_the_sample_and_nothing_else() -> None:
    """Between colours and hole: keypoints stay, and the hole is black whatever the list does."""
    fields = {"box": [40, 20, 80, 80], "origin": [0, 0], "scale": [1.0, 1.0]}
    points, visible = np.random.default_rng(1).uniform(40, 100, (17, 2)), np.full(17, 2)
    image = scene(120, 160)
    plain, inverted = (
        Augmenter(AugmentConfig.model_validate(values), COCO, (96, 128), udp=False)(
            lambda low, high: (image, (0, 0)), fields, points, visible, np.random.default_rng(8)
        )
        for values in ({}, {"pixels": [{"name": "InvertImg", "p": 1}]})
    )
    assert (plain[1] == inverted[1]).all() and (plain[2] == inverted[2]).all()
    hole = (plain[0] == 0).all(axis=2) & (inverted[0] == 0).all(axis=2)
    assert hole.sum() > 0.2 * 0.2 * 96 * 128 - 300
    assert (inverted[0][~hole] == 255 - plain[0][~hole]).all()


def test_nothing_is_imported_where_nothing_is_listed() -> None:
    code = (
        "import sys; from rtmpose.config import AugmentConfig, PixelTransform\n"
        "from rtmpose.data.stream.pixels import built\n"
        "assert built(()) == () and 'albumentations' not in sys.modules\n"
        "built((PixelTransform(name='Blur', p=1),)); assert 'albumentations' in sys.modules\n"
        "import os; assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    setup_environment()


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    return recipe(tmp_path_factory.mktemp("recipe"), "mannequin")


@pytest.mark.parametrize(
    ("entry", "key", "reason"),
    [
        ({"name": "Bluur", "p": 1}, ".name", "has no pixel transform Bluur; did you mean Blur?"),
        ({"name": "clahe", "p": 1}, ".name", "did you mean CLAHE?"),
        ({"name": "Fourier", "p": 1}, ".name", "has no pixel transform Fourier; such as Blur"),
        ({"name": "ImageOnlyTransform", "p": 1}, ".name", "ImageOnlyTransform"),
        ({"name": "HorizontalFlip", "p": 1}, ".name", "changes more than an image's colours"),
        ({"name": "CoarseDropout", "p": 1}, ".name", "only transforms of the pixels alone"),
        ({"name": "Compose", "p": 1}, ".name", "has no pixel transform Compose"),
        ({"name": "GaussNoise", "p": 1, "var_limit": [1, 2]}, ".var_limit", "has no such argument"),
        ({"name": "Blur", "p": 1, "blur_limits": 3}, ".blur_limits", "did you mean blur_limit?"),
        ({"name": "MedianBlur", "p": 1, "kernel": 3}, ".kernel", "it takes blur_limit"),
        ({"name": "InvertImg", "p": 1, "strength": 3}, ".strength", "it takes none"),
        ({"name": "Blur", "p": 1, "strict": False}, ".strict", "has no such argument"),
        ({"name": "Blur", "p": 1, "blur_limit": "wide"}, ".blur_limit", "valid"),
        ({"name": "MedianBlur", "p": 1, "blur_limit": [9, 3]}, "", "as written: blur_limit: Invalid range"),
        ({"name": "CLAHE", "p": 1, "clip_limit": -1}, ".clip_limit", ""),
        ({"name": "RandomGamma", "p": 1, "gamma_limit": [[1]]}, ".gamma_limit", ""),
        ({"name": "TextImage", "p": 1}, ".font_path", "Field required"),
        ({"name": "Normalize", "p": 1}, "", "gives float32 64x48x3 for uint8"),
        ({"name": "ToGray", "p": 1, "num_output_channels": 1}, "", "gives uint8 64x48"),
        ({"name": "FDA", "p": 1}, "", "fda_metadata"),
    ],
)
@pytest.mark.parametrize("place", ["pretrain.weak", "finetune.strong"])
def test_mistakes_are_one_line_with_key_and_fix(
    params: Params, place: str, entry: dict[str, Any], key: str, reason: str
) -> None:
    spoilt = with_values(params, {f"{place}.pixels": [{"name": "Blur", "p": 0.5}, entry]})
    with pytest.raises(UserError) as error:
        check_pixels(spoilt)
    text = str(error.value)
    assert text.startswith(f"params.yaml: {place}.pixels.1{key}: ") and reason in text and "\n" not in text


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"p": 1}, "name"),
        ({"name": "Blur"}, "p"),
        ({"name": "Blur", "p": 1.5}, "less than or equal to 1"),
        ({"name": 3, "p": 1}, "valid string"),
        ("Blur", "pixels.0"),
    ],
)
def test_what_is_no_entry_is_refused_with_the_parameters(params: Params, entry: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=r"finetune\.strong\.pixels") as error:
        with_values(params, {"finetune.strong.pixels": [entry]})
    assert reason in str(error.value)


def test_a_missing_package_is_one_line(params: Params) -> None:
    with (
        mock.patch.dict(sys.modules, {"albumentations": None}),
        pytest.raises(UserError, match=r"^params\.yaml: \w+\.strong\.pixels\.0: the package albumentations "),
    ):
        check_pixels(params)


def test_a_mistake_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(Impossible("name", "is unknown")))
    assert str(error) == "params.yaml: pixels: name: is unknown" and error.key == "name"


def test_the_recipes_lists_are_possible(tmp_path: Path) -> None:
    for name in ("mannequin", "ladder", "coco17", "wholebody133"):
        found = recipe(tmp_path, name)
        check_pixels(found)
        assert [entry.name for entry in found.finetune.strong.pixels] == ["Blur", "MedianBlur"]
