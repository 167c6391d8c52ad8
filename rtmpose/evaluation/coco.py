"""COCO's keypoint AP and AR by pycocotools, for any number of points and for the parts of COCO-WholeBody."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from rtmpose.files import UserError, read_json

STATISTICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")

#: The fields of a COCO-WholeBody annotation, in the order of its 133 points, and how many points each holds.
WHOLE_BODY_FIELDS = {
    "keypoints": 17,
    "foot_kpts": 6,
    "face_kpts": 68,
    "lefthand_kpts": 21,
    "righthand_kpts": 21,
}
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


def annotation_keypoints(annotation: Mapping[str, Any]) -> np.ndarray:
    """The points (K, 3) of an annotation as (x, y, v); those of all fields where it is a
    COCO-WholeBody one.
    """
    values = list(annotation.get("keypoints") or ())
    if len(values) == 3 * WHOLE_BODY_FIELDS["keypoints"] and "foot_kpts" in annotation:
        values = [value for field in WHOLE_BODY_FIELDS for value in annotation[field]]
    return np.asarray(values, np.float64).reshape(-1, 3)


def evaluate_keypoints(
    ground_truth_json: GroundTruth,
    predictions: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """COCO's ten keypoint figures: AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL.

    Args:
        ground_truth_json: COCO annotation file, or its content; areas are those of the annotations (px^2).
        predictions: COCO results: image_id, keypoints [x, y, score] * K flat in image px, score; category_id or 1; bbox
            (x, y, w, h) or the extent of the points, whose area an unmatched prediction is medium or large by.
        sigmas: OKS falloff of the K points; None: COCO's 17. Of COCO-WholeBody annotations 17 means the body's points,
            133 all of them.

    Returns:
        Fractions of 1. As pycocotools has it, -1 where the ground truth has no person of that size; no
        predictions give 0.

    Raises:
        UserError: an unreadable annotation file, a prediction whose keypoints have another length or whose image is not
            in the ground truth.
    """
    return _statistics(matched(ground_truth_json, predictions, sigmas))


def matched(
    ground_truth_json: GroundTruth,
    predictions: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float] | None = None,
) -> COCOeval:
    """pycocotools' evaluation with predictions matched to persons in every image, not yet accumulated.

    Arguments and errors as in `evaluate_keypoints`.
    """
    data, name = load_ground_truth(ground_truth_json)
    spread = np.asarray(Params(iouType="keypoints").kpt_oks_sigmas if sigmas is None else sigmas, np.float64)
    truth = _truth(data, name, len(spread))
    return _matched(data, truth, _detections(predictions, len(spread), data), spread)


def evaluate_whole_body(
    ground_truth_json: GroundTruth, predictions: Sequence[Mapping[str, Any]], sigmas: Sequence[float]
) -> dict[str, dict[str, float]]:
    """The ten figures for body, foot, face, left_hand, right_hand and wholebody of COCO-WholeBody (133
    points).

    Arguments and errors as in `evaluate_keypoints`. A person counts for a part when a point of that part is
    labelled.
    """
    data, name = load_ground_truth(ground_truth_json)
    truth, detections = _truth(data, name, 133), _detections(predictions, 133, data)
    return {
        part: _statistics(_matched(
            data, [_slice(item, points) for item in truth], [_slice(item, points) for item in detections],
            np.asarray(sigmas, np.float64)[points],
        ))
        for part, points in WHOLE_BODY_PARTS.items()
    }  # fmt: skip


def _slice(item: dict[str, Any], points: slice) -> dict[str, Any]:
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
    for annotation in data["annotations"]:
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
            raise UserError(f"{name}: annotation {annotation.get('id')}: {problem}")
        truth.append({
            "id": len(truth) + 1, "image_id": annotation["image_id"], "area": annotation["area"],
            "bbox": annotation["bbox"], "iscrowd": annotation.get("iscrowd", 0),
            "category_id": annotation.get("category_id", 1), "keypoints": points.ravel().tolist(),
            "num_keypoints": int((points[:, 2] > 0).sum()),
        })  # fmt: skip
    return truth


def _detections(
    predictions: Sequence[Mapping[str, Any]], count: int, data: Mapping[str, Any]
) -> list[dict[str, Any]]:
    known = {image["id"] for image in data["images"]}
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
        if prediction["image_id"] not in known:
            raise UserError(
                f"{where}: no such image in the ground truth; evaluate on the split that was predicted"
            )
        detections.append({
            "id": index + 1, "image_id": prediction["image_id"], "category_id": prediction.get("category_id",
            1), "keypoints": list(prediction["keypoints"]), "score": float(prediction["score"]),
            "bbox": (box := _box(prediction)), "area": box[2] * box[3],
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
    frame = {"images": data["images"], "categories": data.get("categories") or [{"id": 1, "name": "person"}]}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints tables; errors still come through
        indexed = (_index({**frame, "annotations": items}) for items in (truth, detections))
        evaluation = COCOeval(*indexed, "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
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
    path: str | Path, score_threshold: float = 0.0, category_id: int = 1
) -> dict[int, list[tuple[np.ndarray, float]]]:
    """Boxes of a COCO detector file by image, {image_id: [(xywh px (4,), score)]}, scored at least
    `score_threshold`.

    Raises:
        UserError: the file cannot be read, is cut off, or is not a list of bbox, image_id, score.
    """
    rows = read_json(path)
    boxes: dict[int, list[tuple[np.ndarray, float]]] = {}
    for index, row in enumerate(rows if isinstance(rows, list) else [None]):
        if (
            not isinstance(row, Mapping)
            or not {"image_id", "bbox", "score"} <= row.keys()
            or len(row["bbox"]) != 4
        ):
            raise UserError(
                f"{path}: entry {index}: must be an object with image_id, bbox (x, y, w, h) and score"
            )
        if row.get("category_id", category_id) == category_id and row["score"] >= score_threshold:
            boxes.setdefault(row["image_id"], []).append(
                (np.asarray(row["bbox"], np.float64), float(row["score"]))
            )
    return boxes


def person_annotations(data: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The annotations that a pose is predicted for: no crowds, a box of some size, a labelled point in the
    image.
    """
    annotations = data["annotations"] if isinstance(data, Mapping) else data
    kept = []
    for annotation in annotations:
        points = annotation_keypoints(annotation)
        labelled = points.size > 0 and bool((points[:, 2] > 0).any()) and points.max() > 0
        if not annotation.get("iscrowd", 0) and min(annotation["bbox"][2:]) > 0 and labelled:
            kept.append(annotation)
    return kept
