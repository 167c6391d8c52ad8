"""Every recipe trains: from raw samples through its shards, pretraining and finetuning, to figures.

Two updates each, one of the strong and one of the weak augmentation, in batches of two. The largest models
are not pretrained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rtmpose.config import Params, with_values
from rtmpose.data.stream.mix import Mix
from rtmpose.data.stream.pixels import check_pixels
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.evaluation.measures import Pool
from rtmpose.models import build_model, save_tensors
from rtmpose.training.distill.stages import head_params
from rtmpose.training.distill.task import PROJECTION
from rtmpose.training.job import Job, build_task, open_stream
from rtmpose.training.optim import learning_rate
from rtmpose.training.update import Task, Updater
from tests.recipes.conftest import Recipe
from tests.recipes.published import FINETUNED
from tests.recipes.shelf import Shelf

CPU = torch.device("cpu")
# A recipe at a size that takes the way of another one that is trained here.
ALIKE = {
    *[(name, "l") for name in ("coco17", "body/coco", "body/coco_384", "body/aic_coco_384", "wholebody133")],
    *[(name, size) for name in ("body/body8", "body/halpe26") for size in "sl"],
    *[(name, size) for name in ("body/body8_384", "body/halpe26_384") for size in "lx"],
    *[("face/face6", size) for size in "ts"],
}
# Metrics that the samples of a set do not show, and why.
UNMEASURED = {"mpii": {"pckh": "the samples come without the file of head boxes"}}
TRAINED = [(entry.recipe, entry.size) for entry in FINETUNED if (entry.recipe, entry.size) not in ALIKE]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small batches take longer in two threads, which wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(params: Params) -> Params:
    """The recipe, with two samples to a batch, or one to a pass, and everything in this process."""
    values = {"pretrain.batch_size": 2, "finetune.batch_size": max(2, params.finetune.accumulate)}
    return with_values(params, values | {"hardware.loader_workers": 0, "evaluate.batch_size": 8})


@dataclass
class Trained:
    """A stage's task after its updates, the watched weights before and after them, and the losses."""

    task: Task
    before: Tensor
    after: Tensor
    losses: list[float]


def trained(stage: str, params: Params, mix: Mix, init: Path | None, teacher: Path | None = None) -> Trained:
    """A stage of the recipe after two updates at its full rate."""
    finetune, model = params.finetune, params.model
    job = Job(stage, params, "fp32", mix, Path(), "", "", "", init, finetune.tau, finetune.sigma, teacher)
    train, task = job.train, build_task(job)
    before = watched(task)
    stream = open_stream(params, train, mix, udp=task.codec.udp)
    updater = Updater(
        task, device=CPU, precision="fp32", global_batch=train.batch_size, weight_decay=model.weight_decay,
        optim=train.optim, ema_momentum=model.ema_momentum, accumulate=train.accumulate, frozen=train.freeze,
    )  # fmt: skip
    warm, losses = train.optim.warmup_steps, []
    for epoch, augment in [(0, train.strong), (train.epochs - 1, train.weak)]:
        batch = next(iter(stream.epoch(epoch, augment)))
        points = load_skeleton(train.skeleton).num_keypoints
        assert batch.weights.shape == (train.batch_size, points)
        rate = learning_rate(warm, optim=train.optim, epochs=train.epochs, steps_per_epoch=warm)
        done = updater.step(batch, rate)
        assert not done.skipped
        losses.append(float(done.loss))
    return Trained(task, before, watched(task), losses)


def watched(task: Task) -> Tensor:
    """The weights that are looked at: of the backbone's first layer, and of the head's."""
    state = task.model.state_dict()
    parts = [
        next(value for key, value in state.items() if key.startswith(f"{part}.") and value.ndim == 4)
        for part in ("backbone", "head")
    ]
    return torch.cat([part.ravel() for part in parts]).clone()


def learned(run: Trained) -> None:
    """Finite losses, and weights that have changed and are finite."""
    assert run.losses and all(math.isfinite(loss) and loss > 0 for loss in run.losses)
    assert torch.isfinite(run.after).all() and not torch.equal(run.before, run.after)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), TRAINED, ids=map("-".join, TRAINED))
