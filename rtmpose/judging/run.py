"""A pipeline on photographs and films, beside single-person models: everything that `rtmpose
evaluate-pipeline` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins.film_files import TRUTH, VIDEO
from rtmpose.data.shards.manifest import EvalImage
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.evaluation.coco import load_ground_truth
from rtmpose.evaluation.evaluator import raw_images
from rtmpose.files import UserError
from rtmpose.judging.blazepose import BlazePose
from rtmpose.judging.movenet import MoveNet
from rtmpose.judging.poses import (
    Finder,
    Judged,
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
) -> list[Row]:
    """Rows of the validation photographs of a raw COCO folder: with boxes that the pipeline finds, with those
    of the ground truth, and both and the other models on the images of one person.

    Raises:
        UserError: the folder or a file is not what it should be, or the model lacks points of COCO.
    """
    dataset = load_dataset(DATASET)
    skeleton = dataset.skeleton
    pairs = pairs_to(pipeline.skeleton, skeleton, str(pipeline.network.path))

    def found(image: EvalImage) -> list[Person]:
        return in_skeleton(pipeline.persons(image.image, pipeline.detected(image.image)), pairs)

    def boxed(image: EvalImage) -> list[Person]:
        return in_skeleton(pipeline.persons(image.image, truth_boxes(image)), pairs)

    finders: dict[str, Finder] = {"found boxes": found, "ground-truth boxes": boxed}
    own = list(finders)
    finders |= others.finders(pipeline, threads)
    judged = judge(_counted(islice(raw_images(dataset, data, "val"), limit), progress), finders)
    rows = [Row.of(judged[name], skeleton) for name in own]
    alone = single_person(judged[own[0]].truth)
    if alone:
        rows += [
            Row.of(each.of_images(alone, f"one person: {name}"), skeleton) for name, each in judged.items()
        ]
    return rows


def _counted(images: Iterator[EvalImage], progress: Callable[[int], None] | None) -> Iterator[EvalImage]:
    for done, image in enumerate(images, start=1):
        yield image
        if progress is not None:
            progress(done)


def judge_film(pipeline: PosePipeline, folder: Path, every: Sequence[int]) -> list[Row]:
    """Rows of a film of mannequins, one for each number of frames from one detection to the next: the
    tracked people of each frame against the truth. Intervals take frames for independent, which neighbours
    are not: they are too narrow.

    Raises:
        UserError: the folder holds no film, or the model lacks points of COCO.
    """
    if not (folder / VIDEO).is_file():
        raise UserError(f"{folder / VIDEO}: no such file; write a film with `rtmpose film {folder}`")
    truth, _ = load_ground_truth(folder / TRUTH)
    skeleton = load_skeleton(DATASET)
    pairs = pairs_to(pipeline.skeleton, skeleton, str(pipeline.network.path))
    ids = {image["frame_index"]: image["id"] for image in truth["images"]}
    rows = []
    for count in every:
        judged = Judged(f"{folder.name}: detector every {count}", truth)
        for frame in pipeline.video(folder / VIDEO, every=count):
            judged.add(ids[frame.index], in_skeleton(frame.persons, pairs))
        rows.append(Row.of(judged, skeleton))
    return rows
