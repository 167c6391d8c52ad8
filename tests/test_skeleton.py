"""The descriptors against the reference's figures, the maps between skeletons, and the errors of a bad descriptor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rtmpose.config import UserError, data_file
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.skeleton import Skeleton
from tests.support import golden

REFERENCE = {"coco17": "coco", "aic": "aic", "coco_wholebody": "coco_wholebody", "coco_aic19": "coco_aic"}


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    return dict(json.loads(golden("datasets_meta.json").read_text()))


@pytest.mark.parametrize("name", REFERENCE)
def test_values_equal_the_reference(name: str, meta: dict[str, Any]) -> None:
    skeleton, expected = load_skeleton(name), meta["metas"][REFERENCE[name]]
    assert skeleton.num_keypoints == expected["num_keypoints"]
    assert list(skeleton.names) == expected["keypoint_names"]
    assert list(skeleton.flip) == expected["flip_indices"]
    assert list(skeleton.upper) == expected["upper_body_ids"]
    assert list(skeleton.lower) == expected["lower_body_ids"]
    assert [list(limb) for limb in skeleton.limbs] == expected["skeleton_links"]
    np.testing.assert_allclose(skeleton.sigmas, expected["sigmas"], atol=1e-8)


@pytest.mark.parametrize(
    ("target", "config"), [("coco17", "rtmpose-m_aic-coco_256x192"), ("coco_aic19", "cspnext-m_udp_aic-coco_256x192")]
)
def test_maps_equal_the_reference(target: str, config: str, meta: dict[str, Any]) -> None:
    for source, entry in zip(("coco17", "aic"), meta["train_mappings"][config]["datasets"], strict=True):
        mapping = load_skeleton(source).map_to(load_skeleton(target))
        converter = entry["converter"]
        expected = {k: k for k in range(17)} if converter is None else {new: old for old, new in converter["mapping"]}
        assert mapping == tuple(expected.get(k, -1) for k in range(len(mapping)))


def test_wholebody_gives_its_body_to_coco() -> None:
    assert load_skeleton("coco_wholebody").map_to(load_skeleton("coco17")) == tuple(range(17))


@pytest.mark.parametrize("name", REFERENCE)
def test_plain_values_and_back(name: str) -> None:
    skeleton = load_skeleton(name)
    assert skeleton.map_to(skeleton) == tuple(range(skeleton.num_keypoints))
    assert Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict()))) == skeleton


def test_a_map_in_the_descriptor_wins_over_names(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda content: content["skeleton"].update(maps={"coco17": {"neck": "nose"}}))
    mapping = load_dataset(str(path)).skeleton.map_to(load_skeleton("coco17"))
    assert mapping == (load_skeleton("aic").names.index("neck"), *([-1] * 16))


def edited(folder: Path, change: Any) -> Path:
    content = yaml.safe_load(data_file("datasets/aic.yaml").read_text())
    change(content)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["skeleton"]["sigmas"].pop(), "sigmas: 13 values for 14 points"),
        (lambda c: c["skeleton"]["limbs"].append(["neck", "tail"]), "tail is not one of the points"),
        (lambda c: c["skeleton"]["flip_pairs"].append(["neck", "left_hip"]), "two pairs"),
        (lambda c: c["skeleton"]["points"].__setitem__(1, "neck"), "twice"),
        (lambda c: c.update(colour="red"), "colour"),
        (lambda c: c.update(reader="csv"), "reader"),
        (lambda c: c.update(parts=[{"field": "keypoints", "points": 13}]), "parts: 13 points"),
    ],
)
def test_a_bad_descriptor_is_one_line(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_dataset(str(edited(tmp_path, change)))
    assert "mine.yaml" in str(error.value) and "\n" not in str(error.value)


def test_unknown_names_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasets/no_such\.yaml"):
        load_dataset("no_such")
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_dataset(str(tmp_path / "broken.yaml"))
