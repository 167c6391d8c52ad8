"""Box AP is COCO's, and its ground truth is read with care."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from rtmpose.detection.evaluate import judge, read_people
from rtmpose.files import UserError

BOXES = {1: [[10, 10, 30, 60], [60, 5, 30, 80]], 2: [[0, 0, 50, 50]], 3: []}


def _content() -> dict[str, Any]:
    boxes = [(image, box) for image, some in BOXES.items() for box in some]
    people = [{"image_id": image, "bbox": box, "category_id": 1, "area": 900} for image, box in boxes]
    others = [
        {"image_id": 3, "bbox": [0, 0, 90, 90], "category_id": 1, "iscrowd": 1, "area": 100},
        {"image_id": 3, "bbox": [5, 5, 20, 20], "category_id": 18, "area": 400},
    ]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 90} for n in BOXES],
        "annotations": people + others,
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "truth.json").write_text(json.dumps(_content()))
    for number in BOXES:
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((90, 100, 3), number, np.uint8))
    return tmp_path


class Known:
    """A detector that knows the persons; `missed` of them it does not see, and in image 3 it sees a crowd."""

    def __init__(self, missed: int = 0, aside: float = 0.0) -> None:
        self.missed, self.aside = missed, aside

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        number = int(image[0, 0, 0])
        rows = [[x + self.aside, y, x + w + self.aside, y + h, 0.9] for x, y, w, h in BOXES[number]]
        if number == 3:
            return np.array([[0.0, 0.0, 40.0, 90.0, 0.95]])
        return np.array(rows[self.missed if number == 1 else 0 :], np.float64).reshape(-1, 5)


def test_ap_counts_people_and_passes_over_crowds(folder: Path) -> None:
    photographs = read_people(folder / "truth.json", folder)
    assert [len(one.boxes) for one in photographs] == [2, 1, 0]
    assert photographs[0].boxes.tolist() == [[10, 10, 40, 70], [60, 5, 90, 85]]
    perfect = judge(Known(), photographs)
    assert perfect.ap.value == pytest.approx(1.0) and perfect.ap.low == pytest.approx(1.0)
    assert (perfect.images, perfect.persons) == (3, 3) and perfect.milliseconds > 0
    one_missed = judge(Known(missed=1), photographs)
    assert one_missed.ap.value == pytest.approx(67 / 101) and one_missed.ap.low < 0.6
    aside = judge(Known(aside=6.0), photographs)  # IoU 2/3 for the slim ones, 0.79 for the wide one
    assert aside.figures["AP50"] == pytest.approx(1.0) and aside.figures["AP75"] < 0.5


IMAGE = {"id": 1, "file_name": "1.png", "width": 100, "height": 100}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}, "categories"),
        ({"annotations": [{"image_id": 1}]}, "annotation 0"),
        ({"images": [{"id": 1}]}, "file_name"),
        ({"images": []}, "lists no image"),
        ({"images": None}, "images"),
        ({"images": [IMAGE | {"width": "x"}]}, "image 1: width"),
        ({"images": [IMAGE | {"height": -3}]}, "image 1: width and height"),
        ({"images": [IMAGE | {"id": "abc"}]}, "images: id"),
        ({"images": [IMAGE | {"file_name": 3}]}, "image 1: file_name"),
        ({"images": [IMAGE, IMAGE]}, "id 1 is listed twice"),
        ({"images": [IMAGE]} | {"annotations": []}, "has no person"),
        ({"annotations": [{"image_id": [1], "bbox": [1, 1, 2, 2]}]}, "annotation 0: image_id"),
        ({"annotations": [{"image_id": 1, "bbox": [1, 1, 2, 2], "category_id": [3]}]}, "category_id"),
        ({"categories": [3]}, "categories"),
        ({"categories": [{"name": "person"}]}, "has no id"),
    ],
)
def test_other_files_are_refused(folder: Path, change: dict[str, Any], named: str) -> None:
    (folder / "truth.json").write_text(json.dumps(_content() | change))
    with pytest.raises(UserError) as error:
        read_people(folder / "truth.json", folder)
    assert "truth.json" in str(error.value) and named in str(error.value)