def test_a_recipe_trains_on_samples(
    name: str, size: str, recipe: Recipe, shelf: Shelf, tmp_path: Path
) -> None:
    params = small(recipe(name, size))
    check_pixels(params)
    mix, init = shelf.mix(params), None
    if params.pretrain.enabled and size not in "lx":
        pretrained = trained("pretrain", params, mix, None)
        learned(pretrained)
        init = tmp_path / "pretrain.pt"
        save_tensors(init, pretrained.task.model.state_dict())
    run = trained("finetune", params, mix, init)
    learned(run)
    if init is not None:
        stem = torch.load(init, weights_only=True)["backbone.stem.0.conv.weight"].ravel()
        assert torch.equal(run.before[: len(stem)], stem)
    if size not in "lx" and params.input_size != (288, 384):
        judged(params, run.task, mix)


@pytest.mark.slow
def test_a_teacher_guides_the_student_and_then_its_fresh_head(
    recipe: Recipe, shelf: Shelf, tmp_path: Path
) -> None:
    """The recipe `dwpose133`: under a larger network, then a new head under the student itself."""
    params = small(recipe("dwpose133", "t"))
    mix, teacher, student = shelf.mix(params), tmp_path / "teacher.pt", tmp_path / "student.pt"
    larger, points = recipe("wholebody133", "m").model, load_skeleton(params.skeleton).num_keypoints
    save_tensors(teacher, {"state_dict": build_model(larger, points, params.input_size).state_dict()})
    guided = trained("finetune", params, mix, None, teacher)
    learned(guided)
    weights = guided.task.model.state_dict()
    kept = {key: value for key, value in weights.items() if not key.startswith(PROJECTION)}
    assert len(kept) < len(weights), "the student learned the teacher's features, too"
    save_tensors(student, {"state_dict": kept})
    head = trained("head", head_params(params), mix, student, student)
    learned(head)
    assert guided.task.guide is not None and head.task.guide is not None
    held = head.task.model.state_dict()
    assert all(torch.equal(held[key], kept[key]) for key in held if key.startswith("backbone."))
    judged(params, head.task, mix)


OTHERS = (
    "rtmw133-m", "radiographs-t", "cephalometric-t", "cephalometric1024-t", "cephalometric_hrnet-hrnet_w32",
)  # fmt: skip
SMALLER = {"cephalometric_hrnet-hrnet_w32": [128, 128]}  # where a sample of its own size takes 4 s


@pytest.mark.slow
@pytest.mark.parametrize("which", OTHERS)
def test_a_recipe_of_another_paper_trains(which: str, recipe: Recipe, shelf: Shelf) -> None:
    params = small(recipe(*which.split("-")))
    if which in SMALLER:
        params = with_values(params, dict.fromkeys(("input_size", "shard.input_size"), SMALLER[which]))
    mix = shelf.mix(params)
    if params.pretrain.enabled:
        learned(trained("pretrain", params, mix, None))
    run = trained("finetune", params, mix, None)
    learned(run)
    judged(params, run.task, mix)


def judged(params: Params, task: Task, mix: Mix) -> None:
    """Figures on every set that the recipe evaluates, in the points that it shares with the network's."""
    skeleton, told = load_skeleton(params.skeleton), params.evaluate.pooled
    pool = None if told is None else Pool.of(told, skeleton.names)
    judge = Evaluator(task.model, task.codec, skeleton, params.evaluate, "fp32", CPU, pool=pool)
    for key, folder in mix.val.items():
        dataset = load_dataset(params.datasets[key].descriptor)
        figures, results, truth = judge.judging(dataset).shards(folder)
        unmeasured = figures.get("unmeasured", {})
        assert unmeasured.keys() == UNMEASURED.get(dataset.name, {}).keys(), (key, unmeasured)
        assert results and figures["persons"] > 0, key
        assert math.isfinite(figures["AP"]) and figures["error"] > 0, key
        if judge.skeleton.name != "coco_wholebody":  # whose points lie in five fields
            points = {len(annotation["keypoints"]) for annotation in truth["annotations"]}
            assert points == {3 * judge.skeleton.num_keypoints}, key
    if pool is not None:
        together = pool.figures()
        assert together["measures"] and "unmeasured" not in together
        assert len(pool.parts) == len(mix.val) and all(len(part.boxes) for part in pool.parts)
