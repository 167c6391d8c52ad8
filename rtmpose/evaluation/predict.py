"""A network's poses in the boxes of images: ground-truth boxes, or those of a detector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rtmpose.config import Precision
from rtmpose.data.raw.fields import identity
from rtmpose.evaluation.coco import person_annotations
from rtmpose.evaluation.scoring import Pose, to_results
from rtmpose.geometry import clip_box
from rtmpose.skeleton import Skeleton
from rtmpose.targets import Codec
from rtmpose.topdown import Crop, TopDown, in_precision

__all__ = ["Boxes", "Image", "Pose", "predict_poses", "to_results"]

DetectorBoxes = Mapping[Any, Sequence[tuple[Sequence[float] | NDArray[np.floating], float]]]
Boxes = Literal["ground truth"] | DetectorBoxes


class Image(Protocol):
    """What is needed of an image; `rtmpose.data.shards.manifest.read_eval` yields such."""

    @property
    def image_id(self) -> Any: ...
    @property
    def image(self) -> NDArray[np.uint8]: ...  # (H, W, 3) RGB
    @property
    def annotations(self) -> Sequence[Mapping[str, Any]]: ...  # COCO fields


class _Asked(NamedTuple):
    """A box that a pose is asked for."""

    image_id: Any
    annotation_id: int | None
    box: NDArray[np.floating]  # xywh px
    score: float
    crop: Crop


def predict_poses(
    model: nn.Module,
    codec: Codec,
    images: Iterable[Image],
    boxes: Boxes,
    skeleton: Skeleton,
    *,
    batch_size: int = 64,
    flip_test: bool = True,
    device: torch.device | str | None = None,
    precision: Precision = "fp32",
) -> list[Pose]:
    """A pose in every box, before any is dropped as a duplicate of another.

    Crops are batched across images. The model is run in evaluation mode and left in the mode it came in.
    Where it has more points than the skeleton, the first ones are taken.

    Args:
        boxes: "ground truth" (the images' annotations, each with score 1), or {image_id: [(xywh px, score)]}.
        flip_test: average with the prediction on the mirrored crop.
        device: where to run; None: where the model's parameters are, and the model has to be there.
        precision: "bf16" runs the network under autocast; the decoding stays in float32.
    """
    where = torch.device(device) if device is not None else next(model.parameters()).device
    way = TopDown(in_precision(model, where, precision), codec, skeleton, flip_test, device=where)
    was_training = model.training
    model.eval()
    poses: list[Pose] = []
    try:
        asked = _asked(images, boxes, way)
        while batch := list(islice(asked, batch_size)):
            points, scores = way.points([one.crop for one in batch])
            poses += map(_pose, batch, points, scores)
    finally:
        model.train(was_training)
    return poses


def _asked(images: Iterable[Image], boxes: Boxes, way: TopDown) -> Iterator[_Asked]:
    for image in images:
        for box, score, annotation_id in _boxes_of(image, boxes):
            yield _Asked(image.image_id, annotation_id, box, score, way.crop(image.image, box))


def _boxes_of(image: Image, boxes: Boxes) -> Iterator[tuple[NDArray[np.floating], float, int | None]]:
    if boxes != "ground truth":
        for box, score in boxes_of(image.image_id, boxes):
            yield np.asarray(box, np.float64), float(score), None
        return
    height, width = image.image.shape[:2]
    for annotation in person_annotations(image.annotations):
        box = np.array(clip_box(annotation["bbox"], width, height))
        if box[2] > 0 and box[3] > 0:
            yield box, 1.0, annotation["id"]


def boxes_of(image_id: Any, boxes: DetectorBoxes) -> Sequence[tuple[Any, float]]:
    """A detector's boxes of an image, whether ids are numbers here and text there or alike."""
    return boxes.get(image_id) or boxes.get(identity(image_id)) or ()


def _pose(asked: _Asked, points: NDArray[np.floating], scores: NDArray[np.floating]) -> Pose:
    area = float(asked.crop.scale.prod())
    return Pose(asked.image_id, points, scores, asked.score, area, asked.box.tolist(), asked.annotation_id)
