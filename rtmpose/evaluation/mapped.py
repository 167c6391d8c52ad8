"""Evaluation sets of another skeleton than the network's: their annotations in the network's points.

A network that was trained on several sets is judged on each of them by the points that the set has. The
others count as not labelled, so that no metric asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rtmpose.data.raw.coco_form import WHOLE_BODY_FIELDS, annotation_keypoints
from rtmpose.data.shards.manifest import EvalImage
from rtmpose.files import UserError
from rtmpose.skeleton import Skeleton


def in_skeleton(images: Iterable[EvalImage], own: Skeleton, wanted: Skeleton) -> Iterator[EvalImage]:
    """`images` whose annotations have the points of `own`, with those of `wanted`, by `Skeleton.map_to`; as
    they are where the two have the same points.

    Raises UserError where no point of `own` stands for one of `wanted`.
    """
    if own.names == wanted.names:
        yield from images
        return
    pairs = np.array(own.map_to(wanted))
    if pairs.max() < 0:
        raise UserError(
            f"datasets/{own.name}.yaml: none of its points is one of {wanted.name}; add maps.{wanted.name}, "
            "or evaluate another set"
        )
    for image in images:
        annotations = [_in_points(annotation, own, pairs) for annotation in image.annotations]
        yield replace(image, annotations=annotations)


def _in_points(annotation: Mapping[str, Any], own: Skeleton, pairs: np.ndarray) -> dict[str, Any]:
    """One annotation with the points (K, 3) that `pairs` (K, 2) takes from its own: each the mean of two, as
    visible as the less visible one.
    """
    form = {key: value for key, value in annotation.items() if key not in WHOLE_BODY_FIELDS}
    points = annotation_keypoints(annotation)
    if len(points) != own.num_keypoints:
        points = np.zeros((own.num_keypoints, 3))
    first, second = points[pairs[:, 0]], points[pairs[:, 1]]
    shown = np.where(pairs.min(axis=1) < 0, 0.0, np.minimum(first[:, 2], second[:, 2]))
    places = np.where(shown[:, None] > 0, (first[:, :2] + second[:, :2]) / 2, 0.0)
    form["keypoints"] = np.concatenate([places, shown[:, None]], axis=1).ravel().tolist()
    form["num_keypoints"] = int((shown > 0).sum())
    return form
