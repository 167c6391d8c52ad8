"""The labelled persons of an evaluation beside what was predicted in their own boxes, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.config.metrics import MEAN, Norm
from rtmpose.evaluation.coco import annotation_keypoints, person_annotations
from rtmpose.evaluation.error import set_mean_pose
from rtmpose.evaluation.scoring import Pose

Floats = NDArray[np.float64]
HEAD_SIZE = "head_size"  # of an annotation, px


class Unknown(Exception):
    """Why a norm is known of nobody, or cannot be: the metric is left out, and says so."""


@dataclass(frozen=True)
class Persons:
    """P persons with K points each. Rows are those of the ground truth that have a box and a labelled
    point.
    """

    names: Sequence[str]  # K
    predicted: Floats  # (P, K, 2) px
    true: Floats  # (P, K, 2) px
    labelled: NDArray[np.bool_]  # (P, K)
    boxes: Floats  # (P, 4) xywh px
    heads: Floats  # (P,) px, NaN where not known
    image: NDArray[np.int64]  # (P,) which of the images, from 0
    images: int

    @classmethod
    def of(cls, truth: Mapping[str, Any], poses: Iterable[Pose], names: Sequence[str]) -> Persons:
        """Every person with the pose of its own annotation id; the set's mean pose in the box of one who has
        none, as in `evaluation.error`: nothing is matched by similarity, which would choose among errors.
        """
        count, row = len(names), {image["id"]: index for index, image in enumerate(truth["images"])}
        persons = [each for each in person_annotations(truth) if each["image_id"] in row]
        own = {(pose.image_id, pose.annotation_id): pose.keypoints for pose in poses}
        points = np.array([annotation_keypoints(each)[:count] for each in persons]).reshape(-1, count, 3)
        boxes = np.array([each["bbox"] for each in persons], np.float64).reshape(-1, 4)
        if persons:
            mean = set_mean_pose(truth, count)  # (K, 2) in box coordinates
            predicted = boxes[:, None, :2] + mean * boxes[:, None, 2:]
            for place, each in enumerate(persons):
                predicted[place] = own.get((each["image_id"], each["id"]), predicted[place])
        else:
            predicted = np.zeros((0, count, 2))
        heads = np.array([each.get(HEAD_SIZE) or np.nan for each in persons], np.float64)
        image = np.array([row[each["image_id"]] for each in persons], np.int64)
        return cls(names, predicted, points[..., :2], points[..., 2] > 0, boxes, heads, image, len(row))

    def norm(self, norm: Norm) -> Floats:
        """The norm px of each person (P,), NaN where it is not known: `Unknown` if it is of nobody."""
        if isinstance(norm, float):
            return np.full(len(self.boxes), norm)
        if norm == "box":
            return np.asarray(self.boxes[:, 2:].max(1, initial=0.0))
        if norm == "head":
            if len(self.heads) and np.isnan(self.heads).all():
                raise Unknown(
                    f"no person has a {HEAD_SIZE}; put the file that the descriptor names as head_boxes "
                    f"where it says, or give {HEAD_SIZE} px in the annotations, then cut the shards again"
                )
            return self.heads
        (first, known), (second, also) = (self._end(end) for end in norm)
        distance = np.hypot(*(first - second).T)
        return np.where(known & also, distance, np.nan)

    def _end(self, end: str) -> tuple[Floats, NDArray[np.bool_]]:
        """A labelled point, or the mean of several (P, 2), and of whom all of them are labelled."""
        points = end.split(MEAN)
        missing = [point for point in points if point not in self.names]
        if missing:
            raise Unknown(f"its norm needs {missing[0]}, a point that the network's skeleton lacks")
        index = [list(self.names).index(point) for point in points]
        return self.true[:, index].mean(1), np.asarray(self.labelled[:, index].all(1))
