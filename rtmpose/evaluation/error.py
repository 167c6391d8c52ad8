"""Mean keypoint error: how far predicted points lie from the labelled ones, in units of the person's size.

AP stays near 0 while a network is far from good; this figure falls from the first epoch on, and its floor is
that of predicting the mean pose in every box.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.evaluation.coco import annotation_keypoints, person_annotations
from rtmpose.evaluation.mean_pose import mean_pose
from rtmpose.evaluation.scoring import Pose

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PointErrors:
    """Errors by image, in the order of the ground truth's images."""

    total: Floats  # (I,) sum over labelled points
    count: Floats  # (I,) labelled points

    @property
    def mean(self) -> float:
        """Mean over all labelled points of all persons; NaN where there is none."""
        return float(self.total.sum() / self.count.sum()) if self.count.any() else float("nan")


@dataclass(frozen=True)
class _Labelled:
    box: tuple[float, ...]
    keypoints: Floats
    visible: Floats


def set_mean_pose(truth: Mapping[str, Any], points: int) -> Floats:
    """The mean pose (K, 2) of a set's own persons in box coordinates: the best single pose for this very set,
    and therefore better than a mean pose of other persons would be.
    """
    persons = (
        (annotation, annotation_keypoints(annotation)[:points]) for annotation in person_annotations(truth)
    )
    return mean_pose(
        _Labelled(tuple(annotation["bbox"]), pose[:, :2], pose[:, 2]) for annotation, pose in persons
    )


def point_errors(truth: Mapping[str, Any], poses: Iterable[Pose], mean: Floats) -> PointErrors:
    """Distance of each labelled point to its prediction over the square root of the person's area, summed by
    image.

    Every person is compared with the pose that was predicted in its own ground-truth box, before any
    suppression of duplicates, by annotation id: nothing is matched by similarity, which would choose among
    errors. A person without a pose (its box lies outside the image) counts as the mean pose put into its box;
    no poses at all give the mean pose's own errors. Crowds, persons without a labelled point and persons
    without area are left out.

    Args:
        truth: content of a COCO annotation file, areas px^2. mean: the mean pose (K, 2) in box coordinates;
        of annotations with more points the first K are compared.
    """
    predicted = {(pose.image_id, pose.annotation_id): pose.keypoints for pose in poses}
    row = {image["id"]: index for index, image in enumerate(truth["images"])}
    total, count = np.zeros(len(row)), np.zeros(len(row))
    for annotation in person_annotations(truth):
        if annotation["area"] <= 0:
            continue
        points, box = (
            annotation_keypoints(annotation)[: len(mean)],
            np.asarray(annotation["bbox"], np.float64),
        )
        pose = predicted.get((annotation["image_id"], annotation["id"]), box[:2] + mean * box[2:])
        labelled = points[:, 2] > 0
        distances = np.linalg.norm(pose[labelled] - points[labelled, :2], axis=-1)
        total[row[annotation["image_id"]]] += distances.sum() / np.sqrt(annotation["area"])
        count[row[annotation["image_id"]]] += labelled.sum()
    return PointErrors(total, count)
