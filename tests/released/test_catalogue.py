"""The catalogue itself, and how it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rtmpose.cli.released import list_weights
from rtmpose.descriptors import load_skeleton, shipped_datasets
from rtmpose.files import UserError
from rtmpose.provenance.sources import DataSource
from rtmpose.released.catalogue import (
    CATALOGUE,
    catalogue,
    find,
    known,
    known_hash,
    published_as,
    read_catalogue,
    terms,
)
from tests.support import ROOT

SIZES = {"256x192": (192, 256), "384x288": (288, 384), "256x256": (256, 256)}


def test_every_entry_agrees_with_the_name_of_its_file() -> None:
    assert len(known()) > 100
    for released in known().values():
        file, weights = released.published.file, released.weights
        for text, size in SIZES.items():
            assert text not in file or weights.input == size, file
        if weights.network == "rtmpose":
            assert file.startswith("rtmpose-tiny_" if "tiny" in file else f"rtmpose-{weights.size}_"), file
            digits = released.published.digits
            assert digits is not None and digits in file
    points = {"coco17": 17, "halpe26": 26, "coco_wholebody": 133, "coco_wholebody_hand": 21, "lapa106": 106}
    named = {weights.skeleton for weights in catalogue().weights.values()} - {None}
    assert named == {*points, "ap10k"}
    assert all(load_skeleton(name).num_keypoints == count for name, count in points.items())


def test_every_path_stands_once_and_every_name_is_found() -> None:
    full = {name: released for name, released in known().items() if name == released.name}
    assert len({released.published.path for released in full.values()}) == len(full)
    assert all(find(name) is released for name, released in full.items())
    assert published_as("rtmpose-m_simcc-ap10k_pt-aic-coco_210e-256x256-7a041aa1_20230206.pth") is not None
    assert published_as("rtmpose-m-animal17.pth") is find("rtmpose-m-animal17.pth")
    assert published_as("mine.pth") is None


def test_what_a_hash_in_a_name_can_prove() -> None:
    assert known_hash(find("rtmpose-m-body17.pth").published) == "digits"
    # A zip bears the digits of its checkpoint.
    assert known_hash(find("rtmpose-m-body17.onnx").published) == "none"
    assert known_hash(find("rtmpose-m-animal17.pth").published) == "whole"
    assert find("rtmw-m-wholebody.pth").published.digits is None


def test_terms_of_the_data_are_those_of_the_descriptors() -> None:
    told = terms(find("rtmpose-m-body17.pth").weights)
    assert "research use only" in told["aic"] and "CC BY-NC" in told["posetrack18"]
    assert not DataSource(name="ImageNet", sha256="", licence=told["ImageNet"]).is_known
    assert catalogue().licence == "Apache-2.0"


def test_every_data_set_has_a_descriptor_or_is_known_to_have_none() -> None:
    named = {name for weights in catalogue().weights.values() for name in weights.data}
    assert named - set(shipped_datasets()) == {"ImageNet", "InterHand2.6M", "Objects365", "UBody"}


def test_the_data_is_that_of_the_recipe_of_the_same_system() -> None:
    systems = {
        "rtmpose-m-body17": "body/body8", "rtmpose-m-body26": "body/halpe26",
        "rtmpose-m-hand21": "hand/hand5", "rtmpose-m-face106": "face/face6",
        "rtmpose-m-wholebody": "wholebody/coco_384", "rtmpose-m-animal17": "animal/ap10k",
    }  # fmt: skip
    for name, recipe in systems.items():
        sets = yaml.safe_load((ROOT / f"conf/recipe/{recipe}.yaml").read_text())["datasets"].values()
        trained = {one["descriptor"] for one in sets if one["train"]}
        assert trained <= set(catalogue().weights[name].data), name


def test_the_page_shows_the_list_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    list_weights()
    assert capsys.readouterr().out in (ROOT / "docs/weights.md").read_text()
    list_weights("rtmpose-m-animal17")
    shown = json.loads(capsys.readouterr().out)
    assert shown["pth"]["address"].startswith(catalogue().mirrors[-1]) and "CC BY" in shown["data"]["ap10k"]
    list_weights(kind="detector", as_json=True)
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)} == {"detector"}
    with pytest.raises(UserError, match="'x' is none of backbone, detector, pose"):
        list_weights(kind="x")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtmpose-m-body17", r"say in which form: rtmpose-m-body17\.onnx to run it"),
        ("rtmpose-m-boddy17", r"did you mean rtmpose-m-body17"),
        ("?", "`rtmpose weights list` shows the names"),
    ],
)
def test_an_unknown_name_is_one_line(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"^[^\n]*{reason}[^\n]*$"):
        find(name)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("kind: pose", "kinds: pose", "unknown key|Field required"),
        ("path: mmpose/v1", "path: ../v1", "path"),
        ("path: mmpose/v1", "path: https://x/v1", "path"),
        ("source: rtmpose", "source: elsewhere", "'elsewhere' is not in sources"),
        ("skeleton: coco17", "size: t", "stands twice"),
        ("sha256: 8d57", "sha256: zz57", "sha256"),
        ("      seen: 1\n", "", "seen belongs to a sha256"),
        ("kind: pose", "kind: detector", "a pose network, and nothing else, has a skeleton"),
    ],
)
def test_a_catalogue_is_read_strictly(tmp_path: Path, old: str, new: str, reason: str) -> None:
    text = CATALOGUE.read_text()
    assert old in text
    (tmp_path / "c.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"c\.yaml[^\n]*({reason})[^\n]*$"):
        read_catalogue(tmp_path / "c.yaml")
