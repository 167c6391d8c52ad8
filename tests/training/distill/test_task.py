"""What a student loses against its teacher; a run with a teacher is one run however it was cut off."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from rtmpose.config import DistillParams, FinetuneParams, ModelParams, OptimParams
from rtmpose.models import PoseNet, load_exactly
from rtmpose.targets import SimCC
from rtmpose.training.checkpoint import BEST, Store
from rtmpose.training.distill.losses import DEVICE_ROWS, feature_loss, logit_loss
from rtmpose.training.distill.task import Pupil, head_task
from rtmpose.training.distill.teacher import Lesson, Teacher
from rtmpose.training.loop import Run
from rtmpose.training.update import Updater, simcc_task
from tests.models.support import light_net
from tests.support import ROOT
from tests.training.distill.support import POINTS, SIZE, TAU, Batches, batch, task_of, teaching_net

OPTIM = OptimParams(lr=1e-3, warmup_steps=2, ema_gamma=3.0)


def test_logit_loss_is_the_divergence_over_all_points() -> None:
    """One row, two points of two bins each: by hand."""
    student = torch.tensor([[[0.0, 0.0], [0.0, 0.0]]])
    teacher = torch.tensor([[[0.1, 0.0], [0.0, 0.0]]])
    share = torch.tensor(1.0).exp() / (1 + torch.tensor(1.0).exp())  # softmax of (1, 0) for beta = 10
    expected = share * (share / 0.5).log() + (1 - share) * ((1 - share) / 0.5).log()
    one_axis = logit_loss((student, student), (teacher, student), 10.0)
    assert float(one_axis) == pytest.approx(float(expected) / 2, rel=1e-6)  # over K = 2
    two_rows = (student.repeat(2, 1, 1), student.repeat(2, 1, 1))
    assert float(logit_loss(two_rows, (teacher.repeat(2, 1, 1), two_rows[1]), 10.0)) == pytest.approx(
        float(expected), rel=1e-6
    )
    assert float(logit_loss((teacher, teacher), (teacher, teacher), 10.0)) == 0


def test_feature_loss_is_a_sum_in_float32() -> None:
    student, teacher = torch.full((2, 3, 4, 4), 300.0).half(), torch.zeros(2, 3, 4, 4).half()
    assert float(feature_loss(student, teacher)) == 2 * 3 * 16 * 300.0**2  # beyond float16


def test_the_loss_is_labels_plus_a_say_that_falls() -> None:
    params = DistillParams(teacher="t.pt", feature=1e-3, logit=0.5)
    task, images = task_of(params), torch.randn(3, 3, SIZE[1], SIZE[0])
    labels, weights = task.codec.encode(batch(3, 0).keypoints, torch.ones(3, POINTS))
    assert task.guide is not None
    lesson = task.guide.lesson(images)
    x, y, features = task.model.train()(images)
    plain = simcc_task(task.model, SimCC(SIZE), TAU).loss((x, y), labels, weights)
    taught = 1e-3 * feature_loss(features, lesson.features) + 0.5 * logit_loss((x, y), lesson.logits, 1 / TAU)
    for epoch, say in enumerate((1.0, 0.75, 0.5, 0.25)):  # 1 - (t - 1) / t_max
        task.guide.begin_epoch(epoch, 4)
        expected = plain + say / DEVICE_ROWS * taught
        torch.testing.assert_close(task.loss((x, y, features), (labels, lesson), weights), expected)


def test_losses_of_parts_add_up_to_that_of_the_batch() -> None:
    """So that an update does not depend on how a batch is split among workers."""
    task = task_of()

    def loss(rows: slice) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        bins = torch.randn(4, POINTS, 2 * SIZE[0], generator=generator)
        maps = torch.randn(4, 256, 2, 2, generator=generator)
        labels, weights = task.codec.encode(batch(4, 0).keypoints, torch.ones(4, POINTS))
        lesson = Lesson(maps.flip(0)[rows], (bins.flip(0)[rows], bins.flip(1)[rows]))
        labels = tuple(axis[rows] for axis in labels)
        return task.loss((bins[rows], bins[rows], maps[rows]), (labels, lesson), weights[rows])

    torch.testing.assert_close(loss(slice(0, 1)) + loss(slice(1, 4)), loss(slice(0, 4)))


def test_a_pupil_is_its_network_when_it_is_not_trained() -> None:
    torch.manual_seed(0)
    plain, images = light_net(POINTS, SIZE), torch.randn(2, 3, SIZE[1], SIZE[0])
    pupil = Pupil(copy.deepcopy(plain), 256)
    with torch.inference_mode():
        assert all(map(torch.equal, plain.eval()(images), pupil.eval()(images)))
    assert [each.shape[1] for each in pupil.train()(images)] == [POINTS, POINTS, 256]
    alike = Pupil(copy.deepcopy(plain), 128)
    assert alike.state_dict().keys() == plain.state_dict().keys(), "where channels agree nothing lies between"


def test_without_the_feature_loss_there_is_no_projection() -> None:
    assert type(task_of(DistillParams(teacher="t.pt", feature=0.0)).model) is PoseNet


def updater_of(task: Any, **options: Any) -> Updater:
    return Updater(
        task, device=torch.device("cpu"), precision="fp32", global_batch=4, weight_decay=0.05, optim=OPTIM,
        ema_momentum=0.1, **options,
    )  # fmt: skip


def test_a_teacher_learns_nothing() -> None:
    task = task_of()
    guide = task.guide
    assert isinstance(guide, Teacher)
    before = copy.deepcopy(guide.network.state_dict())
    task.model.train()
    updater = updater_of(task)
    updater.step(batch(4, 0), 1e-3)
    after = guide.network.state_dict()
    assert not guide.network.training and all(torch.equal(value, after[key]) for key, value in before.items())
    assert any(name.startswith("projection.") for name in updater.ema.state)
    assert updater.averaged().keys() == light_net(POINTS, SIZE).state_dict().keys()


def test_a_teacher_draws_its_student_near() -> None:
    """Labels aside, both losses against the teacher fall."""
    task = task_of(DistillParams(teacher="t.pt", feature=1e-2, logit=10.0))
    task.model.train()
    updater, same = updater_of(task), batch(4, 0)
    same = same._replace(weights=torch.zeros_like(same.weights))
    losses = [float(updater.step(same, 1e-3).loss) for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_fresh_head_learns_from_the_trained_network_alone() -> None:
    torch.manual_seed(0)
    trained, student = teaching_net(), teaching_net()
    with torch.no_grad():
        for name in ("final_layer", "mlp.1", "cls_x", "cls_y"):  # a head that has something to say
            trained.get_parameter(f"head.{name}.weight").mul_(30)
    student.backbone.load_state_dict(trained.backbone.state_dict())
    task = head_task(student, SimCC(SIZE), TAU, Teacher(copy.deepcopy(trained)))
    student.train()
    updater = updater_of(task, frozen=["backbone."])
    other = batch(4, 0)._replace(keypoints=torch.full((4, POINTS, 2), torch.nan))  # labels are never asked
    labelled = updater.step(batch(4, 0), 0.0)
    assert float(labelled.loss) > 0 and not bool(labelled.skipped)
    assert float(updater.step(other, 0.0).loss) == float(labelled.loss)
    before = copy.deepcopy(student.state_dict())
    updater.step(batch(4, 1), 1e-3)
    moved = {key for key, value in student.state_dict().items() if not torch.equal(value, before[key])}
    assert moved and all(key.startswith("head.") for key in moved)


class Killed(Exception):
    """Stands for the moment a process is killed."""


def run_in(store: Store, kill_at: int | None = None) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())["finetune"]
    length = {"epochs": 2, "weak_epochs": 0, "batch_size": 4, "evaluate_every": 1}
    params = FinetuneParams.model_validate(content | length | {"checkpoint_steps": 1, "log_steps": 1})

    def report(line: dict[str, Any]) -> None:
        if "loss" in line and line["step"] == kill_at:
            raise Killed

    Run(
        task_of(),
        Batches(),
        store,
        params=params,
        model_params=ModelParams(size="t", weight_decay=0.05, ema_momentum=0.01),
        evaluate=lambda model: {"AP": float(next(model.parameters()).detach().double().abs().sum())},
        report=report,
        epoch_done=lambda _: None,
        device=torch.device("cpu"),
        precision="fp32",
    ).train()


def test_a_run_with_a_teacher_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = Store.open(tmp_path, "whole", fresh=False), Store.open(tmp_path, "cut", fresh=False)
    run_in(whole)
    with pytest.raises(Killed):
        run_in(cut, kill_at=3)  # in the second epoch, where the teacher has less of a say
    run_in(Store.open(tmp_path, "cut", fresh=False))
    ours, theirs = whole.load(), cut.load()
    assert ours is not None and theirs is not None and ours["position"] == theirs["position"]
    for part in ("model", "ema"):
        assert all(torch.equal(value, theirs[part][key]) for key, value in ours[part].items()), part
    parts = {key.partition(".")[0] for key in ours["model"]}
    assert parts == {"backbone", "head", "projection"}, "the teacher is in no checkpoint"
    load_exactly(light_net(POINTS, SIZE), whole.folder / BEST)  # and what only training needs in no result
