"""Annotations in another skeleton's points: which point goes where, and what is not labelled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rtmpose.data.raw.coco_form import WHOLE_BODY_FIELDS
from rtmpose.data.shards.manifest import EvalImage
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.coco import annotation_keypoints
from rtmpose.evaluation.mapped import in_skeleton
from rtmpose.files import UserError

COCO, WHOLE, LAPA = (load_skeleton(name) for name in ("coco17", "coco_wholebody", "lapa106"))


def image_of(*annotations: dict[str, Any]) -> EvalImage:
    return EvalImage(7, np.zeros((8, 8, 3), np.uint8), 8, 8, list(annotations), "7.jpg")


def annotation(points: np.ndarray) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "bbox": [0, 0, 8, 8], "keypoints": points.ravel().tolist(), "area": 9.0}


def numbered(count: int) -> np.ndarray:
    """Points (count, 3) at (k, 2 k), all seen."""
    place = np.arange(count, dtype=np.float64)
    return np.stack([place, 2 * place, np.full(count, 2.0)], axis=1)


def only(images: Any) -> dict[str, Any]:
    (found,) = images
    (one,) = found.annotations
    return dict(one)


def test_points_go_by_the_map_and_a_mean_is_as_visible_as_its_parts() -> None:
    face = load_skeleton("coco_wholebody_face")
    points = numbered(68)
    points[37, 2], points[36] = 1.0, 0.0  # one half of a mean is hidden; one point is not labelled
    form = only(in_skeleton([image_of(annotation(points))], face, LAPA))
    mapped = annotation_keypoints(form)
    assert mapped.shape == (106, 3) and form["area"] == 9.0
    assert mapped[0].tolist() == [0, 0, 2] and mapped[2].tolist() == [1, 2, 2]
    assert mapped[68].tolist() == [37.5, 75, 1]  # of the points 37 and 38
    assert mapped[66].tolist() == [0, 0, 0] and mapped[1].tolist() == [0, 0, 0]
    pairs = len(face.maps["lapa106"])
    assert form["num_keypoints"] == (mapped[:, 2] > 0).sum() == pairs - 1


def test_a_whole_body_becomes_plain_points() -> None:
    points = numbered(133)
    form, begin = annotation(points[:17]), 0
    for field, count in WHOLE_BODY_FIELDS.items():
        form[field] = points[begin : begin + count].ravel().tolist()
        begin += count
    halpe = load_skeleton("halpe26")
    mapped = annotation_keypoints(only(in_skeleton([image_of(form)], WHOLE, halpe)))
    assert mapped.shape == (26, 3)
    assert mapped[:17].tolist() == points[:17].tolist() and mapped[20].tolist() == points[17].tolist()
    assert mapped[17:20, 2].tolist() == [0, 0, 0]  # it has no head, neck and hip


def test_an_annotation_without_points_has_none_afterwards() -> None:
    bare = {"id": 1, "image_id": 7, "bbox": [0, 0, 8, 8]}
    form = only(in_skeleton([image_of(bare)], load_skeleton("mpii"), COCO))
    assert form["num_keypoints"] == 0 and len(form["keypoints"]) == 51


def test_the_same_points_stay_as_they_are() -> None:
    image = image_of(annotation(numbered(17)))
    assert list(in_skeleton([image], replace(COCO, name="mine"), COCO)) == [image]


def test_a_set_without_a_point_in_common_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"datasets/lapa106\.yaml: none of its points is one of coco17; add maps"
    ):
        next(in_skeleton([image_of(annotation(numbered(106)))], LAPA, COCO))
