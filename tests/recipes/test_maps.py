"""The ways from one set's points to another's are the reference's, point by point."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rtmpose.descriptors import load_skeleton
from rtmpose.skeleton import Skeleton
from tests.recipes.facts import SETS
from tests.support import golden

# The skeleton that each configuration of golden/datasets_meta.json trains its network on.
TARGETS = {
    "rtmpose-m_aic-coco_256x192": "coco17", "cspnext-m_udp_aic-coco_256x192": "coco_aic19",
    "rtmpose-m_body8_256x192": "coco17", "rtmpose-m_body8-halpe26_256x192": "halpe26",
    "rtmpose-m_hand5_256x256": "coco_wholebody_hand", "rtmpose-m_face6_256x256": "lapa106",
}  # fmt: skip
HALPE_FACE = 26  # where the 68 points of a face begin among Halpe's 136
# COFW's corners and lids of the eyes: the reference maps them to WFLW's numbers, as if they were LaPa's.
COFW_EYES = range(8, 16)


@pytest.fixture(scope="module")
def mappings() -> dict[str, Any]:
    return dict(json.loads(golden("datasets_meta.json").read_text())["train_mappings"])


def expected_pairs(part: dict[str, Any], name: str, target: Skeleton) -> dict[int, tuple[int, int]]:
    """The pairs of own indices by index of the target, as the reference's converter has them; the same points
    where there is no converter.
    """
    if part["converter"] is None:
        return {k: (k, k) for k in range(target.num_keypoints)}
    offset = HALPE_FACE if name == "halpe_face" else 0
    wflw = {own: theirs[0] for theirs, own in enumerate_pairs(load_skeleton("wflw"), target)}
    found = {}
    for source, index in part["converter"]["mapping"]:
        first, last = (source[0], source[-1]) if isinstance(source, list) else (source, source)
        if name == "cofw" and first in COFW_EYES:
            index = wflw[index]
        found[index] = (first - offset, last - offset)
    return found


def enumerate_pairs(own: Skeleton, target: Skeleton) -> list[tuple[tuple[int, int], int]]:
    """((index of the target, the same), own index) of every point that has a counterpart."""
    return [((k, k), pair[0]) for k, pair in enumerate(own.map_to(target)) if pair[0] >= 0]


@pytest.mark.parametrize("config", TARGETS)
def test_maps_are_the_reference_point_by_point(config: str, mappings: dict[str, Any]) -> None:
    target = load_skeleton(TARGETS[config])
    for part in mappings[config]["datasets"]:
        name = SETS[part["type"]]
        if name == "halpe26" and config == "rtmpose-m_face6_256x256":
            name = "halpe_face"
        pairs = dict(enumerate(load_skeleton(name).map_to(target)))
        found = {k: pair for k, pair in pairs.items() if pair[0] >= 0}
        assert found == expected_pairs(part, name, target), name


def test_the_reference_gives_cofw_the_numbers_of_wflw(mappings: dict[str, Any]) -> None:
    """Why the map of COFW is not the reference's: two of its points fall on one, and mirrors do not agree."""
    parts = mappings["rtmpose-m_face6_256x256"]["datasets"]
    (mapping,) = (part["converter"]["mapping"] for part in parts if part["type"] == "COFWDataset")
    cofw, lapa, wflw = (load_skeleton(name) for name in ("cofw", "lapa106", "wflw"))
    given = dict(map(tuple, mapping))
    twice = [index for index in given.values() if list(given.values()).count(index) > 1]
    assert twice == [60, 60]
    eyes = [point for point in COFW_EYES if lapa.flip[given[point]] != given[cofw.flip[point]]]
    assert eyes == list(COFW_EYES)
    assert all(wflw.flip[given[point]] == given[cofw.flip[point]] for point in COFW_EYES)


def test_halpe_is_one_skeleton_in_four_descriptors() -> None:
    whole = load_skeleton("halpe136")
    body, face, hand = (load_skeleton(name) for name in ("halpe26", "halpe_face", "halpe_hand"))
    assert whole.names[:26] == body.names and whole.names[26:94] == face.names
    stems = [name.removeprefix("left_").replace("hand_root", "wrist") for name in whole.names[94:115]]
    assert stems == list(hand.names)
    assert [name.replace("left_", "right_") for name in whole.names[94:115]] == list(whole.names[115:])
    np.testing.assert_array_equal(np.asarray(whole.flip[26:94]) - 26, face.flip)
