"""From a trained network to one of a smaller size: which scores, then the cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from rtmpose.config import Architecture, AugmentConfig
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.files import UserError
from rtmpose.models import PoseNet, build_model, normalise
from rtmpose.pruning.cut import Scores, cut
from rtmpose.pruning.scores import norm_scores, taylor_scores
from rtmpose.skeleton import Skeleton
from rtmpose.targets import SimCC, UDPHeatmap
from rtmpose.training.update import Task, heatmap_task, simcc_task

BATCHES, BATCH_SIZE = 8, 64  # of crops that the loss is measured on
TAU = 0.1  # of the SimCC loss
AS_CUT = AugmentConfig(
    flip=0.0, half_body=0.0, shift=0.0, shift_prob=0.0, scale=0.0, rotate=0.0, rotate_prob=0.0, hue=0,
    saturation=0, value=0, hole=0.0,
)  # fmt: skip


def pruned(network: PoseNet, architecture: Architecture, to: str, scores: Scores) -> PoseNet:
    """A network of size `to` with what scores most of `network`, which has `architecture`; the input size,
    the points and the head stay. UserError where that size is not smaller.
    """
    if to == architecture.size:
        raise UserError(f"--to {to}: the weights are of that size already; give a smaller one")
    wanted = architecture.model_copy(update={"size": to})
    smaller = build_model(wanted, network.num_keypoints, network.input_size)
    cut(network, smaller, scores)
    return smaller.eval()


def scores_of(network: PoseNet, skeleton: Skeleton, shards: Path | None, batches: int = BATCHES) -> Scores:
    """Taylor scores on the first crops of a folder of training shards, or without one those of the norms
    alone. UserError for a folder that holds no training shards, or none that were cut for this input size.
    """
    if shards is None:
        return norm_scores(network)
    size = network.input_size
    stream = TrainStream([MixEntry(shards, 1)], skeleton, size, batch_size=BATCH_SIZE, seed=0)
    task = _task(network)
    few: Iterator[Batch] = islice(stream.epoch(0, AS_CUT), batches)
    losses: Iterator[Callable[[PoseNet], Tensor]] = (partial(_loss, task, batch) for batch in few)
    return taylor_scores(network, losses)


def _task(network: PoseNet) -> Task:
    if any(key.startswith("head.deconv_layers.") for key in network.state_dict()):
        return heatmap_task(network, UDPHeatmap(network.input_size))
    return simcc_task(network, SimCC(network.input_size), TAU)


def _loss(task: Task, batch: Batch, network: PoseNet) -> Tensor:
    targets, weights = task.codec.encode(batch.keypoints, batch.weights)
    output: Any = network(normalise(batch.images))
    return task.loss(output, targets, weights)
