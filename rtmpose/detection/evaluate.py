"""How good boxes of people are: COCO's box AP with an interval, and the time an image takes.

Persons count whether or not points of them are labelled; crowds are neither to be found nor to be avoided,
as COCO has it.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtmpose.data.raw import fields
from rtmpose.data.raw.categories import COCO_PERSON, PERSON, Id, category_names, category_of
from rtmpose.data.raw.photograph import decode_photograph
from rtmpose.detection.detector import Detector
from rtmpose.evaluation.bootstrap import Interval, Ranking, resamples
from rtmpose.evaluation.coco import load_ground_truth
from rtmpose.files import UserError, read_bytes
from rtmpose.geometry import Floats

FIGURES = ("AP", "AP50", "AP75", "APS", "APM", "APL")
LEAST_SCORE = 0.05  # of boxes that AP counts, as RTMDet is evaluated
RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph of a COCO annotation file and the persons in it."""

    image_id: int
    path: Path
    width: int
    height: int
    boxes: Floats  # (n, 4) xyxy px, of persons who are no crowd
    annotations: tuple[dict[str, Any], ...]  # all, crowds too, in the fields that box AP reads


def read_people(annotations: Path, images: Path) -> list[Photograph]:
    """The photographs of a COCO annotation file and all persons in them, those without persons too.

    `images` is the folder that they lie in. The persons are the category `person`, or the only one there is.
    UserError naming file and entry for what is no such file, and where no photograph is listed.
    """
    data, name = load_ground_truth(annotations)
    category = _person_category(data, name)
    photographs = [_photograph(entry, name, images) for entry in data["images"]]
    if not photographs:
        raise UserError(f"{name}: lists no image; give a COCO annotation file with some")
    if twice := [id for id, count in Counter(one.image_id for one in photographs).items() if count > 1]:
        raise UserError(f"{name}: images: id {twice[0]} is listed twice; correct the file")
    persons: dict[Any, list[dict[str, Any]]] = {}
    for number, entry in enumerate(data["annotations"]):
        where = f"{name}: annotation {number}"
        if not isinstance(entry, Mapping) or not {"image_id", "bbox"} <= entry.keys():
            raise UserError(f"{where}: must be an object with image_id and bbox; give a COCO annotation file")
        box = fields.box(entry["bbox"])
        image = fields.whole(entry["image_id"], f"{where}: image_id")
        if category_of(entry, name) in (category, None) and box is not None:
            area = fields.positive(entry.get("area"), f"{where}: area")
            persons.setdefault(image, []).append({
                "bbox": list(box), "area": box[2] * box[3] if area is None else area, "category_id": 1,
                "iscrowd": int(fields.flag(entry.get("iscrowd"), f"{where}: iscrowd")),
            })  # fmt: skip
    if not any(one["iscrowd"] == 0 for own in persons.values() for one in own):
        raise UserError(f"{name}: has no person with a box; give a COCO annotation file with some")
    return [_with_people(one, persons.get(one.image_id, [])) for one in photographs]


def _person_category(data: Mapping[str, Any], name: str) -> Id:
    categories = category_names(data, name) or {COCO_PERSON: PERSON}
    people = [number for number, called in categories.items() if called == PERSON]
    if not people and len(categories) > 1:
        raise UserError(f"{name}: categories: none is called '{PERSON}'; correct the annotation file")
    return people[0] if people else next(iter(categories))


def _photograph(entry: Any, name: str, images: Path) -> Photograph:
    if not isinstance(entry, Mapping) or not {"id", "file_name", "width", "height"} <= entry.keys():
        raise UserError(f"{name}: images: an entry lacks id, file_name, width or height; correct the file")
    number = fields.whole(entry["id"], f"{name}: images: id")
    where = f"{name}: image {number}"
    width, height = (fields.positive(entry[side], f"{where}: {side}") for side in ("width", "height"))
    if width is None or height is None:
        raise UserError(f"{where}: width and height must be numbers above 0; correct the file")
    if not isinstance(entry["file_name"], str):
        raise UserError(
            f"{where}: file_name: {fields.shown(entry['file_name'])} is no name; correct the file"
        )
    return Photograph(number, images / entry["file_name"], int(width), int(height), np.empty((0, 4)), ())


def _with_people(photograph: Photograph, people: Sequence[dict[str, Any]]) -> Photograph:
    boxes = np.array([one["bbox"] for one in people if not one["iscrowd"]], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return replace(photograph, boxes=boxes, annotations=tuple(people))


def read_pixels(photograph: Photograph) -> NDArray[np.uint8]:
    """Its pixels (H, W, 3) RGB as they are stored, which COCO's boxes refer to."""
    content = read_bytes(photograph.path, "put it there, or name the folder of the images")
    return decode_photograph(content, photograph.path, "stored")


@dataclass(frozen=True)
class Judgement:
    """Box AP with its 95 % interval over images, COCO's other figures, and the median time an image takes."""

    ap: Interval
    figures: dict[str, float]
    images: int
    persons: int
    milliseconds: float


def judge(detector: Detector, photographs: Sequence[Photograph], seed: int = 0) -> Judgement:
    """What a detector (opened with a low threshold, such as LEAST_SCORE) finds, beside what was annotated."""
    results: list[dict[str, Any]] = []
    seconds = []
    for photograph in photographs:
        pixels = read_pixels(photograph)
        start = time.perf_counter()
        found = detector(pixels)
        seconds.append(time.perf_counter() - start)
        results.extend(as_results(photograph.image_id, found))
    evaluation = matched_boxes(photographs, results)
    ranking = Ranking.of_matched(evaluation, [photograph.image_id for photograph in photographs])
    figures = box_figures(evaluation)
    draws = resamples(len(photographs), RESAMPLES, seed)
    return Judgement(
        ap=Interval.of(figures["AP"], ranking.resampled_ap(draws)),
        figures=figures,
        images=len(photographs),
        persons=sum(len(photograph.boxes) for photograph in photographs),
        milliseconds=1000 * median(seconds),
    )


def as_results(image_id: int, found: Floats) -> Iterable[dict[str, Any]]:
    """Boxes (N, 5) xyxy and score as COCO's results."""
    for x1, y1, x2, y2, score in found.tolist():
        yield {
            "image_id": image_id,
            "category_id": 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "score": score,
        }


def matched_boxes(photographs: Sequence[Photograph], results: Sequence[Mapping[str, Any]]) -> COCOeval:
    """pycocotools' evaluation with boxes matched to persons in every image, not yet accumulated."""
    frame = {"images": [{"id": one.image_id} for one in photographs], "categories": [{"id": 1}]}
    truth = [{**own, "image_id": one.image_id} for one in photographs for own in one.annotations]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables; errors still come through
        evaluation = COCOeval(_indexed(frame, truth), _indexed(frame, results), "bbox")
        evaluation.evaluate()
    return evaluation


def _indexed(frame: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> COCO:
    indexed = COCO()
    numbered = [{"iscrowd": 0, **one, "id": number} for number, one in enumerate(annotations, 1)]
    indexed.dataset = {**frame, "annotations": numbered}
    indexed.createIndex()
    return indexed


def box_figures(evaluation: COCOeval) -> dict[str, float]:
    """COCO's six APs of boxes: all, at IoU 0.5 and 0.75, of small, medium and large persons; -1 where there
    are none.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    return {key: float(value) for key, value in zip(FIGURES, evaluation.stats[: len(FIGURES)], strict=True)}
