"""Drawn radiographs: the same for the same seed, with every landmark where its outline is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtmpose.data.radiographs.anatomy import JAW, LANDMARKS, OUTLINES, draw_head, smooth_curve
from rtmpose.data.radiographs.dataset import MARKER, STACK, draw_dataset, radiograph
from rtmpose.data.radiographs.render import draw_radiograph
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.raw.stacks.metaimage import open_stack
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError

NAMES = list(LANDMARKS)


def test_there_are_38_landmarks_and_every_outline_names_known_ones() -> None:
    assert len(LANDMARKS) == 38 and set(LANDMARKS) >= JAW
    named = {place for outline in OUTLINES.values() for place in outline.through if isinstance(place, str)}
    assert named == set(LANDMARKS)  # each can be seen: an outline passes through it


def test_outlines_pass_through_their_landmarks() -> None:
    head = draw_head(np.random.default_rng(4))
    for name, outline in OUTLINES.items():
        for place in outline.through:
            if isinstance(place, str):
                point = head.landmarks[NAMES.index(place)]
                assert np.linalg.norm(head.curves[name] - point, axis=1).min() < 1e-9, (name, place)


def test_heads_are_heads() -> None:
    """Anatomy of many heads: sizes within what adults have, and nothing upside down."""
    heads = [dict(zip(NAMES, draw_head(np.random.default_rng(n)).landmarks, strict=True)) for n in range(16)]
    lengths = np.array([np.linalg.norm(head["nasion"] - head["sella"]) for head in heads])  # mm
    assert lengths.min() > 55 and lengths.max() < 88 and lengths.std() > 1
    for head in heads:
        assert head["sella"][1] < head["ans"][1] < head["upper_incisor"][1] < head["menton"][1]
        assert head["gonion"][0] < head["pns"][0] < head["a_point"][0] < head["pronasale"][0]


def test_a_curve_passes_through_its_places() -> None:
    places = np.array([[0.0, 0.0], [4.0, 1.0], [5.0, 5.0], [1.0, 3.0]])
    closed, ended = smooth_curve(places, True), smooth_curve(places, False)
    assert closed.shape == (48, 2) and ended.shape == (37, 2)
    assert np.array_equal(closed[::12], places) and np.array_equal(ended[::12], places)
    straight = smooth_curve(np.arange(4.0)[:, None] * [1.0, 2.0], False)
    assert straight[:, 1] == pytest.approx(2 * straight[:, 0], abs=1e-9)


def test_an_image_depends_on_seed_and_number_alone() -> None:
    first, again, other = (radiograph(n, (160, 192), 5) for n in (3, 3, 4))
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.landmarks, again.landmarks)
    assert first.pixels.shape != other.pixels.shape
    assert not np.array_equal(first.landmarks, radiograph(3, (160, 192), 6).landmarks)


def test_landmarks_lie_in_the_image_and_spacing_fits_it() -> None:
    for n in range(12):
        drawn = draw_radiograph((200, 240), np.random.default_rng(n))
        inside = (drawn.landmarks >= 0).all(axis=1) & (drawn.landmarks < (200, 240)).all(axis=1)
        assert inside.mean() > 0.95 and drawn.pixels.min() > 0  # 0 is what padding is made of
        sella, nasion = drawn.landmarks[:2]
        assert 55 < np.linalg.norm(nasion - sella) * drawn.spacing < 88  # mm


def test_a_landmark_on_bone_is_brighter_than_what_surrounds_it() -> None:
    """The border of the jaw, and not a place below it, lies where the label of the menton says."""
    found = []
    for n in range(8):
        drawn = draw_radiograph((500, 600), np.random.default_rng(n))
        x, y = np.round(drawn.landmarks[NAMES.index("menton")]).astype(int)
        patch = drawn.pixels[y - 2 : y + 3, x - 2 : x + 3].mean()
        below = drawn.pixels[y + 10 : y + 15, x - 2 : x + 3].mean()
        found.append(patch > below)
    assert all(found)


def test_a_set_is_the_challenges_and_read_as_it_was_drawn(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "set", images=5, size=(150, 180), seed=2)
    dataset = load_dataset("cephalometric38_stack")
    raws = [raw for split in dataset.splits for raw in read_images(dataset, tmp_path / "set", split)]
    assert sorted(int(raw.image_id) for raw in raws) == [1, 2, 3, 4, 5]
    for raw in raws:
        drawn = radiograph(int(raw.image_id), (150, 180), 2)
        assert (raw.height, raw.width) == drawn.pixels.shape
        assert raw.persons[0].keypoints == pytest.approx(drawn.landmarks, abs=1e-3)
        assert raw.annotations[0]["spacing"] == pytest.approx(drawn.spacing, abs=1e-6)


def test_a_set_is_drawn_once_and_only_into_a_folder_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "set"
    seen: list[int] = []
    for _ in range(2):
        draw_dataset(root, images=2, size=(128, 128), seed=1, progress=lambda done, of: seen.append(done))
    assert seen == [1, 2]
    draw_dataset(root, images=3, size=(128, 128), seed=1)
    assert open_stack(root / STACK).header.pages == 3
    (root / STACK).unlink()
    draw_dataset(root, images=3, size=(128, 128), seed=1)
    assert (root / STACK).is_file()
    (root / MARKER).unlink()
    with pytest.raises(UserError, match="exists and was not drawn by us"):
        draw_dataset(root, images=2, size=(128, 128), seed=1)
    with pytest.raises(UserError, match="give at least one image"):
        draw_dataset(tmp_path / "other", images=0, size=(128, 128), seed=1)
    assert not (tmp_path / "other").exists()
