"""AP of a network on an evaluation shard set or a raw folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rtmpose.config import EvaluateParams, Params, Precision
from rtmpose.data.raw.annotations import RawImage, read_images
from rtmpose.data.raw.doubts import Doubts
from rtmpose.data.raw.photograph import read_photograph
from rtmpose.data.shards.manifest import EvalImage, read_eval, read_manifest
from rtmpose.descriptors import Dataset, load_skeleton
from rtmpose.evaluation.coco import STATISTICS, evaluate_keypoints, person_annotations
from rtmpose.evaluation.counted import Counted, listed, with_box
from rtmpose.evaluation.error import point_errors, set_mean_pose
from rtmpose.evaluation.mapped import in_skeleton
from rtmpose.evaluation.mean_pose import mean_pose_predictions
from rtmpose.evaluation.measures import Measured, Pool, in_points, measure, sigmas_in
from rtmpose.evaluation.predict import Boxes, boxes_of, predict_poses
from rtmpose.evaluation.scoring import Pose, to_results
from rtmpose.models import build_model, load_exactly
from rtmpose.precision import choose_here
from rtmpose.skeleton import Skeleton
from rtmpose.targets import Codec

Figures = dict[str, Any]
Results = list[dict[str, Any]]
Progress = Callable[[int, int], None]  # (images read, images in all)


@dataclass(frozen=True)
class Evaluator:
    """A network, its codec and skeleton, and how to evaluate: flip test, thresholds, precision.

    `judged_as` is the data set by whose metrics and sigmas it is judged besides AP (`evaluation.measures`),
    if any. `pool` gathers what such sets are judged by together, and adds its metrics to those of each.
    """

    model: nn.Module
    codec: Codec
    skeleton: Skeleton
    params: EvaluateParams
    precision: Precision
    device: torch.device
    judged_as: Dataset | None = None
    pool: Pool | None = None

    def images(
        self,
        images: Iterable[EvalImage],
        boxes: Boxes = "ground truth",
        progress: Callable[[int], None] | None = None,
        lost: list[Mapping[str, Any]] | None = None,
    ) -> tuple[Figures, Results, dict[str, Any]]:
        """COCO's ten figures on images that are read once, the results, and the ground truth they were
        compared with.

        On ground-truth boxes with `error` and `mean_pose_error`, see `evaluation.error`, and with what
        `evaluation.counted` finds; `lost` are persons of no image, who count there too. With `judged_as`, its
        metrics are `measures`, and `unmeasured` says why any of them is not there. `progress` is called
        with the number of images read so far. A network whose points are not finite gives NaN for every
        figure, and no results: COCO's matching would take them for perfect.

        Raises UserError where no pose can be predicted for more persons than `params.max_unpredicted` allows.
        """
        poses, truth = self.poses(images, boxes, progress)
        truth["lost"] = [] if lost is None else lost
        if not all(np.isfinite(pose.keypoints).all() and np.isfinite(pose.scores).all() for pose in poses):
            return dict.fromkeys(STATISTICS, math.nan), [], truth
        results = self.results(poses)
        figures: Figures = dict(evaluate_keypoints(truth, results, self.skeleton.sigmas))
        if boxes == "ground truth":
            counted = Counted.of(truth)
            counted.refuse_many(self.params.max_unpredicted)
            figures |= counted.figures()
        if boxes == "ground truth" and person_annotations(truth):
            mean = set_mean_pose(truth, self.skeleton.num_keypoints)
            figures["error"] = point_errors(truth, poses, mean).mean
            figures["mean_pose_error"] = point_errors(truth, (), mean).mean
        return (
            figures | self._measures(truth, poses if boxes == "ground truth" else None, results),
            results,
            truth,
        )

    def _measures(self, truth: dict[str, Any], poses: list[Pose] | None, results: Results) -> Figures:
        if self.judged_as is None:
            return {}
        own = self.judged_as.skeleton
        measures, unmeasured = measure(
            truth,
            poses,
            results,
            metrics=self.judged_as.metrics,
            options=in_points(self.judged_as.metric_options, own, self.skeleton),
            names=self.skeleton.names,
            sigmas=sigmas_in(own, self.skeleton),
        )
        if self.pool is not None:
            more, missing = self._by_the_pool(self.pool, truth, poses)
            measures, unmeasured = more | measures, missing | unmeasured
        found = {
            "measures": {name: each.as_json() for name, each in measures.items()},
            "unmeasured": unmeasured,
        }
        return {name: figures for name, figures in found.items() if figures}

    def _by_the_pool(
        self, pool: Pool, truth: dict[str, Any], poses: list[Pose] | None
    ) -> tuple[dict[str, Measured], dict[str, str]]:
        """The pool's metrics of one set, which is added to it if its boxes are the ground truth's."""
        if poses is not None:
            pool.add(truth, poses)
        told = pool.told
        return measure(
            truth, poses, (), metrics=told.metrics, options=told.metric_options, names=self.skeleton.names,
            sigmas=self.skeleton.sigmas,
        )  # fmt: skip

    def poses(
        self,
        images: Iterable[EvalImage],
        boxes: Boxes = "ground truth",
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[Pose], dict[str, Any]]:
        """A pose in every box, duplicates included, and the images' ground truth, gathered while they are
        read: each person with the box that it was predicted in; `found_boxes` of a detector's.
        """
        truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
        truth["found_boxes"] = 0

        def remembered() -> Iterator[EvalImage]:
            for image in images:
                if boxes == "ground truth":
                    annotations = [with_box(each, image.width, image.height) for each in image.annotations]
                    image = replace(image, annotations=annotations)
                else:
                    truth["found_boxes"] += len(boxes_of(image.image_id, boxes))
                size = {"width": image.width, "height": image.height}
                truth["images"].append({"id": image.image_id, "file_name": image.file_name, **size})
                truth["annotations"] += image.annotations
                yield image
                if progress is not None:
                    progress(len(truth["images"]))

        poses = predict_poses(
            self.model,
            self.codec,
            remembered(),
            boxes,
            self.skeleton,
            batch_size=self.params.batch_size,
            flip_test=self.params.flip_test,
            device=self.device,
            precision=self.precision,
        )
        return poses, truth

    def results(self, poses: Iterable[Pose]) -> Results:
        """Poses as COCO results, rescored and without duplicates, by the parameters' thresholds."""
        return to_results(
            poses,
            self.skeleton.sigmas,
            keypoint_threshold=self.params.keypoint_threshold,
            nms_threshold=self.params.nms_threshold,
        )

    def shards(
        self, folder: Path, boxes: Boxes = "ground truth", progress: Progress | None = None
    ) -> tuple[Figures, Results, dict[str, Any]]:
        """`images` of an evaluation shard set, in the network's points (`evaluation.mapped`); `progress` is
        called with (images read, images in all).
        """
        manifest, report = read_manifest(folder, "eval"), progress
        images = in_skeleton(read_eval(folder), Skeleton.from_dict(manifest["skeleton"]), self.skeleton)
        if report is None:
            return self.images(images, boxes)
        total = int(manifest["samples"])
        return self.images(images, boxes, lambda done: report(done, total))

    def raw(
        self, dataset: Dataset, root: Path, boxes: Boxes = "ground truth", doubts: Doubts | None = None
    ) -> tuple[Figures, Results, dict[str, Any]]:
        """`images` of a raw folder's validation split; `doubts` collects what is implausible in it."""
        lost: list[Mapping[str, Any]] = []
        images = listed(read_images(dataset, root, "val", doubts), lost)
        return self.images(in_skeleton(opened(images), dataset.skeleton, self.skeleton), boxes, None, lost)

    def judging(self, dataset: Dataset) -> Evaluator:
        """The same by the metrics that the data set's descriptor names."""
        return replace(self, judged_as=dataset)

    def without_flip(self) -> Evaluator:
        """For the choice of checkpoints, half the work: no flip test. They are compared on the persons that
        have a box, however few these are.
        """
        tuning = {"flip_test": False, "max_unpredicted": 1.0}
        return replace(self, params=self.params.model_copy(update=tuning))

    def mean_pose_ap(self, truth: dict[str, Any]) -> float:
        """AP of the set's own mean pose put into every box. Any model must beat it, although it is flattered:
        it was computed from the very persons that it is compared with.
        """
        mean = set_mean_pose(truth, self.skeleton.num_keypoints)
        return evaluate_keypoints(truth, mean_pose_predictions(mean, truth), self.skeleton.sigmas)["AP"]


