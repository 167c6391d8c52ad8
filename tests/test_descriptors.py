"""The descriptors against the reference's figures, the rule for missing sigmas, the template, and a bad
descriptor's errors.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import yaml

from rtmpose.descriptors import (
    Dataset,
    Instance,
    Part,
    Split,
    _DatasetText,
    _SkeletonText,
    estimate_sigmas,
    load_dataset,
    load_skeleton,
    shipped_datasets,
)
from rtmpose.files import UserError, data_file
from rtmpose.skeleton import Skeleton
from tests.support import golden

REFERENCE = {
    "coco17": "coco", "aic": "aic", "coco_wholebody": "coco_wholebody", "coco_aic19": "coco_aic",
    "crowdpose": "crowdpose", "coco_wholebody_hand": "coco_wholebody_hand",
    "coco_wholebody_face": "coco_wholebody_face", "halpe26": "halpe26", "mpii": "mpii", "ap10k": "ap10k",
    "lapa106": "lapa", "wflw": "wflw", "onehand10k": "onehand10k", "humanart": "humanart",
    "ochuman": "ochuman", "jhmdb": "jhmdb", "posetrack18": "posetrack18", "halpe136": "halpe",
    "freihand": "freihand2d", "rhd": "rhd2d", "cofw": "cofw",
}  # fmt: skip
ESTIMATED = {"cephalometric38", "cephalometric38_stack", "lapa106", "lapa106_train", "wflw", "cofw"}
HAND = "coco_wholebody_hand"


@pytest.fixture(scope="module")
def metas() -> dict[str, Any]:
    return dict(json.loads(golden("datasets_meta.json").read_text())["metas"])


@pytest.mark.parametrize("name", REFERENCE)
def test_values_equal_the_reference(name: str, metas: dict[str, Any]) -> None:
    skeleton, expected = load_skeleton(name), metas[REFERENCE[name]]
    assert skeleton.num_keypoints == expected["num_keypoints"]
    assert list(skeleton.names) == expected["keypoint_names"]
    assert list(skeleton.flip) == expected["flip_indices"]
    assert list(skeleton.upper) == expected["upper_body_ids"]
    assert list(skeleton.lower) == expected["lower_body_ids"]
    assert [list(limb) for limb in skeleton.limbs] == expected["skeleton_links"]
    if expected["sigmas"]:
        assert not skeleton.sigmas_estimated
        np.testing.assert_allclose(skeleton.sigmas, expected["sigmas"], atol=1e-8)
    else:
        # Sets of hands have the points of COCO-WholeBody's hands, whose sigmas are published.
        hand = load_skeleton(HAND)
        published = dict(zip(hand.names, hand.sigmas, strict=True))
        same = tuple(published.get(name) for name in skeleton.names)
        assert skeleton.sigmas_estimated or skeleton.sigmas == same


def test_the_mark_up_of_300w_is_that_of_whole_body_faces(metas: dict[str, Any]) -> None:
    skeleton, expected = load_skeleton("face300w"), metas["300w"]
    assert skeleton == load_skeleton("coco_wholebody_face")
    assert skeleton.num_keypoints == expected["num_keypoints"] == 68
    assert list(skeleton.flip) == expected["flip_indices"]


def test_the_foot_is_a_part_of_the_whole_body() -> None:
    foot, whole = load_skeleton("coco_wholebody_foot"), load_skeleton("coco_wholebody")
    assert foot.names == whole.names[17:23] and foot.sigmas == whole.sigmas[17:23]
    assert [k + 17 for k in foot.flip] == list(whole.flip[17:23])


def test_the_x_ray_has_38_landmarks_and_no_sides() -> None:
    skeleton = load_skeleton("cephalometric38")
    assert skeleton.num_keypoints == 38 and skeleton.flip == tuple(range(38))
    assert (skeleton.upper, skeleton.lower) == ((), ()) and set(skeleton.sigmas) == {0.05}


@pytest.mark.parametrize("name", [*shipped_datasets(), "TEMPLATE"])
def test_every_descriptor_is_consistent(name: str) -> None:
    dataset = load_dataset(name)
    skeleton = dataset.skeleton
    assert [skeleton.flip[k] for k in skeleton.flip] == list(range(skeleton.num_keypoints))
    assert len(skeleton.sigmas) == skeleton.num_keypoints and min(skeleton.sigmas) > 0
    assert dataset.sigmas_estimated == skeleton.sigmas_estimated == (name in ESTIMATED | {"TEMPLATE"})
    assert not set(skeleton.upper) & set(skeleton.lower)
    for points in skeleton.maps:
        assert points in shipped_datasets()
    for other, mapping in skeleton.maps.items():
        assert set(mapping.values()) <= set(load_skeleton(other).names)
    if dataset.reader is not None:
        assert dataset.name == name or name == "TEMPLATE"
        assert dataset.splits and dataset.licence and dataset.source
        assert dataset.download or name == "own"


def test_which_descriptors_there_are() -> None:
    others = {
        "cephalometric38",
        "cephalometric38_stack",
        "coco_wholebody_foot",
        "face300w",
        "halpe_face",
        "halpe_hand",
        "lapa106_train",
        "own",
    }
    assert set(shipped_datasets()) == set(REFERENCE) | others


def test_a_borrowed_skeleton_is_the_same_one() -> None:
    humanart, coco = load_dataset("humanart"), load_dataset("coco17")
    assert humanart.skeleton == coco.skeleton and humanart.name == "humanart"
    assert humanart.splits != coco.splits


def test_missing_sigmas_follow_the_rule() -> None:
    coco = load_skeleton("coco17")
    known = dict(zip(coco.names, coco.sigmas, strict=True))
    points = ["nose", "left_hip", "left_knee", "left_ankle", "beak", "tail"]
    found = [known["nose"], known["left_hip"], known["left_knee"], known["left_ankle"]]
    assert estimate_sigmas(points, {}) == [*found, *[round(median(found), 4)] * 2]
    assert estimate_sigmas(points, {"coco17": {"beak": "right_hip"}})[4] == known["right_hip"]
    assert estimate_sigmas(["nose"], {"coco17": {"nose": "left_hip"}}) == [known["nose"]]
    assert estimate_sigmas(["a", "b"], {}) == [0.05, 0.05]
    face = load_skeleton("coco_wholebody_face")
    assert load_skeleton("wflw").sigmas[60] == face.sigmas[36]


def test_the_template_names_every_key() -> None:
    text = data_file("datasets", "TEMPLATE").read_text()
    for model in (_DatasetText, _SkeletonText, Split, Part, Instance):
        for key in model.model_fields:
            assert re.search(rf"\b{key}:", text), key


def test_the_commented_keys_of_the_template_load_too(tmp_path: Path) -> None:
    optional = re.compile(r"# (categories|parts):|#   - \{field|  # (sigmas|maps):|  #   [a-z_0-9]+: \{")
    lines = data_file("datasets", "TEMPLATE").read_text().splitlines()
    path = tmp_path / "birds.yaml"
    path.write_text("\n".join(line.replace("# ", "", 1) if optional.match(line) else line for line in lines))
    dataset = load_dataset(str(path))
    assert not dataset.sigmas_estimated and dataset.categories == ("bird",)
    assert dataset.instances[0].parts[1] == Part(field="wing_kpts", points=2, total=6, valid="wing_valid")
    assert dataset.skeleton.map_to(load_skeleton("coco17"))[:3] == ((0, 0), (1, 1), (2, 2))
    assert dataset.skeleton.maps["my_other_birds"]["left_wing + right_wing"] == "back"


def test_other_files_for_a_split() -> None:
    coco = load_dataset("coco17")
    assert coco.with_files("val", "mine.json", None).splits["val"] == coco.splits["val"].model_copy(
        update={"annotations": "mine.json"}
    )
    assert coco.with_files("new", "mine.json", "photos").splits["new"] == Split(
        annotations="mine.json", images="photos"
    )
    with pytest.raises(UserError, match="no split 'new'"):
        coco.with_files("new", "mine.json", None)


def edited(folder: Path, change: Any, name: str = "aic") -> Path:
    content = yaml.safe_load(data_file("datasets", name).read_text())
    change(content)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


MISTAKES: list[tuple[Any, str]] = [
    (lambda c: c["skeleton"]["sigmas"].pop(), "sigmas: 16 values for 17 points"),
    (lambda c: c["skeleton"]["sigmas"].__setitem__(2, 0),
    r"skeleton\.sigmas\.2: Input should be greater than 0"), (lambda c: c["skeleton"]["limbs"].append(["nose",
    "tail"]), "limbs: tail is not one of the points"), (lambda c: c["skeleton"]["limbs"].append(["nose"]),
    r"skeleton\.limbs\.19"), (lambda c: c["skeleton"]["upper"].append("tail"),
    "upper: tail is not one of the points"), (lambda c: c["skeleton"]["flip_pairs"].append(["left_ear",
    "left_hip"]), "flip_pairs: left_ear is in two pairs"),
    (lambda c: c["skeleton"]["flip_pairs"].append(["nose", "nose"]),
    "flip_pairs: nose is in two pairs, or on both sides"), (lambda c: c["skeleton"]["points"].__setitem__(1,
    "nose"), "twice"), (lambda c: c["skeleton"].update(maps={"aic": {"beak": "neck"}}),
    r"maps\.aic: beak is not one of the points"),
    (lambda c: c["skeleton"].update(maps={"aic": {"nose + beak": "neck"}}),
    r"maps\.aic: beak is not one of the points"),
    (lambda c: c["skeleton"].update(maps={"aic": {"nose": "neck", "left_ear": "neck"}}),
    r"maps\.aic: two points"),
    (lambda c: c["skeleton"].update(maps={"aic": {"nose + left_ear + left_eye": "neck"}}),
    "a mean of more than two"), (lambda c: c["skeleton"].update(maps={"aic": {"nose": "beak"}}),
    r"maps\.aic: beak is not a point of aic"),
    (lambda c: c["skeleton"].update(maps={"ochuman": {"nose": "beak"}}),
    r"maps\.ochuman: beak is not a point of ochuman"), (lambda c: c.update(colour="red"),
    "colour: unknown key"), (lambda c: c["skeleton"].update(colour="red"),
    r"yaml: skeleton\.colour: unknown key"), (lambda c: c.update(reader="csv"), "reader"),
    (lambda c: c.update(parts=[{"field": "keypoints", "points": 13}]), "parts: 13 points, skeleton 17"),
    (lambda c: c.update(parts=[{"field": "keypoints", "points": 17, "total": 16}]),
    "total 16 is less than points 17"), (lambda c: c.update(reader="aic", categories=["bird"]),
    "options of reader: coco"), (lambda c: c.update(parts=[], instances=[]), "already said in instances"),
    (lambda c: c.update(skeleton="humanart"), "humanart.yaml has no points of its own"),
    (lambda c: c.update(skeleton="no_such"), r"datasets/no_such\.yaml"), (lambda c: c.pop("skeleton"),
    "skeleton: Field required"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), MISTAKES)
def test_a_bad_descriptor_is_one_line(change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as error:
        load_dataset(str(edited(tmp_path, change, "coco17")))
    assert "\n" not in str(error.value)
    assert "mine.yaml" in str(error.value) or "no_such" in said


def test_unknown_names_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasets/no_such\.yaml"):
        load_dataset("no_such")
    with pytest.raises(UserError, match=r"gone\.yaml: no such data-set descriptor"):
        load_dataset(str(tmp_path / "gone.yaml"))
    for text in ("name: [", "", "- a"):
        (tmp_path / "broken.yaml").write_text(text)
        with pytest.raises(UserError, match=r"broken\.yaml[^\n]*$"):
            load_dataset(str(tmp_path / "broken.yaml"))


def test_defaults_read_the_keypoints_field(tmp_path: Path) -> None:
    def bare(content: dict[str, Any]) -> None:
        content["skeleton"] = {"points": ["a", "b"]}

    dataset: Dataset = load_dataset(str(edited(tmp_path, bare, "coco17")))
    assert dataset.instances == (Instance(box="bbox", parts=[Part(field="keypoints", points=2)]),)
    assert dataset.skeleton.limbs == () and dataset.skeleton.flip == (0, 1) and dataset.categories is None


@pytest.mark.parametrize(
    "name", ["nowhere", "", "a" * 300, "../coco17", "a\0b", "a/b.yaml", "a" * 300 + ".yaml"]
)
def test_a_borrowed_skeleton_that_is_nowhere_is_named_with_its_file(tmp_path: Path, name: str) -> None:
    def borrow(content: dict[str, Any]) -> None:
        content["skeleton"] = name

    path = edited(tmp_path, borrow)
    with pytest.raises(UserError) as caught:
        load_dataset(str(path))
    assert str(caught.value).startswith(f"{path}: skeleton: ") and len(str(caught.value)) < 600


def test_points_without_sides_are_mirrored_only_where_the_descriptor_says_so() -> None:
    mirrored = {name: load_skeleton(name).mirrors for name in shipped_datasets()}
    assert {name for name, yes in mirrored.items() if not yes} == {"cephalometric38", "cephalometric38_stack"}
    hand = load_skeleton("coco_wholebody_hand")
    assert hand.mirror is True and hand.flip == tuple(range(21))
    for skeleton in (hand, load_skeleton("coco17"), load_skeleton("cephalometric38")):
        assert Skeleton.from_dict(skeleton.to_dict()) == skeleton
        assert Skeleton.from_dict(skeleton.layout()).mirrors == skeleton.mirrors
    assert "mirror" not in load_skeleton("coco17").layout()  # what is written of it has not changed


@pytest.mark.parametrize("share", [[0.5, 0.5], [-0.1, 0.5], [0.2, 1.1], [0.9, 0.1]])
def test_a_share_goes_upwards_within_a_file(tmp_path: Path, share: list[float]) -> None:
    text = data_file("datasets", "cephalometric38_stack").read_text()
    path = tmp_path / "own.yaml"
    path.write_text(text.replace("share: [0, 0.75]", f"share: {share}"))
    with pytest.raises(UserError, match=r"own\.yaml: splits\.train: .*share .* must go from one number"):
        load_dataset(str(path))


def test_metrics_are_known_ones(tmp_path: Path) -> None:
    assert load_dataset("coco17").metrics == ("ap",)
    assert load_dataset("cephalometric38").metrics == ("ap", "mre")
    text = data_file("datasets", "cephalometric38").read_text()
    path = tmp_path / "own.yaml"
    path.write_text(text.replace("[ap, mre]", "[ap, mrre]"))
    with pytest.raises(UserError, match=r"own\.yaml: metrics\.1: "):
        load_dataset(str(path))
