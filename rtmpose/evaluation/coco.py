"""COCO's keypoint AP and AR by pycocotools, for any number of points and for the parts of COCO-WholeBody."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from rtmpose.data.raw import fields
from rtmpose.data.raw.categories import category_of, detected_category
from rtmpose.data.raw.coco_form import (
    NO_BOX,
    SEEN,
    WHOLE_BODY_FIELDS,
    annotation_keypoints,
    area_of_box,
    countable,
    person_annotations,
)
from rtmpose.data.raw.fields import ImageIds
from rtmpose.files import UserError, read_json

__all__ = [
    "STATISTICS",
    "WHOLE_BODY_FIELDS",
    "WHOLE_BODY_PARTS",
    "annotation_keypoints",
    "evaluate_keypoints",
    "evaluate_whole_body",
    "load_detections",
    "load_ground_truth",
    "matched",
    "matched_parts",
    "person_annotations",
]

STATISTICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")

WHOLE_BODY_PARTS = {
    "body": slice(0, 17),
    "foot": slice(17, 23),
    "face": slice(23, 91),
    "left_hand": slice(91, 112),
    "right_hand": slice(112, 133),
    "wholebody": slice(0, 133),
}

GroundTruth = str | Path | Mapping[str, Any]


def load_ground_truth(ground_truth: GroundTruth) -> tuple[dict[str, Any], str]:
    """The annotation file, or the dict that stands for one, and a name for it in messages."""
    name = "ground truth" if isinstance(ground_truth, Mapping) else str(ground_truth)
    data = ground_truth if isinstance(ground_truth, Mapping) else read_json(ground_truth)
    if not isinstance(data, Mapping):
        raise UserError(f"{name}: must be a COCO annotation file with the keys images and annotations")
    for key in ("images", "annotations"):
        if not isinstance(data.get(key), list):
            raise UserError(f"{name}: key {key!r} is missing or not a list; give a COCO annotation file")
    return dict(data), name


def evaluate_keypoints(
    ground_truth_json: GroundTruth,
    predictions: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """COCO's ten keypoint figures: AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL.

    Categories are not told apart: who is annotated with points is a person, whatever the file calls it. An
    area that is null, 0, negative or not a number counts as a share of the box, as where a raw file has none
    (`rtmpose.data.raw.coco_form`).

    Args:
        ground_truth_json: COCO annotation file, or its content; areas are those of the annotations (px^2).
        predictions: COCO results: image_id, keypoints [x, y, score] * K flat in image px, score; bbox (x, y,
            w, h) or
            the extent of the points, whose area an unmatched prediction is medium or large by.
        sigmas: OKS falloff of the K points; None: COCO's 17. Of COCO-WholeBody annotations 17 means the
            body's
            points, 133 all of them.

    Returns:
        Fractions of 1. As pycocotools has it, -1 where the ground truth has no person of that size; no
        predictions give 0.

    Raises:
        UserError: an unreadable annotation file, a prediction whose keypoints have another length, are not
        finite, or
            whose image is not in the ground truth.
    """
    return _statistics(matched(ground_truth_json, predictions, sigmas))


def matched(
    ground_truth_json: GroundTruth,
    predictions: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float] | None = None,
    *,
    seen: bool = False,
) -> COCOeval:
    """pycocotools' evaluation with predictions matched to persons in every image, not yet accumulated; the
    images in its `evalImgs` have the ids of the ground truth.

    Arguments and errors as in `evaluate_keypoints`. With `seen`, persons all of whose labelled points are
    hidden are ignored, as CrowdPose has it: who finds them is neither right nor wrong.
    """
    data, name = load_ground_truth(ground_truth_json)
    spread = np.asarray(Params(iouType="keypoints").kpt_oks_sigmas if sigmas is None else sigmas, np.float64)
    truth = _truth(data, name, len(spread))
    if seen:
        for item in truth:
            item["num_keypoints"] = sum(flag >= SEEN for flag in item["keypoints"][2::3])
    return _matched(data, truth, _detections(predictions, len(spread), data), spread)


def evaluate_whole_body(
    ground_truth_json: GroundTruth, predictions: Sequence[Mapping[str, Any]], sigmas: Sequence[float]
) -> dict[str, dict[str, float]]:
    """The ten figures for body, foot, face, left_hand, right_hand and wholebody of COCO-WholeBody (133
    points).

    Arguments and errors as in `evaluate_keypoints`. A person counts for a part when a point of that part is
    labelled.
    """
    evaluations = matched_parts(ground_truth_json, predictions, sigmas, WHOLE_BODY_PARTS)
    return {part: _statistics(evaluation) for part, evaluation in evaluations.items()}


def matched_parts(
    ground_truth_json: GroundTruth,
    predictions: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float],
    parts: Mapping[str, slice | Sequence[int]],
) -> dict[str, COCOeval]:
    """`matched` for each part of the points: a slice, or positions. A person counts for a part when a point
    of that part is labelled; its area is the whole person's.
    """
    data, name = load_ground_truth(ground_truth_json)
    truth, detections = _truth(data, name, len(sigmas)), _detections(predictions, len(sigmas), data)
    return {
        part: _matched(
            data, [_slice(item, points) for item in truth], [_slice(item, points) for item in detections],
            np.asarray(sigmas, np.float64)[points],
        )
        for part, points in parts.items()
    }  # fmt: skip


def _slice(item: dict[str, Any], points: slice | Sequence[int]) -> dict[str, Any]:
    chosen = np.asarray(item["keypoints"]).reshape(-1, 3)[points]
    part = {**item, "keypoints": chosen.ravel().tolist()}
    if "num_keypoints" in item:
        part["num_keypoints"] = int((chosen[:, 2] > 0).sum())
    return part


def _truth(data: Mapping[str, Any], name: str, count: int) -> list[dict[str, Any]]:
    """Annotations with `count` points each, copied, since pycocotools writes into what it is given, and
    numbered from 1, since its matches say 0 for none.
    """
    truth: list[dict[str, Any]] = []
    ids = ImageIds(image["id"] for image in data["images"])
    for annotation in data["annotations"]:
        where = f"{name}: annotation {annotation.get('id')}"
        points = annotation_keypoints(annotation)
        if len(points) == 133 and count == 17:
            points = points[:17]
        missing = [key for key in ("id", "image_id", "area", "bbox") if key not in annotation]
        if missing or len(points) != count:
            problem = (
                f"key {missing[0]!r} is missing"
                if missing
                else f"has {len(points)} keypoints, expected {count}"
            )
            raise UserError(f"{where}: {problem}")
        points, box = countable(points), fields.box(annotation["bbox"]) or NO_BOX
        area = fields.positive(annotation["area"], f"{where}: area")
        image_id = ids.find(annotation["image_id"])
        truth.append({
            "id": len(truth) + 1,
            "image_id": annotation["image_id"] if image_id is None else image_id,
            "area": area_of_box(box, points) if area is None else area,
            "bbox": list(box),
            "iscrowd": int(fields.flag(annotation.get("iscrowd"), f"{where}: iscrowd")),
            "category_id": 1,
            "keypoints": points.ravel().tolist(),
            "num_keypoints": int((points[:, 2] > 0).sum()),
        })  # fmt: skip
    return truth


def _detections(
    predictions: Sequence[Mapping[str, Any]], count: int, data: Mapping[str, Any]
) -> list[dict[str, Any]]:
    ids = ImageIds(image["id"] for image in data["images"])
    detections = []
    for index, prediction in enumerate(predictions):
        where = f"prediction {index} (image_id {prediction.get('image_id')})"
        missing = [key for key in ("image_id", "keypoints", "score") if key not in prediction]
        if missing:
            raise UserError(f"{where}: key {missing[0]!r} is missing")
        length = len(prediction["keypoints"])
        if length != 3 * count:
            raise UserError(
                f"{where}: keypoints has length {length}, expected {3 * count} (x, y, score) * {count}"
            )
        if (image_id := ids.find(prediction["image_id"])) is None:
            raise UserError(
                f"{where}: no such image in the ground truth; evaluate on the split that was predicted"
            )
        # COCO's matching takes a similarity that is NaN for a perfect one.
        if not np.isfinite([*prediction["keypoints"], prediction["score"]]).all():
            raise UserError(
                f"{where}: keypoints or score are not finite; the weights are damaged, or training diverged: "
                "evaluate others"
            )
        box = _box(prediction)
        detections.append({
            "id": index + 1, "image_id": image_id, "category_id": 1,
            "keypoints": list(prediction["keypoints"]), "score": float(prediction["score"]),
            "bbox": box, "area": box[2] * box[3],
        })  # fmt: skip
    return detections


def _box(prediction: Mapping[str, Any]) -> list[float]:
    """The prediction's own box, else the extent of its points: it decides whether it counts as medium or
    large.
    """
    if prediction.get("bbox"):
        return list(prediction["bbox"])
    points = np.asarray(prediction["keypoints"], np.float64).reshape(-1, 3)[:, :2]
    return [*points.min(0).tolist(), *np.ptp(points, 0).tolist()]


def _matched(
    data: Mapping[str, Any], truth: list[dict[str, Any]], detections: list[dict[str, Any]], sigmas: np.ndarray
) -> COCOeval:
    # pycocotools sorts the images' ids, which numbers and texts together do not allow: it gets numbers.
    ids = sorted({image["id"] for image in data["images"]}, key=lambda given: (isinstance(given, str), given))
    number = {given: place for place, given in enumerate(ids)}
    frame = {"images": [{"id": place} for place in number.values()], "categories": [{"id": 1}]}
    numbered = (
        [{**item, "image_id": number[item["image_id"]]} for item in items if item["image_id"] in number]
        for items in (truth, detections)
    )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints tables; errors still come through
        indexed = (_index({**frame, "annotations": items}) for items in numbered)
        evaluation = COCOeval(*indexed, "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
    for item in filter(None, evaluation.evalImgs):
        item["image_id"] = ids[item["image_id"]]
    return evaluation


def _statistics(evaluation: COCOeval) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    return {key: float(value) for key, value in zip(STATISTICS, evaluation.stats, strict=True)}


def _index(dataset: dict[str, Any]) -> COCO:
    indexed = COCO()
    indexed.dataset = dataset
    indexed.createIndex()
    return indexed


def load_detections(
    path: str | Path, score_threshold: float = 0.0, category_id: int | None = None
) -> dict[int | str, list[tuple[np.ndarray, float]]]:
    """Boxes of a COCO detector file by image, {image_id: [(xywh px (4,), score)]}, scored at least
    `score_threshold`.

    Image ids are as `fields.identity` has them: "7" and 7 are one. The person's category is `category_id`,
    else the one that `detected_category` finds.

    Raises:
        UserError: the file cannot be read, is cut off, or is not a list of bbox, image_id, score; a box or
        score in it
            is not finite; it is unclear which category is the person.
    """
    rows = read_json(path)
    found: list[tuple[Any, Any, np.ndarray, float]] = []  # category, image, box, score
    for index, row in enumerate(rows if isinstance(rows, list) else [None]):
        where = f"{path}: entry {index}"
        if not isinstance(row, Mapping) or not {"image_id", "bbox", "score"} <= row.keys():
            raise UserError(f"{where}: must be an object with image_id, bbox (x, y, w, h) and score")
        box, image = fields.four(row["bbox"]), fields.identity(row["image_id"])
        if box is None or image is None:
            wrong = "bbox" if box is None else "image_id"
            raise UserError(
                f"{where}: must be an object with image_id, bbox (x, y, w, h) and score; {wrong} is "
                f"{fields.shown(row[wrong])}"
            )
        score = fields.number(row["score"], f"{where}: score")
        if score is None:
            raise UserError(
                f"{where}: score is {fields.shown(row['score'])}, not a finite number; correct it"
            )
        if score >= score_threshold:
            found.append((category_of(row, where), image, np.asarray(box, np.float64), score))
    person = detected_category((category for category, *_ in found), category_id, str(path))
    boxes: dict[int | str, list[tuple[np.ndarray, float]]] = {}
    for category, image, box_px, score in found:
        if category in (person, None) and min(box_px[2:]) > 0:  # a box without a size is nobody
            boxes.setdefault(image, []).append((box_px, score))
    return boxes
