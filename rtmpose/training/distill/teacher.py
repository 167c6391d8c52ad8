"""The network that teaches: any SimCC network of ours, or an official one, with the student's points and
input size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rtmpose.files import UserError
from rtmpose.models import PoseNet, build_model, load_exactly
from rtmpose.models.archive import read_checkpoint
from rtmpose.models.pose_net import Features
from rtmpose.models.shapes import shapes_of
from rtmpose.models.weight_sets import chosen_weights
from rtmpose.skeleton import Skeleton

KEY = "finetune.distill.teacher"


class Lesson(NamedTuple):
    """What a teacher makes of a batch: the coarsest map its head reads (N, C, H/32, W/32), and its logits
    x (N, K, 2W), y (N, K, 2H).
    """

    features: Tensor
    logits: tuple[Tensor, Tensor]


def coarsest(features: Features) -> Tensor:
    """Of the maps that a head reads the one of stride 32."""
    return features[-1] if isinstance(features, tuple) else features


class Teacher:
    """A trained network in evaluation mode; it learns nothing, and no checkpoint holds it.

    Its `say` falls linearly from 1 in the first epoch: r(t) = 1 - (t - 1) / t_max, t from 1 (equation 4). It
    depends on the epoch alone, so a resumed run goes on with it as it was.
    """

    def __init__(self, network: PoseNet) -> None:
        self.network = network.eval().requires_grad_(False)
        self.say = 1.0

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Epochs count from 0 here."""
        self.say = 1.0 - epoch / epochs

    def to(self, device: torch.device) -> None:
        """Move to where the student is trained, channels-last like it."""
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def lesson(self, images: Tensor) -> Lesson:
        """Of normalised images (N, 3, H, W), in the precision of the autocast that it is called in."""
        features = self.network.features(images)
        x, y = self.network.head(features)
        return Lesson(coarsest(features), (x, y))


def load_teacher(path: Path, skeleton: Skeleton, input_size: tuple[int, int]) -> Teacher:
    """The teacher whose weights lie at `path`; its size is that of the weights.

    Raises UserError where it is no SimCC network, has other points than the student's `skeleton`, or another
    input size (w, h) px. Points have names only in files with a note of ours; in others they are counted.
    """
    content = read_checkpoint(path)
    shapes = shapes_of(chosen_weights(content, path))
    named = _noted_names(content)
    points = skeleton.num_keypoints
    if shapes.architecture.head != "simcc" or shapes.num_keypoints is None or shapes.input_size is None:
        found = f"is a {shapes.architecture.head} network" if shapes.num_keypoints else "is a backbone alone"
        raise UserError(f"{path}: {found}; {KEY} must be a whole network with SimCC head")
    if shapes.num_keypoints != points or named not in (None, skeleton.names):
        theirs = f"{shapes.num_keypoints} points" + ("" if named is None else f" ({named[0]}, …)")
        raise UserError(
            f"{path}: predicts {theirs}, the student {points} of {skeleton.name}; give {KEY} the weights of "
            "a network with the same points"
        )
    if shapes.input_size != tuple(input_size):
        theirs, ours = ("x".join(map(str, size)) for size in (shapes.input_size, input_size))
        raise UserError(
            f"{path}: takes {theirs} px, the student {ours}; give {KEY} the weights of a network with "
            "input_size of the student"
        )
    network = build_model(shapes.architecture, points, shapes.input_size)
    load_exactly(network, path, f"give {KEY} weights as training or `rtmpose weights pull` leaves them")
    return Teacher(network)


def _noted_names(content: object) -> tuple[str, ...] | None:
    """The names of the points, from the note that `rtmpose convert` writes into a file."""
    meta = content.get("meta") if isinstance(content, dict) else None
    text = meta.get("rtmpose") if isinstance(meta, dict) else None
    try:
        names = json.loads(text)["keypoint_names"] if isinstance(text, str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # a damaged note says nothing, and the weights have been read
    return tuple(map(str, names)) if isinstance(names, list) else None
