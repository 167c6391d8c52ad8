"""How a network learns from a teacher: what it gives besides its output, and what it loses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from rtmpose.config import DistillParams
from rtmpose.models import PoseNet
from rtmpose.targets import SimCC
from rtmpose.training.distill.losses import DEVICE_ROWS, feature_loss, logit_loss
from rtmpose.training.distill.teacher import Lesson, Teacher, coarsest
from rtmpose.training.optim import MEAN_EPS
from rtmpose.training.update import Task, simcc_task

PROJECTION = "projection."


class Pupil(PoseNet):
    """A network that while it is trained also gives its coarsest map, brought to a teacher's `channels`:
    (N, 3, H, W) -> x (N, K, 2W), y (N, K, 2H), map (N, channels, H/32, W/32).

    In evaluation mode it is the network that it is made of, and shares its weights.
    """

    def __init__(self, network: PoseNet, channels: int) -> None:
        super().__init__(
            network.backbone, network.head, network.num_keypoints, network.input_size, network.neck
        )
        own = channels_of(network)
        self.projection = nn.Conv2d(own, channels, 1) if own != channels else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        features = self.features(images)
        x, y = self.head(features)
        return (x, y, self.projection(coarsest(features))) if self.training else (x, y)


def channels_of(network: PoseNet) -> int:
    """Channels of the coarsest map that the head reads: a neck gives as many as the backbone."""
    return cast(int, network.backbone.channels)


def distilled_task(model: PoseNet, codec: SimCC, tau: float, teacher: Teacher, params: DistillParams) -> Task:
    """The first stage: labels, and a teacher's features and logits beside them,
    L = L_SimCC + r(t)·(α·L_feature + β·L_logit) (equation 5).
    """
    labelled = simcc_task(model, codec, tau)

    def loss(output: tuple[Tensor, ...], target: tuple[Any, Lesson], weight: Tensor) -> Tensor:
        x, y, *features = output
        labels, lesson = target
        taught = params.logit * logit_loss((x, y), lesson.logits, 1.0 / tau)
        for own in features:
            taught = taught + params.feature * feature_loss(own, lesson.features)
        return labelled.loss((x, y), labels, weight) + teacher.say / DEVICE_ROWS * taught

    if params.feature:
        model = Pupil(model, channels_of(teacher.network))
    return replace(labelled, model=model, loss=loss, guide=teacher, only_training=PROJECTION)


def head_task(model: PoseNet, codec: SimCC, tau: float, teacher: Teacher) -> Task:
    """The second stage: a fresh head learns from the trained network alone, whose backbone it has
    (section 3.2, equation 6). The loss is a mean over rows in the reference too.
    """

    def loss(output: tuple[Tensor, Tensor], target: tuple[Any, Lesson], _: Tensor) -> Tensor:
        return logit_loss(output, target[1].logits, 1.0 / tau)

    return Task(model, codec, loss, MEAN_EPS, guide=teacher)
