"""The evaluation sets of a recipe as one set: what Body8, Hand5 and Face6 are published by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rtmpose.config.metrics import Pooled, check_metrics
from rtmpose.evaluation.bootstrap import resamples
from rtmpose.evaluation.measures.persons import Persons
from rtmpose.evaluation.measures.report import DRAWS, measure_persons
from rtmpose.evaluation.scoring import Pose
from rtmpose.files import UserError

NOTHING = "no set was evaluated on ground-truth boxes; add ground_truth to evaluate.boxes"


@dataclass(frozen=True)
class Pool:
    """The persons of all sets that were evaluated so far, in the K points `names` of the network."""

    told: Pooled
    names: Sequence[str]
    parts: list[Persons] = field(default_factory=list)

    @classmethod
    def of(cls, told: Pooled, names: Sequence[str]) -> Pool:
        """An empty pool; UserError where the parameters name a point that the network does not have."""
        try:
            check_metrics(told.metrics, told.metric_options, names)
        except ValueError as error:
            raise UserError(f"params.yaml: evaluate.pooled: {error}") from None
        return cls(told, names)

    def add(self, truth: Mapping[str, Any], poses: Iterable[Pose]) -> None:
        """Take in a set: its ground truth and what was predicted in its boxes, as for `measure`."""
        self.parts.append(Persons.of(truth, poses, self.names))

    def figures(self, draws: int = DRAWS) -> dict[str, Any]:
        """The pool's `name`, its numbers of images and persons, and its `measures`; `unmeasured` says why any
        of them is not there.

        Every person counts alike, whichever set it is of; intervals are over the images of all sets together.
        """
        told, head = self.told, {"name": self.told.name}
        if not self.parts:
            return head | {"unmeasured": dict.fromkeys(told.metrics, NOTHING)}
        persons = pooled(self.parts)
        times = resamples(persons.images, draws) if persons.images else np.zeros((1, 0), np.int64)
        measures, unmeasured = measure_persons(persons, told.metrics, told.metric_options, times)
        figures: dict[str, Any] = {"images": persons.images, "persons": len(persons.boxes)}
        figures["measures"] = {name: each.as_json() for name, each in measures.items()}
        return head | figures | ({"unmeasured": unmeasured} if unmeasured else {})


def pooled(parts: Sequence[Persons]) -> Persons:
    """Persons of several sets in the same points as those of one, whose images are numbered one set after the
    other.
    """
    before = np.cumsum([0, *(part.images for part in parts)])
    return Persons(
        parts[0].names,
        predicted=np.concatenate([part.predicted for part in parts]),
        true=np.concatenate([part.true for part in parts]),
        labelled=np.concatenate([part.labelled for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        heads=np.concatenate([part.heads for part in parts]),
        image=np.concatenate([part.image + first for part, first in zip(parts, before, strict=False)]),
        images=int(before[-1]),
    )
