"""The mean pose: what a model has to beat that looks at no pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtmpose.evaluation.coco import GroundTruth, load_ground_truth, person_annotations
from rtmpose.evaluation.scoring import Pose, result_of
from rtmpose.files import UserError


class Labelled(Protocol):
    """What the mean pose needs of a person; `rtmpose.data.raw.annotations.Person` is one."""

    @property
    def box(self) -> Sequence[float]: ...  # xywh px
    @property
    def keypoints(self) -> NDArray[np.floating]: ...  # (K, 2) px
    @property
    def visible(self) -> NDArray[Any]: ...  # (K,)


def mean_pose(persons: Iterable[Labelled]) -> NDArray[np.float64]:
    """The mean of the labelled keypoints in their boxes' coordinates, (K, 2), (0, 0) top left and (1, 1)
    bottom right.

    A point that nobody has labelled lies in the middle. Raises UserError when there is no person.
    """
    total: Any = 0.0
    count: Any = 0.0
    for person in persons:
        box = np.asarray(person.box, np.float64)
        labelled = (np.asarray(person.visible) > 0)[:, None]  # (K, 1)
        total = total + np.where(labelled, (person.keypoints - box[:2]) / box[2:], 0.0)
        count = count + labelled
    if np.ndim(count) == 0:
        raise UserError("mean pose: the training set holds no person")
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), 0.5))


def mean_pose_predictions(mean: NDArray[np.float64], ground_truth: GroundTruth) -> list[dict[str, Any]]:
    """COCO results that put the mean pose (K, 2) into every annotated person's box: the floor any model must
    beat.
    """
    data, _ = load_ground_truth(ground_truth)
    results = []
    for annotation in person_annotations(data):
        box = np.asarray(annotation["bbox"], np.float64)
        points = box[:2] + mean * box[2:]
        pose = Pose(
            annotation["image_id"], points, np.ones(len(mean)), 1.0, 1.0, box.tolist(), annotation["id"]
        )
        results.append(result_of(pose, 1.0))
    return results
