"""Predictions beside the persons they are of, with the kind of each point's error, and results with one kind
mended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw import fields
from rtmpose.data.raw.coco_form import NO_BOX, area_of_box, countable
from rtmpose.evaluation.coco import annotation_keypoints, person_annotations
from rtmpose.evaluation.mistakes.kinds import KINDS, Kinds, error_kinds
from rtmpose.oks import keypoint_similarity
from rtmpose.skeleton import Skeleton

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Person:
    """A labelled person."""

    annotation: Mapping[str, Any]
    points: Floats  # (K, 3) as (x, y, visible), px
    area: float  # px², above 0: the annotation's, or where it says none a share of the box

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(K,)"""
        return np.asarray(self.points[:, 2] > 0)

    def similarity(self, result: Mapping[str, Any], sigmas: Sequence[float]) -> Floats:
        """Of each point of a result to this person's (K,)."""
        return keypoint_similarity(_points(result), self.points[:, :2], self.area, sigmas)


@dataclass(frozen=True, eq=False)
class Judged:
    """A labelled person, the prediction of it by its place among the results, and each point's error."""

    person: Person
    place: int
    kinds: Kinds  # (K,), see `kinds`
    similarity: Floats  # (K,)

    @property
    def oks(self) -> float:
        """COCO's similarity of the pose: the mean over the labelled points."""
        return float(self.similarity[self.person.labelled].mean())

    def counts(self) -> dict[str, int]:
        """How many of the person's labelled points are of each kind."""
        return {kind: int((self.kinds == number).sum()) for number, kind in enumerate(KINDS)}


def judge(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], skeleton: Skeleton
) -> tuple[list[Judged], int]:
    """Every person with labelled points whom one of the results is of, in the ground truth's order, and how
    many persons have none.

    A result belongs to the annotation that it names; others go to the persons of their image, the most
    similar pair first, each result to one person.

    Args:
        truth: content of a COCO annotation file, areas px². results: COCO results in image px.
    """
    found: list[Judged] = []
    missing = 0
    places = _places(results)
    for image, people in _persons(truth, skeleton.num_keypoints).items():
        pairs = _paired(people, *places.get(image, ({}, [])), results, skeleton.sigmas)
        for number, person in enumerate(people):
            if number not in pairs:
                missing += 1
                continue
            result = results[pairs[number]]
            others = [(other.points, other.area) for other in people if other is not person]
            kinds = error_kinds(
                _points(result), person.points, person.area, others, skeleton.sigmas, skeleton.flip
            )
            found.append(Judged(person, pairs[number], kinds, person.similarity(result, skeleton.sigmas)))
    return found, missing


def mended(
    results: Sequence[Mapping[str, Any]], judged: Sequence[Judged], kinds: Collection[int]
) -> list[Mapping[str, Any]]:
    """The results with every error of these kinds put where the point was labelled; scores stay as they are
    (section 3.1: AP on them is what the kind costs).
    """
    changed = list(results)
    for one in judged:
        wrong = np.isin(one.kinds, list(kinds))
        if wrong.any():
            flat = np.array(results[one.place]["keypoints"], np.float64).reshape(-1, 3)
            flat[wrong, :2] = one.person.points[wrong, :2]
            changed[one.place] = {**results[one.place], "keypoints": flat.ravel().tolist()}
    return changed


def _persons(truth: Mapping[str, Any], points: int) -> dict[Any, list[Person]]:
    """Those that COCO counts, by image."""
    found: dict[Any, list[Person]] = defaultdict(list)
    for annotation in person_annotations(truth):
        pose = np.asarray(countable(annotation_keypoints(annotation)[:points]), np.float64)
        area = fields.positive(annotation.get("area"), "area")
        if area is None:
            area = area_of_box(fields.box(annotation["bbox"]) or NO_BOX, pose)
        if (pose[:, 2] > 0).any() and area > 0:
            found[annotation["image_id"]].append(Person(annotation, pose, float(area)))
    return found


def _places(results: Sequence[Mapping[str, Any]]) -> dict[Any, tuple[dict[Any, int], list[int]]]:
    """Places of the results by image: those that name an annotation by its id, and the others."""
    found: dict[Any, tuple[dict[Any, int], list[int]]] = {}
    for place, result in enumerate(results):
        named, free = found.setdefault(result["image_id"], ({}, []))
        if "annotation_id" in result:
            named[result["annotation_id"]] = place
        else:
            free.append(place)
    return found


def _paired(
    people: Sequence[Person],
    named: Mapping[Any, int],
    free: Sequence[int],
    results: Sequence[Mapping[str, Any]],
    sigmas: Sequence[float],
) -> dict[int, int]:
    """The place of the result that is of each person, by the person's number in the image."""
    pairs = {
        number: named[person.annotation["id"]]
        for number, person in enumerate(people)
        if person.annotation["id"] in named
    }
    taken: set[int] = set()
    alike = [
        (float(person.similarity(results[place], sigmas)[person.labelled].mean()), number, place)
        for number, person in enumerate(people)
        for place in free
    ]
    for oks, number, place in sorted(alike, reverse=True):
        if oks > 0 and number not in pairs and place not in taken:
            pairs[number] = place
            taken.add(place)
    return pairs


def _points(result: Mapping[str, Any]) -> Floats:
    """(K, 2) px."""
    return np.asarray(result["keypoints"], np.float64).reshape(-1, 3)[:, :2]
