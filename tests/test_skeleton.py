"""Maps between skeletons, alone and against the reference's, and the way through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtmpose.descriptors import load_skeleton, shipped_datasets
from rtmpose.skeleton import Skeleton
from tests.support import golden

# The reference's data sets that have a descriptor. HalpeDataset is halpe26 where its 26 points are wanted; it
# is not where the face of its 136 points is.
OURS = {
    "CocoDataset": "coco17", "AicDataset": "aic", "CocoWholeBodyDataset": "coco_wholebody",
    "CrowdPoseDataset": "crowdpose", "MpiiDataset": "mpii", "HalpeDataset": "halpe26",
    "CocoWholeBodyHandDataset": "coco_wholebody_hand", "OneHand10KDataset": "onehand10k",
    "LapaDataset": "lapa106", "CocoWholeBodyFaceDataset": "coco_wholebody_face", "WFLWDataset": "wflw",
}  # fmt: skip
WITHOUT_DESCRIPTOR = {
    "JhmdbDataset", "PoseTrack18Dataset", "FreiHandDataset", "Rhd2DDataset", "HalpeHandDataset",
    "Face300WDataset", "COFWDataset",
}  # fmt: skip
TARGETS = {
    "rtmpose-m_aic-coco_256x192": "coco17",
    "cspnext-m_udp_aic-coco_256x192": "coco_aic19",
    "rtmpose-m_body8_256x192": "coco17",
    "rtmpose-m_body8-halpe26_256x192": "halpe26",
    "rtmpose-m_hand5_256x256": "coco_wholebody_hand",
    "rtmpose-m_face6_256x256": "lapa106",
}


def tiny(name: str, points: str, maps: dict[str, dict[str, str]] | None = None) -> Skeleton:
    """A skeleton of one-letter points without anything else."""
    count = len(points)
    return Skeleton(name, tuple(points), (), tuple(range(count)), (0.05,) * count, (), (), maps or {})


def train_mappings() -> dict[str, Any]:
    return dict(json.loads(golden("datasets_meta.json").read_text())["train_mappings"])


def converted() -> list[tuple[str, str, Any]]:
    """(target, source, converter) of every training set of the reference that we have a descriptor for."""
    found = []
    for config, entry in train_mappings().items():
        for part in entry["datasets"]:
            of_136_points = part["type"] == "HalpeDataset" and TARGETS[config] == "lapa106"
            if part["type"] in OURS and not of_136_points:
                found.append((TARGETS[config], OURS[part["type"]], part["converter"]))
    return found


def test_every_training_set_of_the_reference_is_accounted_for() -> None:
    types = {part["type"] for entry in train_mappings().values() for part in entry["datasets"]}
    assert types == set(OURS) | WITHOUT_DESCRIPTOR
    assert len(converted()) == 19 and {target for target, _, _ in converted()} == set(TARGETS.values())


@pytest.mark.parametrize("number", range(19))
def test_maps_equal_the_reference(number: int) -> None:
    target, source, converter = converted()[number]
    other = load_skeleton(target)
    expected = {k: (k, k) for k in range(other.num_keypoints)}
    if converter is not None:
        expected = {
            new: (old, old) if isinstance(old, int) else tuple(old) for old, new in converter["mapping"]
        }
    assert load_skeleton(source).map_to(other) == tuple(
        expected.get(k, (-1, -1)) for k in range(other.num_keypoints)
    )


def test_a_mean_is_what_the_reference_makes_of_it() -> None:
    with np.load(golden("nms.npz")) as vectors:
        points, visible = vectors["kc_in"][0], vectors["kc_in_vis"][0]
        expected, expected_visible = vectors["kc2_out"][0], vectors["kc2_out_vis"][0, :, 0]
    source = tiny("source", "abcdefghijklmn", {"target": {"a + b": "x", "c": "y", "d + e": "z"}})
    pairs = np.array(source.map_to(tiny("target", "xyz")))
    assert pairs.tolist() == [[0, 1], [2, 2], [3, 4]]
    np.testing.assert_allclose(points[pairs].mean(axis=1), expected, rtol=1e-6)
    assert visible[pairs].min(axis=1).tolist() == expected_visible.tolist()


def test_a_map_wins_over_names_and_is_read_backwards() -> None:
    source = tiny("source", "abcd", {"target": {"a": "b", "c + d": "a"}})
    target = tiny("target", "abc")
    assert source.map_to(target) == ((2, 3), (0, 0), (-1, -1))
    assert target.map_to(source) == ((1, 1), (-1, -1), (-1, -1), (-1, -1))
    assert tiny("other", "ba").map_to(target) == ((1, 1), (0, 0), (-1, -1))
    stranger = tiny("stranger", "ab", {"other": {"a": "z", "b": "b"}})
    assert tiny("other", "ba").map_to(stranger) == ((-1, -1), (0, 0))


@pytest.mark.parametrize("name", shipped_datasets())
def test_there_and_back_keeps_every_plain_point(name: str) -> None:
    skeleton = load_skeleton(name)
    assert skeleton.map_to(skeleton) == tuple((k, k) for k in range(skeleton.num_keypoints))
    for other in map(load_skeleton, shipped_datasets()):
        there, back = skeleton.map_to(other), other.map_to(skeleton)
        for theirs, (a, b) in enumerate(there):
            assert a != b or a == -1 or back[a] == (theirs, theirs), (other.name, skeleton.names[a])


@pytest.mark.parametrize("name", shipped_datasets())
def test_mirroring_before_a_map_is_mirroring_after_it(name: str) -> None:
    skeleton = load_skeleton(name)
    for other in map(load_skeleton, shipped_datasets()):
        pairs = skeleton.map_to(other)
        for k, (a, b) in enumerate(pairs):
            if a >= 0:
                assert set(pairs[other.flip[k]]) == {skeleton.flip[a], skeleton.flip[b]}, (
                    other.name,
                    other.names[k],
                )


@pytest.mark.parametrize("name", shipped_datasets())
def test_plain_values_and_back(name: str) -> None:
    skeleton = load_skeleton(name)
    again = Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict())))
    assert again == skeleton and hash(again) == hash(skeleton)
    other = load_skeleton("lapa106")
    assert again.map_to(other) == skeleton.map_to(other)


def test_plain_values_say_that_sigmas_are_estimated() -> None:
    assert load_skeleton("wflw").to_dict()["sigmas_estimated"] is True
    older = load_skeleton("coco17").to_dict()
    del older["sigmas_estimated"]
    assert Skeleton.from_dict(older) == load_skeleton("coco17")


@given(st.permutations(range(8)), st.integers(0, 8))
def test_any_map_is_undone_by_its_reverse(order: list[int], known: int) -> None:
    names = "abcdefgh"
    mapping = {names[k]: names[order[k]] for k in range(known)}
    source, target = tiny("source", names, {"target": mapping} if mapping else {}), tiny("target", names)
    there, back = source.map_to(target), target.map_to(source)
    expected = {order[k]: k for k in range(known)} if known else {k: k for k in range(8)}
    assert there == tuple((expected.get(k, -1),) * 2 for k in range(8))
    assert [back[a] for a, _ in there if a >= 0] == [(k, k) for k, (a, _) in enumerate(there) if a >= 0]


def test_a_renamed_copy_goes_by_names() -> None:
    coco = load_skeleton("coco17")
    assert replace(coco, name="mine").map_to(coco) == coco.map_to(coco)


def test_a_layout_maps_as_the_skeleton_does() -> None:
    """What a manifest holds: no sigmas and no limbs, and all that reading needs."""
    aic, coco = load_skeleton("aic"), load_skeleton("coco17")
    layout = json.loads(json.dumps(aic.layout()))
    assert "sigmas" not in layout and "limbs" not in layout
    found = Skeleton.from_dict(layout)
    assert found.map_to(coco) == aic.map_to(coco) and found.flip == aic.flip and found.names == aic.names
    assert replace(aic, sigmas=(1.0,) * 14, limbs=()).layout() == aic.layout()
    assert replace(aic, upper=aic.upper[1:]).layout() != aic.layout()
