"""Top-down prediction: boxes on images -> crops -> network -> keypoints in image px -> COCO results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtmpose.config import Precision
from rtmpose.data.shards.crops import clip_box
from rtmpose.evaluation.coco import GroundTruth, load_ground_truth, person_annotations
from rtmpose.files import UserError
from rtmpose.geometry import box_to_center_scale, crop_matrix, crop_to_image, warp
from rtmpose.models import normalise
from rtmpose.oks import oks_nms, soft_oks_nms
from rtmpose.skeleton import Skeleton
from rtmpose.targets import Codec

Rescore = Literal["bbox_keypoint", "bbox", "keypoint", "bbox_rle"]
Suppress = Literal["oks", "soft_oks", "none"]
Boxes = Literal["ground truth"] | Mapping[Any, Sequence[tuple[Sequence[float] | NDArray[np.floating], float]]]


class Image(Protocol):
    """What is needed of an image; `rtmpose.data.stream.stream.read_eval` yields such."""

    @property
    def image_id(self) -> Any: ...
    @property
    def image(self) -> NDArray[np.uint8]: ...  # (H, W, 3) RGB
    @property
    def annotations(self) -> Sequence[Mapping[str, Any]]: ...  # COCO fields


@dataclass(frozen=True)
class Pose:
    """One predicted person: keypoints (K, 2) in image px, scores (K,), and what its final score is
    made of.
    """

    image_id: Any
    keypoints: NDArray[np.floating]
    scores: NDArray[np.floating]
    box_score: float
    area: float  # of the padded crop, px^2: what the suppression of duplicates normalises distances by
    box: Sequence[float] = ()  # xywh px that was asked about
    annotation_id: int | None = None


@dataclass(frozen=True)
class _Crop:
    image_id: Any
    annotation_id: int | None
    box: NDArray[np.floating]
    box_score: float
    center: NDArray[np.floating]
    scale: NDArray[np.floating]
    pixels: NDArray[np.uint8]


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
    was_training = model.training
    model.eval()
    poses: list[Pose] = []
    try:
        crops = _crops(images, boxes, codec)
        while batch := list(islice(crops, batch_size)):
            pixels = torch.from_numpy(np.stack([crop.pixels for crop in batch]))  # (B, H, W, 3)
            points, scores = infer(
                model, codec, pixels.to(where), skeleton, flip_test=flip_test, precision=precision
            )
            poses += _to_poses(batch, points.double().cpu().numpy(), scores.double().cpu().numpy(), codec)
    finally:
        model.train(was_training)
    return poses


@torch.inference_mode()
def infer(
    model: nn.Module,
    codec: Codec,
    pixels: Tensor,
    skeleton: Skeleton,
    *,
    flip_test: bool,
    precision: Precision,
) -> tuple[Tensor, Tensor]:
    """uint8 RGB crops (B, H, W, 3) -> keypoints (B, K, 2) in input px and scores (B, K), all on the crops'
    device.
    """
    images = normalise(pixels)  # (B, 3, H, W), channels-last in memory
    count = skeleton.num_keypoints
    with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        outputs = _first(model(images), count)
        flipped = _first(model(images.flip(-1)), count) if flip_test else None
    if flipped is not None:
        outputs = codec.flip_average(outputs, flipped, skeleton.flip)  # type: ignore[arg-type]
    return codec.decode(outputs)  # type: ignore[arg-type]


def _first(outputs: Tensor | tuple[Tensor, Tensor], count: int) -> Tensor | tuple[Tensor, Tensor]:
    """The outputs of the first `count` points, float32: averages and maxima of bfloat16 would lose
    the bin.
    """
    if isinstance(outputs, Tensor):
        if outputs.shape[1] < count:
            raise UserError(
                f"the model has {outputs.shape[1]} keypoints, the skeleton {count}; give the model's own"
            )
        return outputs[:, :count].float()
    x, y = (_first(axis, count) for axis in outputs)
    assert isinstance(x, Tensor) and isinstance(y, Tensor)
    return x, y


def _crops(images: Iterable[Image], boxes: Boxes, codec: Codec) -> Iterator[_Crop]:
    width, height = codec.input_size
    for image in images:
        for box, score, annotation_id in _boxes_of(image, boxes):
            center, scale = box_to_center_scale(box, width / height)
            matrix = crop_matrix(center, scale, 0.0, codec.input_size, codec.udp)
            pixels = warp(image.image, matrix, codec.input_size)
            yield _Crop(image.image_id, annotation_id, box, score, center, scale, pixels)


def _boxes_of(image: Image, boxes: Boxes) -> Iterator[tuple[NDArray[np.floating], float, int | None]]:
    if boxes != "ground truth":
        for box, score in boxes.get(image.image_id, ()):
            yield np.asarray(box, np.float64), float(score), None
        return
    height, width = image.image.shape[:2]
    for annotation in person_annotations(image.annotations):
        box = np.array(clip_box(annotation["bbox"], width, height))
        if box[2] > 0 and box[3] > 0:
            yield box, 1.0, annotation["id"]


def _to_poses(batch: list[_Crop], points: np.ndarray, scores: np.ndarray, codec: Codec) -> list[Pose]:
    center, scale = (np.stack([getattr(crop, name) for crop in batch]) for name in ("center", "scale"))
    points = crop_to_image(points, center, scale, codec.input_size)  # (B, K, 2)
    return [
        Pose(
            crop.image_id, points[row], scores[row], crop.box_score, float(crop.scale.prod()), crop.box.tolist(),
            crop.annotation_id,
        )
        for row, crop in enumerate(batch)
    ]  # fmt: skip


def pose_score(pose: Pose, rescore: Rescore = "bbox_keypoint", keypoint_threshold: float = 0.2) -> float:
    """The score a pose is ranked by.

    "bbox_keypoint": box score x mean of the keypoint scores above the threshold (0 if none is); "keypoint":
    mean keypoint score; "bbox": box score; "bbox_rle": box score + mean + largest keypoint score.
    """
    if rescore == "bbox":
        return pose.box_score
    if rescore == "keypoint":
        return float(pose.scores.mean())
    if rescore == "bbox_rle":
        return float(pose.box_score + pose.scores.mean() + pose.scores.max())
    sure = pose.scores[pose.scores > keypoint_threshold]
    return float(pose.box_score * sure.mean()) if sure.size else 0.0


def to_results(
    poses: Iterable[Pose],
    sigmas: Sequence[float],
    *,
    rescore: Rescore = "bbox_keypoint",
    keypoint_threshold: float = 0.2,
    nms: Suppress = "oks",
    nms_threshold: float = 0.9,
) -> list[dict[str, Any]]:
    """Score poses, drop duplicates within an image by OKS, and write the rest as COCO results, image after
    image.

    Args:
        sigmas: OKS falloff of the K points, for the suppression.
        rescore, keypoint_threshold: see `pose_score`.
        nms: "oks" drops what is more similar to a better pose than `nms_threshold`; "soft_oks" keeps the first 20 of an
            image after lowering the rank of similar ones; "none" keeps all.
    """
    by_image: dict[Any, list[tuple[Pose, float]]] = {}
    for pose in poses:
        by_image.setdefault(pose.image_id, []).append((pose, pose_score(pose, rescore, keypoint_threshold)))
    results = []
    for scored in by_image.values():
        keep: Iterable[int] = range(len(scored))
        if nms != "none":
            suppress = oks_nms if nms == "oks" else soft_oks_nms
            keypoints = np.stack([pose.keypoints for pose, _ in scored])
            areas = [pose.area for pose, _ in scored]
            keep = suppress(keypoints, [score for _, score in scored], areas, sigmas, nms_threshold)
        results += [_result(*scored[index]) for index in keep]
    return results


def _result(pose: Pose, score: float) -> dict[str, Any]:
    flat = np.concatenate([pose.keypoints, pose.scores[:, None]], axis=1).ravel().tolist()
    result: dict[str, Any] = {"image_id": pose.image_id, "category_id": 1, "keypoints": flat, "score": score}
    if len(pose.box):
        result["bbox"] = list(pose.box)
    if pose.annotation_id is not None:
        result["annotation_id"] = pose.annotation_id
    return result


class Labelled(Protocol):
    """What the mean pose needs of a person; `rtmpose.data.raw.annotations.Person` is one."""

    @property
    def box(self) -> Sequence[float]: ...  # xywh px
    @property
    def keypoints(self) -> NDArray[np.floating]: ...  # (K, 2) px
    @property
    def visible(self) -> NDArray[Any]: ...  # (K,)


def mean_pose(persons: Iterable[Labelled]) -> NDArray[np.float64]:
    """The mean of the labelled keypoints in their boxes' coordinates, (K, 2), (0, 0) top left and (1, 1)
    bottom right.

    A point that nobody has labelled lies in the middle. Raises UserError when there is no person.
    """
    total: Any = 0.0
    count: Any = 0.0
    for person in persons:
        box = np.asarray(person.box, np.float64)
        labelled = (np.asarray(person.visible) > 0)[:, None]  # (K, 1)
        total = total + np.where(labelled, (person.keypoints - box[:2]) / box[2:], 0.0)
        count = count + labelled
    if np.ndim(count) == 0:
        raise UserError("mean pose: the training set holds no person")
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), 0.5))


def mean_pose_predictions(mean: NDArray[np.float64], ground_truth: GroundTruth) -> list[dict[str, Any]]:
    """COCO results that put the mean pose (K, 2) into every annotated person's box: the floor any model must
    beat.
    """
    data, _ = load_ground_truth(ground_truth)
    results = []
    for annotation in person_annotations(data):
        box = np.asarray(annotation["bbox"], np.float64)
        points = box[:2] + mean * box[2:]
        pose = Pose(
            annotation["image_id"], points, np.ones(len(mean)), 1.0, 1.0, box.tolist(), annotation["id"]
        )
        results.append(_result(pose, 1.0))
    return results
