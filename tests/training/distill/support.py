"""A small student and teacher, and batches that need no shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from rtmpose.config import AugmentConfig, DistillParams
from rtmpose.data.stream.batch import Batch
from rtmpose.models import PoseNet, build_pose_net, save_tensors
from rtmpose.models.cspnext import STRIDE, CSPNeXt, Scale
from rtmpose.models.heads.simcc import SimCCHead
from rtmpose.targets import SimCC
from rtmpose.training.distill.task import distilled_task
from rtmpose.training.distill.teacher import Teacher
from rtmpose.training.update import Task
from tests.models.support import light_net

SIZE, POINTS, TAU = (64, 64), 5, 0.1


def teaching_net() -> PoseNet:
    """Wider than `light_net`, so that a projection lies between the two."""
    features = CSPNeXt(Scale(0.167, 0.25))
    head = SimCCHead(features.channels, POINTS, SIZE, STRIDE, kernel=7, hidden=32, gau=True)
    return PoseNet(features, head, POINTS, SIZE)


def task_of(params: DistillParams | None = None) -> Task:
    """A student with a teacher, always the same."""
    torch.manual_seed(0)
    student, teacher = light_net(POINTS, SIZE), Teacher(teaching_net())
    return distilled_task(student, SimCC(SIZE), TAU, teacher, params or DistillParams(teacher="t.pt"))


def batch(rows: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (rows, SIZE[1], SIZE[0], 3), generator=generator, dtype=torch.uint8)
    keypoints = torch.rand(rows, POINTS, 2, generator=generator) * torch.tensor(SIZE)
    return Batch(images, keypoints, torch.ones(rows, POINTS), [f"{seed}-{row}" for row in range(rows)], [])


class Batches:
    """A stream of two batches an epoch, the same whenever it is asked."""

    steps_per_epoch = 2

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        for step in range(start_step, self.steps_per_epoch):
            yield batch(4, 10 * epoch + step)

    def refuse_stronger(self, augment: AugmentConfig) -> None:
        """Any augmentation will do."""


def saved_net(path: Path, **options: object) -> Path:
    """Weights of RTMPose-t, 64x64 with 17 points unless `options` say otherwise."""
    chosen = {"num_keypoints": 17, "input_size": SIZE} | options
    torch.manual_seed(1)
    save_tensors(path, build_pose_net("t", **chosen).state_dict())  # type: ignore[arg-type]
    return path
