"""Predicted poses as COCO results: how sure each is, and which are duplicates of a better one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtmpose.oks import oks_nms, soft_oks_nms

Rescore = Literal["bbox_keypoint", "bbox", "keypoint", "bbox_rle"]
Suppress = Literal["oks", "soft_oks", "none"]


@dataclass(frozen=True)
class Pose:
    """One predicted person: keypoints (K, 2) in image px, scores (K,), and what its rank is computed from."""

    image_id: Any
    keypoints: NDArray[np.floating]
    scores: NDArray[np.floating]
    box_score: float
    area: float  # of the padded crop, px^2: what the suppression of duplicates normalises distances by
    box: Sequence[float] = ()  # xywh px that was asked about
    annotation_id: int | None = None


def pose_score(pose: Pose, rescore: Rescore = "bbox_keypoint", keypoint_threshold: float = 0.2) -> float:
    """The score a pose is ranked by.

    "bbox_keypoint": box score x mean of the keypoint scores above the threshold (0 if none is); "keypoint":
    mean keypoint score; "bbox": box score; "bbox_rle": box score + mean + largest keypoint score.
    """
    if rescore == "bbox":
        return pose.box_score
    if rescore == "keypoint":
        return float(pose.scores.mean())
    if rescore == "bbox_rle":
        return float(pose.box_score + pose.scores.mean() + pose.scores.max())
    sure = pose.scores[pose.scores > keypoint_threshold]
    return float(pose.box_score * sure.mean()) if sure.size else 0.0


def to_results(
    poses: Iterable[Pose],
    sigmas: Sequence[float],
    *,
    rescore: Rescore = "bbox_keypoint",
    keypoint_threshold: float = 0.2,
    nms: Suppress = "oks",
    nms_threshold: float = 0.9,
) -> list[dict[str, Any]]:
    """Poses as COCO results, image after image: scored, and without duplicates of the same person.

    Args:
        sigmas: OKS falloff of the K points, for the suppression.
        rescore, keypoint_threshold: see `pose_score`.
        nms: "oks" drops what is more similar to a better pose than `nms_threshold`; "soft_oks" keeps the
            first 20 of an image after lowering the rank of similar ones; "none" keeps all.
    """
    by_image: dict[Any, list[tuple[Pose, float]]] = {}
    for pose in poses:
        by_image.setdefault(pose.image_id, []).append((pose, pose_score(pose, rescore, keypoint_threshold)))
    results = []
    for scored in by_image.values():
        keep: Iterable[int] = range(len(scored))
        if nms != "none":
            suppress = oks_nms if nms == "oks" else soft_oks_nms
            keypoints = np.stack([pose.keypoints for pose, _ in scored])
            areas = [pose.area for pose, _ in scored]
            keep = suppress(keypoints, [score for _, score in scored], areas, sigmas, nms_threshold)
        results += [result_of(*scored[index]) for index in keep]
    return results


def result_of(pose: Pose, score: float) -> dict[str, Any]:
    """A pose as COCO writes results: keypoints [x, y, score] * K flat in image px."""
    flat = np.concatenate([pose.keypoints, pose.scores[:, None]], axis=1).ravel().tolist()
    result: dict[str, Any] = {"image_id": pose.image_id, "category_id": 1, "keypoints": flat, "score": score}
    if len(pose.box):
        result["bbox"] = list(pose.box)
    if pose.annotation_id is not None:
        result["annotation_id"] = pose.annotation_id
    return result
