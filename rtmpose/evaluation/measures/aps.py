"""AP of parts: of images by how crowded they are (CrowdPose), of the parts of the body (COCO-WholeBody)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw import fields
from rtmpose.data.raw.coco_form import AREA_PER_BOX
from rtmpose.evaluation.bootstrap import Interval, Ranking
from rtmpose.evaluation.coco import matched, matched_parts
from rtmpose.evaluation.measures.persons import Unknown

INDEX = "crowdIndex"  # of an image's entry, which reading an annotation file adds to its annotations

Results = Sequence[Mapping[str, Any]]


def crowd_aps(
    truth: Mapping[str, Any],
    results: Results,
    sigmas: Sequence[float],
    bounds: tuple[float, float],
    draws: NDArray[np.int64],
) -> dict[str, Interval]:
    """AP as CrowdPose counts it: of all images ("crowd AP"), of the easy, medium and hard ones, by the bounds
    of `rtmpose.config.metrics.Crowd`; classes without a person are left out.

    CrowdPose (Li et al., "CrowdPose: Efficient Crowded Scenes Pose Estimation and A New Benchmark", CVPR
    2019) takes 0.53 of the box for the area, the 20 best poses of an image, and ignores persons none of whose
    points is seen (v = 2), although hidden ones are labelled. Its paper draws the bounds at 0.1 and 0.8, its
    tool, by which results are published, at 0.2 and 0.8.

    Raises `Unknown` where no image has a crowd index.
    """
    index = _crowd_index(truth)
    if truth["annotations"] and np.isnan(index).all():
        raise Unknown(f"no image has a {INDEX}; give it in each image's entry of the annotation file")
    ranking = Ranking.of_matched(
        matched(_crowdpose(truth), results, sigmas, seen=True), [image["id"] for image in truth["images"]]
    )
    low, high = bounds
    classes = {
        "crowd AP": np.ones(len(index), bool),
        "AP easy": index < low,
        "AP medium": (index >= low) & (index < high),
        "AP hard": index >= high,
    }
    return _intervals({name: (ranking, chosen) for name, chosen in classes.items()}, draws)


def _crowdpose(truth: Mapping[str, Any]) -> dict[str, Any]:
    """The ground truth with a share of the box for every area."""
    annotations = [
        {**each, "area": box[2] * box[3] * AREA_PER_BOX} if (box := fields.box(each["bbox"])) else each
        for each in truth["annotations"]
    ]
    return {**truth, "annotations": annotations}


def _crowd_index(truth: Mapping[str, Any]) -> NDArray[np.float64]:
    """The crowd index of each image (I,), NaN where it is not known."""
    known = {
        each["image_id"]: fields.number(each.get(INDEX), f"annotation {each.get('id')}: {INDEX}")
        for each in truth["annotations"]
    }
    found = (image.get(INDEX, known.get(image["id"])) for image in truth["images"])
    return np.array([np.nan if value is None else value for value in found], np.float64)


def part_aps(
    truth: Mapping[str, Any],
    results: Results,
    sigmas: Sequence[float],
    parts: Mapping[str, Sequence[int]],
    draws: NDArray[np.int64],
) -> dict[str, Interval]:
    """AP of each part, "AP body" and so on: of its points (positions) alone, with their own sigmas.

    A person counts for a part when a point of that part is labelled; area, score and rank are the whole
    person's (Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020). Parts that nobody shows
    are left out.
    """
    images = [image["id"] for image in truth["images"]]
    known = {part: list(points) for part, points in parts.items() if points}
    rankings = {
        f"AP {part}": Ranking.of_matched(evaluation, images)
        for part, evaluation in matched_parts(truth, results, sigmas, known).items()
    }
    everywhere = np.ones(len(images), bool)
    return _intervals({name: (ranking, everywhere) for name, ranking in rankings.items()}, draws)


def _intervals(
    rankings: Mapping[str, tuple[Ranking, NDArray[np.bool_]]], draws: NDArray[np.int64]
) -> dict[str, Interval]:
    """AP of each ranking on some of its images (I,), with its interval, where these show a person."""
    found = {}
    for name, (ranking, chosen) in rankings.items():
        own = chosen.astype(np.int64)
        value = ranking.resampled_ap(own[None])[0]
        if np.isfinite(value):
            found[name] = Interval.of(float(value), ranking.resampled_ap(draws * own))
    return found