def raw_images(dataset: Dataset, root: Path, split: str) -> Iterator[EvalImage]:
    """The images of a raw folder, read in place."""
    return opened(read_images(dataset, root, split))


def opened(images: Iterable[RawImage]) -> Iterator[EvalImage]:
    """Raw images with their pixels and size."""
    for raw in images:
        _, pixels = read_photograph(raw)
        height, width = pixels.shape[:2]
        yield EvalImage(raw.image_id, pixels, width, height, raw.annotations, raw.file_name)


def sample_images(folder: Path, count: int) -> list[EvalImage]:
    """The first `count` images of an evaluation shard set that hold a person."""
    return list(
        islice((image for image in read_eval(folder) if person_annotations(image.annotations)), count)
    )


def load_evaluator(
    params: Params, weights: Path, codec: Codec, precision: Precision | None = None
) -> Evaluator:
    """The network of the parameters with its trained weights, on a GPU where there is one, and how they say
    to evaluate it; `precision` None: what they say of this device.
    """
    skeleton = load_skeleton(params.skeleton)
    net = build_model(params.model, skeleton.num_keypoints, params.input_size)
    load_exactly(net, weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = precision or choose_here(params, device.type == "cuda").precision
    return Evaluator(net, codec, skeleton, params.evaluate, precision, device)
