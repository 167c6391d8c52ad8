"""COCO's AP of whole pipelines on the same images: whatever finds people, judged by its points alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rtmpose.data.raw.coco_form import is_person
from rtmpose.data.shards.manifest import EvalImage
from rtmpose.evaluation.bootstrap import Interval, Ranking, resamples
from rtmpose.evaluation.coco import evaluate_keypoints
from rtmpose.evaluation.scoring import Pose, to_results
from rtmpose.files import UserError
from rtmpose.geometry import box_to_center_scale
from rtmpose.motion.person import Person
from rtmpose.skeleton import Skeleton

Finder = Callable[[EvalImage], Sequence[Person]]
DRAWS = 1000  # of the images, for an interval


@dataclass(eq=False)
class Judged:
    """What one pipeline found on a set of images, and who is on them."""

    name: str
    truth: dict[str, Any]
    poses: list[Pose] = field(default_factory=list)

    def add(self, image_id: Any, people: Iterable[Person]) -> None:
        """The people that it found on one image; their area is that of the crop around the box."""
        for person in people:
            box = np.concatenate([person.box[:2], person.box[2:] - person.box[:2]])
            _, scale = box_to_center_scale(box, 0.75)
            area = float(np.prod(scale))
            self.poses.append(
                Pose(image_id, person.keypoints, person.scores, person.box_score, area, box.tolist())
            )

    def of_images(self, ids: Iterable[Any], name: str) -> Judged:
        """The same on a part of the images."""
        chosen = set(ids)
        truth = {
            **self.truth,
            "images": [image for image in self.truth["images"] if image["id"] in chosen],
            "annotations": [each for each in self.truth["annotations"] if each["image_id"] in chosen],
        }
        return Judged(name, truth, [pose for pose in self.poses if pose.image_id in chosen])


@dataclass(frozen=True)
class Row:
    """One line of the table. AP and the like are fractions of 1; intervals are of 95 %, over images drawn
    again.
    """

    name: str
    images: int
    persons: int
    ap: Interval
    ap50: float
    ar: float

    @classmethod
    def of(cls, judged: Judged, skeleton: Skeleton, draws: int = DRAWS) -> Row:
        """The figures of what was found; UserError where nobody is annotated."""
        persons = sum(map(is_person, judged.truth["annotations"]))
        if not persons:
            raise UserError(f"{judged.name}: nobody with a labelled point is on these images; give others")
        results = to_results(judged.poses, skeleton.sigmas)
        figures = evaluate_keypoints(judged.truth, results, skeleton.sigmas)
        ranking = Ranking.of(judged.truth, results, skeleton.sigmas)
        count = len(judged.truth["images"])
        resampled = ranking.resampled_ap(resamples(count, draws))
        ap = Interval.of(figures["AP"], resampled)
        return cls(judged.name, count, persons, ap, figures["AP50"], figures["AR"])

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        interval = {"AP": self.ap.value, "AP_low": self.ap.low, "AP_high": self.ap.high}
        counts = {"name": self.name, "images": self.images, "persons": self.persons}
        return {**counts, **interval, "AP50": self.ap50, "AR": self.ar}


def judge(images: Iterable[EvalImage], finders: Mapping[str, Finder]) -> dict[str, Judged]:
    """What each finder, by name, finds on images that are read once."""
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    judged = {name: Judged(name, truth) for name in finders}
    for image in images:
        size = {"width": image.width, "height": image.height}
        truth["images"].append({"id": image.image_id, "file_name": image.file_name, **size})
        truth["annotations"] += image.annotations
        for name, finder in finders.items():
            judged[name].add(image.image_id, finder(image))
    return judged


def boxed(annotations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those who are annotated with points and a box that has a size, in order."""
    return [dict(each) for each in annotations if is_person(each) and min(each["bbox"][2:]) > 0]


def truth_boxes(image: EvalImage) -> np.ndarray:
    """Boxes (N, 5) x1, y1, x2, y2 px and score 1 of those who are annotated with points (`boxed`)."""
    boxes = np.array([each["bbox"] for each in boxed(image.annotations)], np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:], np.ones((len(boxes), 1))], 1)


def single_person(truth: Mapping[str, Any]) -> list[Any]:
    """Images with exactly one annotated person, who has labelled points: the split COCO-SinglePerson that
    RTMPose compares itself on with single-person models (arXiv 2303.07399, section 4). Crowds and people
    without labelled points count as further people.
    """
    people: dict[Any, list[Mapping[str, Any]]] = {}
    for each in truth["annotations"]:
        people.setdefault(each["image_id"], []).append(each)
    return [image for image, found in people.items() if len(found) == 1 and is_person(found[0])]


def in_skeleton(people: Iterable[Person], pairs: ArrayLike) -> list[Person]:
    """People with the points of another skeleton: `pairs` (K, 2) as of `Skeleton.map_to`; each point is the
    mean of two.
    """
    first, second = np.asarray(pairs).T
    return [
        Person(
            each.box,
            (each.keypoints[first] + each.keypoints[second]) / 2,
            np.minimum(each.scores[first], each.scores[second]),
            np.minimum(each.confidence[first], each.confidence[second]),
            each.box_score,
            each.identity,
        )
        for each in people
    ]


def pairs_to(own: Skeleton, wanted: Skeleton, model: str) -> tuple[tuple[int, int], ...]:
    """The map from a model's skeleton to the one that the data has; UserError where points are missing."""
    pairs = own.map_to(wanted)
    missing = [name for name, pair in zip(wanted.names, pairs, strict=True) if min(pair) < 0]
    if missing:
        raise UserError(
            f"{model}: has no {', '.join(missing)}, which the data has; give a model of {wanted.name}"
        )
    return pairs


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [f"{'':34s} images persons    AP  95 % interval   AP50    AR"]
    for row in rows:
        interval = f"{100 * row.ap.low:5.1f} … {100 * row.ap.high:5.1f}"
        lines.append(
            f"{row.name:34s} {row.images:6d} {row.persons:7d} {100 * row.ap.value:5.1f}  {interval:15s} "
            f"{100 * row.ap50:5.1f} {100 * row.ar:5.1f}"
        )
    return "\n".join(lines)
