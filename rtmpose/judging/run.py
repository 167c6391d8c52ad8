"""A pipeline on photographs, beside single-person models, as `rtmpose evaluate-pipeline` shows it; films are
judged by `rtmpose.judging.film`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.shards.manifest import EvalImage
from rtmpose.descriptors import load_dataset
from rtmpose.evaluation.evaluator import raw_images
from rtmpose.judging.blazepose import BlazePose
from rtmpose.judging.calibrated import Reliability, reliability_of
from rtmpose.judging.movenet import MoveNet
from rtmpose.judging.poses import (
    Finder,
    Row,
    in_skeleton,
    judge,
    pairs_to,
    single_person,
    truth_boxes,
)
from rtmpose.judging.tinypose import TinyPose
from rtmpose.motion.person import Person

if TYPE_CHECKING:
    from rtmpose.inference.pipeline import PosePipeline

DATASET = "coco17"
FOUND, GIVEN = "found boxes", "ground-truth boxes"
LOOKS = 2  # at a photograph, by models that crop by what they saw before


class Following(Protocol):
    """A model that crops a picture by what it saw in the one before."""

    def forget(self) -> None: ...
    def __call__(self, image: NDArray[np.uint8]) -> list[Person]: ...


@dataclass(frozen=True)
class Others:
    """Files of single-person models that are judged on the same photographs."""

    movenet: Path | None = None
    blazepose: Path | None = None
    tinypose: Path | None = None

    def finders(self, pipeline: PosePipeline, threads: int) -> dict[str, Finder]:
        """Those that were given; TinyPose takes the pipeline's boxes."""
        found: dict[str, Finder] = {}
        if self.movenet is not None:
            found[f"MoveNet ({self.movenet.name})"] = looked(MoveNet(self.movenet, threads))
        if self.blazepose is not None:
            found[f"BlazePose ({self.blazepose.name})"] = looked(BlazePose(self.blazepose, threads))
        if self.tinypose is not None:
            tinypose = TinyPose(self.tinypose, threads)
            found[f"TinyPose ({self.tinypose.name})"] = lambda image: tinypose(
                image.image, pipeline.detected(image.image)
            )
        return found


def looked(model: Following) -> Finder:
    """A following model on photographs: it looks at each `LOOKS` times, so that its crop fits."""

    def find(image: EvalImage) -> Sequence[Person]:
        model.forget()
        for _ in range(LOOKS - 1):
            model(image.image)
        return model(image.image)

    return find


def judge_photographs(
    pipeline: PosePipeline,
    data: Path,
    others: Others,
    *,
    limit: int | None = None,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Row], Reliability]:
    """Rows of the validation photographs of a raw COCO folder: with boxes that the pipeline finds, with those
    of the ground truth, and both and the other models on the images of one person; and what confidence is
    worth in the boxes of the ground truth.

    Raises:
        UserError: the folder or a file is not what it should be, or the model lacks points of COCO.
    """
    dataset = load_dataset(DATASET)
    skeleton = dataset.skeleton
    pairs = pairs_to(pipeline.skeleton, skeleton, str(pipeline.network.path))

    def found(image: EvalImage) -> list[Person]:
        return in_skeleton(pipeline.persons(image.image, pipeline.detected(image.image)), pairs)

    def given(image: EvalImage) -> list[Person]:
        return in_skeleton(pipeline.persons(image.image, truth_boxes(image)), pairs)

    finders: dict[str, Finder] = {FOUND: found, GIVEN: given}
    own = list(finders)
    finders |= others.finders(pipeline, threads)
    judged = judge(_counted(islice(raw_images(dataset, data, "val"), limit), progress), finders)
    rows = [Row.of(judged[name], skeleton) for name in own]
    alone = single_person(judged[own[0]].truth)
    if alone:
        rows += [
            Row.of(each.of_images(alone, f"one person: {name}"), skeleton) for name, each in judged.items()
        ]
    return rows, reliability_of(judged[GIVEN], skeleton, pipeline.curve)


def _counted(images: Iterator[EvalImage], progress: Callable[[int], None] | None) -> Iterator[EvalImage]:
    for done, image in enumerate(images, start=1):
        yield image
        if progress is not None:
            progress(done)
