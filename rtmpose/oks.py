"""Object keypoint similarity between poses, and the pose suppression built on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def oks_matrix(
    keypoints: ArrayLike, areas: ArrayLike, sigmas: Sequence[float], visible_threshold: float | None = None
) -> Floats:
    """OKS of every pair of M predicted poses, (M, M): mean over points of exp(-d^2 / (2 (2 sigma)^2 a)).

    COCO's similarity (arXiv 1405.0312 and its keypoint task) with a = the mean of the two areas.

    Args:
        keypoints: (M, K, 2) or (M, K, 3) as (x, y, score), px. areas: (M,) px^2. sigmas: K falloff
        constants. visible_threshold: only points whose scores exceed it in both poses count; a pair without
        any has OKS 0.
    """
    points = np.asarray(keypoints, np.float64)
    area = np.asarray(areas, np.float64)
    variance = (2 * np.asarray(sigmas, np.float64)) ** 2  # (K,)
    squared = ((points[:, None, :, :2] - points[None, :, :, :2]) ** 2).sum(-1)  # (M, M, K)
    pair_area = (area[:, None] + area[None, :]) / 2 + np.spacing(1)
    similarity = np.exp(-squared / (2 * variance * pair_area[..., None]))
    if visible_threshold is None:
        return np.asarray(similarity.mean(-1))
    seen = points[..., 2] > visible_threshold
    both = seen[:, None] & seen[None, :]  # (M, M, K)
    return np.asarray((similarity * both).sum(-1) / np.maximum(both.sum(-1), 1))


def oks_nms(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    sigmas: Sequence[float],
    threshold: float = 0.9,
    visible_threshold: float | None = None,
) -> NDArray[np.int64]:
    """Indices of the poses kept, best first: a pose goes when its OKS with a better, kept one is above
    `threshold`.

    Shapes as in `oks_matrix`; of equal scores the later pose wins.
    """
    overlap = oks_matrix(keypoints, areas, sigmas, visible_threshold)
    order = _descending(np.asarray(scores, np.float64))
    kept: list[np.intp] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[overlap[best, order] <= threshold]
    return np.asarray(kept, np.int64)


def soft_oks_nms(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    sigmas: Sequence[float],
    threshold: float = 0.9,
    max_poses: int = 20,
    visible_threshold: float | None = None,
) -> NDArray[np.int64]:
    """Indices of at most `max_poses` poses: each pick lowers the others' ranking score by exp(-OKS^2 /
    threshold).

    Soft-NMS (arXiv 1704.04503, equation 2) on OKS. The caller's scores stay as they are.
    """
    overlap = oks_matrix(keypoints, areas, sigmas, visible_threshold)
    rank = np.array(scores, np.float64)
    order = _descending(rank)
    kept: list[np.intp] = []
    while order.size and len(kept) < max_poses:
        best, order = order[0], order[1:]
        kept.append(best)
        rank[order] *= np.exp(-(overlap[best, order] ** 2) / threshold)
        order = order[_descending(rank[order])]
    return np.asarray(kept, np.int64)


def _descending(scores: Floats) -> NDArray[np.intp]:
    """Order from high to low; equal scores from the last to the first, the same on every machine."""
    return np.asarray(np.argsort(scores, kind="stable")[::-1])


def keypoint_similarity(
    predicted: ArrayLike, labelled: ArrayLike, area: float, sigmas: Sequence[float]
) -> Floats:
    """exp(-d^2 / (2 (2 sigma)^2 area)) of predicted poses (..., K, 2) to labelled points (K, 2), px: (...,
    K).

    Its mean over the labelled points is the OKS of COCO's evaluation.
    """
    squared = ((np.asarray(predicted, np.float64) - np.asarray(labelled, np.float64)) ** 2).sum(
        -1
    )  # (..., K)
    variance = (2 * np.asarray(sigmas, np.float64)) ** 2
    return np.asarray(np.exp(-squared / (2 * variance * (area + np.spacing(1)))))
