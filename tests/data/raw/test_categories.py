"""Categories of any number and name, in annotation files and in detectors' files: one of them is read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rtmpose.data.raw.annotations import read_images
from rtmpose.data.raw.check import check_split
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.coco import evaluate_keypoints, load_detections
from rtmpose.files import UserError
from tests.data.raw.real_files import (
    COCO,
    Change,
    Desk,
    doubts,
    each_annotation,
    persons,
    plain_set,
    refused,
)
from tests.support import ROOT, realdata

NAN, INF = math.nan, math.inf


def categories(*pairs: tuple[Any, str], ids: tuple[Any, ...] = ()) -> Change:
    """These categories, and annotations of the categories `ids` in turn."""

    def change(content: dict[str, Any]) -> None:
        names = content["categories"][0]["keypoints"]
        content["categories"] = [{"id": number, "name": name, "keypoints": names} for number, name in pairs]
        for k, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = ids[k % len(ids)]

    return change


@pytest.mark.parametrize(
    "change",
    [
        categories((7, "person"), ids=(7,)),
        categories((-1, "person"), ids=(-1,)),
        categories(("1", "person"), ids=(1,)),
        categories((0, "people"), (1, "person"), ids=(1,)),
        categories((0, "person"), ids=("0",)),
        categories((3, "Person"), (4, "dog"), ids=(3,)),
        categories((90, "gymnast"), ids=(90,)),
        categories((1, "person"), ids=(None,)),
        categories((1, "person"), ids=(1, None)),
        lambda content: content.pop("categories"),
        lambda content: content.update(categories=None),
    ],
)
def test_whatever_the_number_of_the_category_figures_are_the_same(
    change: Change, desk: Desk, tmp_path: Path
) -> None:
    other = plain_set(tmp_path / "other", change)
    assert len(persons(other)) == 3
    assert desk.evaluate(other).figures == desk.plain_figures()


def test_of_several_categories_persons_are_read(desk: Desk, tmp_path: Path) -> None:
    mixed = categories((5, "dog"), (9, "person"), ids=(9, 5, 9))
    root = plain_set(tmp_path / "mixed", mixed)
    assert [person.annotation_id for person in persons(root)] == [1, 3]
    assert desk.evaluate(root).figures["persons"] == 2


def test_categories_without_points_do_not_count(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        categories((0, "horse"), (1, "rider"), ids=(1, 0))(content)
        content["annotations"][1]["keypoints"] = None

    assert [person.annotation_id for person in persons(plain_set(tmp_path / "a", change))] == [1, 3]


def test_an_unclear_category_is_one_line_that_names_the_choices(tmp_path: Path) -> None:
    root = plain_set(tmp_path / "mixed", categories((0, "horse"), (1, "rider"), ids=(1, 0)))
    line = refused(root)
    for part in ("1 (rider)", "0 (horse)", "`categories: [rider]`", "`categories: all`"):
        assert part in line


@pytest.mark.parametrize(
    ("key", "wanted"), [("all", [1, 2, 3]), ("[horse]", [2]), ("[rider, horse]", [1, 2, 3])]
)
def test_the_descriptor_chooses(key: str, wanted: list[int], desk: Desk, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "mixed", categories((0, "horse"), (1, "rider"), ids=(1, 0)))
    text = (
        (ROOT / "datasets/coco17.yaml")
        .read_text()
        .replace("reader: coco", f"reader: coco\ncategories: {key}")
    )
    (tmp_path / "mine.yaml").write_text(text)
    mine = load_dataset(str(tmp_path / "mine.yaml"))
    assert [person.annotation_id for person in persons(root, mine)] == wanted
    figures = desk.evaluate(root, "--descriptor", str(tmp_path / "mine.yaml")).figures
    assert figures["persons"] == len(wanted) and figures["AP"] >= 0


@pytest.mark.parametrize("wrong", [[1], {"id": 1}, True, 1.5])
def test_a_category_that_is_none_is_named(wrong: Any, tmp_path: Path) -> None:
    line = refused(plain_set(tmp_path / "a", each_annotation(category_id=wrong)))
    assert "annotation 1: category_id" in line and str(wrong) in line


def test_every_species_counts() -> None:
    dataset = load_dataset("ap10k").with_files("val", "others/ap10k/test_ap10k.json", "others/ap10k")
    images = list(read_images(dataset, realdata(), "val"))
    truth = {
        "images": [{"id": raw.image_id} for raw in images],
        "annotations": [annotation for raw in images for annotation in raw.annotations],
    }
    source = json.loads(realdata("others/ap10k/test_ap10k.json").read_text())
    assert {annotation["category_id"] for annotation in source["annotations"]} == {1, 26}
    first, second = truth["annotations"]
    perfect = [
        {"image_id": a["image_id"], "keypoints": a["keypoints"], "score": 1.0} for a in (first, second)
    ]
    for data in (truth, source):
        assert evaluate_keypoints(data, perfect, dataset.skeleton.sigmas)["AP"] == pytest.approx(1)
        assert evaluate_keypoints(data, perfect[:1], dataset.skeleton.sigmas)["AR"] == pytest.approx(0.5)
    assert not check_split(dataset, realdata(), "val", workers=1).doubts  # L_F_Paw is left_front_paw


def detector_file(path: Path, *ids: Any, image: Any = 1) -> Path:
    rows = [{"image_id": image, "bbox": [40, 12, 80, 95], "score": 0.9, "category_id": k} for k in ids]
    path.write_text(json.dumps([{k: v for k, v in row.items() if v is not None} for row in rows]))
    return path


@pytest.mark.parametrize(
    ("ids", "boxes"),
    [
        ((0,), 1),
        ((0, 0, 2, 5), 2),
        ((1, 18, 1), 2),
        ((7,), 1),
        (("0",), 1),
        ((None,), 1),
        ((None, 1), 2),
        ((), 0),
    ],
)
def test_a_detectors_persons_may_be_of_any_number(ids: tuple[Any, ...], boxes: int, tmp_path: Path) -> None:
    found = load_detections(detector_file(tmp_path / "boxes.json", *ids))
    assert sum(map(len, found.values())) == boxes


@pytest.mark.parametrize("ids", [(0, 1), (0, 1, 2), (3, 4)])
def test_an_unclear_category_of_a_detector_is_one_line(ids: tuple[int, ...], tmp_path: Path) -> None:
    path = detector_file(tmp_path / "boxes.json", *ids)
    with pytest.raises(
        UserError, match=rf"boxes\.json: .*categories {ids[0]}, {ids[1]}.*`detections_category: "
    ):
        load_detections(path)
    assert len(load_detections(path, category_id=ids[1])[1]) == 1
    with pytest.raises(UserError, match=r"no box has category_id 9, only "):
        load_detections(path, category_id=9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bbox", None), ("bbox", [1, 2, 3]), ("bbox", [1, 2, NAN, 4]), ("bbox", [1, 2, INF, 4]),
        ("bbox", "x"),
        ("score", NAN), ("score", "high"), ("score", None), ("image_id", None), ("image_id", [1]),
        ("category_id", [1]),
    ],
)  # fmt: skip
def test_a_detectors_field_that_means_nothing_is_named(field: str, value: Any, tmp_path: Path) -> None:
    good = {"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 1}
    (tmp_path / "boxes.json").write_text(json.dumps([good, {**good, field: value}]))
    with pytest.raises(UserError, match=rf"boxes\.json: entry 1: [^\n]*{field}[^\n]*$"):
        load_detections(tmp_path / "boxes.json")


def test_detections_know_images_whose_ids_are_of_another_type(desk: Desk, tmp_path: Path) -> None:
    def as_text(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = str(image["id"])

    plain, text = plain_set(tmp_path / "plain"), plain_set(tmp_path / "text", as_text)
    name = COCO.splits["val"].detections
    assert name is not None
    figures = []
    for root, image in ((plain, "1"), (text, 1), (plain, 1)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        detector_file(root / name, 0, image=image)
        figures.append(desk.evaluate(root, "--boxes", "detections").figures)
    assert figures[0] == figures[1] == figures[2]
    detector_file(plain / name, 0, image="a")
    assert "has no box of these images" in desk.evaluate(plain, "--boxes", "detections").error


def rider_too(ids: tuple[Any, ...], name: str = "rider") -> Change:
    return categories((1, "person"), (2, name), ids=ids)


@pytest.mark.parametrize("other", [2, -1, "abc", "nan"])
def test_persons_of_categories_that_are_not_read_are_told(other: Any, desk: Desk, tmp_path: Path) -> None:
    root = plain_set(tmp_path / "a", rider_too((1, other, other)))
    said = f"2 annotations with points are of categories that are not read: {other} ("
    found = desk.evaluate(root)
    assert found.figures["persons"] == 1
    for text in (doubts(root), found.notes, desk.shard(root).out):
        assert said in text and "(first annotations: 2, 3)" in text and "`categories: all`" in text


def test_categories_that_are_left_on_purpose_or_without_points_are_not_told(tmp_path: Path) -> None:
    def unlabelled(content: dict[str, Any]) -> None:
        rider_too((1, 2, 2))(content)
        for annotation in content["annotations"][1:]:
            annotation["keypoints"] = [0, 0, 0] * 17

    text = (ROOT / "datasets/coco17.yaml").read_text()
    chosen = text.replace("reader: coco", "reader: coco\ncategories: [person]")
    (tmp_path / "mine.yaml").write_text(chosen)
    root = plain_set(tmp_path / "a", rider_too((1, 2, 2)))
    assert doubts(root, load_dataset(str(tmp_path / "mine.yaml"))) == "" and doubts(root) != ""
    assert "2 (horse) 1" in doubts(plain_set(tmp_path / "b", rider_too((1, 2, 1), "horse")))
    content = plain_set(tmp_path / "c", unlabelled)
    # Where all of their points are zeros, nobody is lost.
    assert "not read" not in doubts(content)
