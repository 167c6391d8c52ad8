"""Every recipe trains: from raw samples through its shards, pretraining and finetuning, to figures.

Two updates each, one of the strong and one of the weak augmentation, in batches of two; one for the largest
models.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rtmpose.config import Params, with_values
from rtmpose.data.stream.mix import Mix
from rtmpose.data.stream.pixels import check_pixels
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.evaluator import Evaluator
from rtmpose.models import save_tensors
from rtmpose.training.job import Job, build_task, open_stream
from rtmpose.training.optim import learning_rate
from rtmpose.training.update import Task, Updater
from tests.recipes.conftest import Recipe
from tests.recipes.published import FINETUNED
from tests.recipes.shelf import Shelf

CPU = torch.device("cpu")
# The recipes of whole families at another size of the same model, whose path is that of the smaller one.
ALIKE = {("coco17", "l"), ("body/coco", "l"), ("body/coco_384", "l"), ("body/aic_coco_384", "l"),
         ("wholebody133", "l")}  # fmt: skip
TRAINED = [(entry.recipe, entry.size) for entry in FINETUNED if (entry.recipe, entry.size) not in ALIKE]


def small(params: Params) -> Params:
    """The recipe, with two samples to a batch and everything in this process."""
    values = {f"{stage}.batch_size": 2 for stage in ("pretrain", "finetune")}
    return with_values(params, values | {"hardware.loader_workers": 0, "evaluate.batch_size": 8})


def trained(stage: str, params: Params, mix: Mix, init: Path | None, steps: int) -> tuple[Task, list[float]]:
    """The task of a stage after `steps` updates at the recipe's full rate, and their losses."""
    finetune = params.finetune
    job = Job(stage, params, "fp32", mix, Path(), "", "", "", init, finetune.tau, finetune.sigma)
    train, task = job.train, build_task(job)
    stream = open_stream(params, train, mix, udp=task.codec.udp)
    model = params.model
    updater = Updater(
        task, device=CPU, precision="fp32", global_batch=train.batch_size, weight_decay=model.weight_decay,
        optim=train.optim, ema_momentum=model.ema_momentum,
    )  # fmt: skip
    losses = []
    for epoch, augment in [(0, train.strong), (train.epochs - 1, train.weak)][:steps]:
        batch = next(iter(stream.epoch(epoch, augment)))
        rate = learning_rate(
            train.optim.warmup_steps, optim=train.optim, epochs=train.epochs, steps_per_epoch=10
        )
        assert batch.weights.shape == (2, load_skeleton(train.skeleton).num_keypoints)
        done = updater.step(batch, rate)
        assert not done.skipped
        losses.append(float(done.loss))
    return task, losses


def watched(task: Task) -> Tensor:
    """The weights that are looked at: of the head, and of the backbone's first layer."""
    state = task.model.state_dict()
    head = next(value for key, value in state.items() if key.startswith("head.") and value.ndim == 4)
    return torch.cat([state["backbone.stem.0.conv.weight"].ravel(), head.ravel()]).clone()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), TRAINED, ids="-".join)
def test_a_recipe_trains_on_samples(
    name: str, size: str, recipe: Recipe, shelf: Shelf, tmp_path: Path
) -> None:
    params = small(recipe(name, size))
    check_pixels(params)
    mix, steps, init = shelf.mix(params), 1 if size in "lx" else 2, None
    if params.pretrain.enabled and size != "x":
        task, losses = trained("pretrain", params, mix, None, steps)
        assert all(math.isfinite(loss) and loss > 0 for loss in losses)
        init = tmp_path / "pretrain.pt"
        save_tensors(init, task.model.state_dict())
    before = watched(trained("finetune", params, mix, init, 0)[0])
    task, losses = trained("finetune", params, mix, init, steps)
    after = watched(task)
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert torch.isfinite(after).all() and not torch.equal(before, after)
    if init is not None:
        pretrained = torch.load(init, weights_only=True)["backbone.stem.0.conv.weight"]
        assert torch.equal(before[: pretrained.numel()], pretrained.ravel())
    if size not in "lx":
        judged(params, task, mix)


def judged(params: Params, task: Task, mix: Mix) -> None:
    """Figures on every set that the recipe evaluates, in the points that it shares with the network's."""
    judge = Evaluator(task.model, task.codec, load_skeleton(params.skeleton), params.evaluate, "fp32", CPU)
    for key, folder in mix.val.items():
        figures, results, truth = judge.shards(folder)
        assert results and figures["persons"] > 0, key
        assert math.isfinite(figures["AP"]) and figures["error"] > 0, key
        assert all(len(one["keypoints"]) == 3 * judge.skeleton.num_keypoints for one in truth["annotations"])
