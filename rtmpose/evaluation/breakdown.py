"""Tables of predictions: errors by keypoint, similarity by kind of person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.evaluation.coco import GroundTruth, annotation_keypoints, load_ground_truth, person_annotations
from rtmpose.oks import keypoint_similarity
from rtmpose.skeleton import Skeleton

OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class Match:
    """A labelled person beside the prediction most like it, if there is any."""

    annotation: Mapping[str, Any]
    labelled: NDArray[np.bool_]  # (K,)
    visible: NDArray[np.bool_]  # (K,) and not hidden
    similarity: NDArray[np.floating]  # (K,), of all points
    distance: NDArray[np.floating]  # (K,), px; inf without a prediction

    @property
    def oks(self) -> float:
        return float(self.similarity[self.labelled].mean())


def matches(
    ground_truth: GroundTruth, predictions: Iterable[Mapping[str, Any]], sigmas: Sequence[float]
) -> Iterator[Match]:
    """Every person with its own prediction where predictions name their annotation, else with the most
    similar one.
    """
    by_person: dict[Any, list[Mapping[str, Any]]] = {}
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for prediction in predictions:
        if "annotation_id" in prediction:
            by_person.setdefault(prediction["annotation_id"], []).append(prediction)
        else:
            by_image.setdefault(prediction["image_id"], []).append(prediction)
    data, _ = load_ground_truth(ground_truth)
    count = len(sigmas)
    for annotation in person_annotations(data):
        truth = annotation_keypoints(annotation)[:count]
        candidates = by_person.get(annotation["id"], []) + by_image.get(annotation["image_id"], [])
        labelled, visible = truth[:, 2] > 0, truth[:, 2] > 1
        if not labelled.any():
            continue
        if not candidates:
            yield Match(annotation, labelled, visible, np.zeros(count), np.full(count, np.inf))
            continue
        points = np.array([prediction["keypoints"] for prediction in candidates]).reshape(
            len(candidates), count, 3
        )
        similarity = keypoint_similarity(points[..., :2], truth[:, :2], annotation["area"], sigmas)  # (n, K)
        best = int(similarity[:, labelled].mean(-1).argmax())
        distance = np.linalg.norm(points[best, :, :2] - truth[:, :2], axis=-1)
        yield Match(annotation, labelled, visible, similarity[best], distance)


def per_keypoint_error(
    ground_truth: GroundTruth, predictions: Iterable[Mapping[str, Any]], skeleton: Skeleton, pck: float = 0.1
) -> list[dict[str, Any]]:
    """One row for each keypoint: keypoint, count, median_error, pck, oks.

    Errors are distances over the square root of the person's area; `pck` is the share at or below that bound,
    `oks` the mean similarity. A person whom nothing was predicted for counts as infinitely wrong.
    `median_error` is None where the median is such a person; all figures are None where the keypoint is never
    labelled.
    """
    found = list(matches(ground_truth, predictions, skeleton.sigmas))
    rows = []
    for index, name in enumerate(skeleton.names):
        chosen = [match for match in found if match.labelled[index]]
        errors = np.array([match.distance[index] / np.sqrt(match.annotation["area"]) for match in chosen])
        rows.append({
            "keypoint": name,
            "count": len(chosen),
            "median_error": _finite(np.median(errors)) if chosen else None,
            "pck": float((errors <= pck).mean()) if chosen else None,
            "oks": float(np.mean([match.similarity[index] for match in chosen])) if chosen else None,
        })  # fmt: skip
    return rows


def _finite(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def breakdown(
    ground_truth: GroundTruth, predictions: Iterable[Mapping[str, Any]], sigmas: Sequence[float]
) -> list[dict[str, Any]]:
    """Rows attribute, value, count, oks, recall: one for all persons, one for each value of their
    `attributes`.

    `oks` is the mean similarity of a person to its prediction (0 where there is none), `recall` the share of
    persons above an OKS of 0.50, 0.55 ... 0.95, mean over these. Numbers between 0 and 1 are counted in
    quarters.
    """
    groups: dict[tuple[str, str], list[float]] = {("all", "all"): []}
    for match in matches(ground_truth, predictions, sigmas):
        attributes = match.annotation.get("attributes") or {}
        for key in [("all", "all"), *((name, _label(value)) for name, value in attributes.items())]:
            groups.setdefault(key, []).append(match.oks)
    return [_row(name, value, np.array(groups[name, value])) for name, value in sorted(groups)]


def _row(name: str, value: str, oks: NDArray[np.floating]) -> dict[str, Any]:
    recall = float((oks[:, None] > OKS_THRESHOLDS).mean()) if oks.size else 0.0
    return {
        "attribute": name, "value": value, "count": len(oks),
        "oks": float(oks.mean()) if oks.size else 0.0, "recall": recall,
    }  # fmt: skip


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and 0 <= value <= 1:
        low = min(int(value * 4), 3) * 25
        return f"{low}-{low + 25} %"
    return str(value)
