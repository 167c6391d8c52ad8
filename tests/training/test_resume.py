"""A run cut off at any report and resumed ends bit for bit where the undisturbed one does; ranks split a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rtmpose.config import FinetuneParams, ModelParams, UserError
from rtmpose.data.annotations import read_images
from rtmpose.data.mannequins import render_dataset
from rtmpose.data.shards import write_train_shards
from rtmpose.data.stream import Batch, MixEntry, TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.models import build_pose_net
from rtmpose.targets import SimCC
from rtmpose.training.checkpoint import Store, Superseded, read_log
from rtmpose.training.loop import Run
from rtmpose.training.update import Updater, simcc_task
from tests.support import ROOT

SIZE = (96, 128)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    dataset = load_dataset("coco17")
    render_dataset(folder / "raw", "coco17", level="easy", images={"train": 10}, size=(160, 120), seed=2, workers=1)
    images = list(read_images(dataset, folder / "raw", "train"))
    write_train_shards(images, folder / "shards", dataset=dataset, input_size=SIZE, workers=1)
    return folder / "shards"


@pytest.fixture(scope="module")
def params() -> FinetuneParams:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())["finetune"]
    changes = {"epochs": 3, "weak_epochs": 1, "batch_size": 4, "evaluate_every": 1, "checkpoint_steps": 2, "log_steps": 1}
    return FinetuneParams.model_validate(content | changes)


class Killed(Exception):
    """Stands for the moment a process is killed: nothing after it runs."""


def run(store: Store, shards: Path, params: FinetuneParams, kill_at: int | None = None) -> Run:
    torch.manual_seed(0)
    task = simcc_task(build_pose_net("t", input_size=SIZE), SimCC(SIZE), params.tau)
    stream = TrainStream([MixEntry(shards, 1)], load_dataset("coco17").skeleton, SIZE, batch_size=4, seed=5, udp=False)
    seen: list[float] = []

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        # Any number that depends on the weights alone will do for AP.
        return {"AP": float(next(model.parameters()).detach().double().abs().sum())}

    def report(line: dict[str, Any]) -> None:
        seen.append(line["step"])
        if kill_at is not None and len(seen) == kill_at:
            raise Killed
        store.append_log(line)

    model = ModelParams(size="t", weight_decay=0.05, ema_momentum=0.01)
    return Run(
        task,
        stream,
        store,
        params=params,
        model_params=model,
        evaluate=evaluate,
        report=report,
        epoch_done=lambda position: None,
        device=torch.device("cpu"),
        precision="fp32",
    )


def state_of(store: Store) -> dict[str, Any]:
    state = store.load()
    assert state is not None
    return state


@pytest.mark.parametrize("kill_at", [1, 4, 7, 9])
def test_killed_anywhere_it_ends_bit_for_bit_the_same(
    tmp_path: Path, shards: Path, params: FinetuneParams, kill_at: int
) -> None:
    whole = Store.open(tmp_path, "whole", fresh=False)
    run(whole, shards, params).train()
    cut = Store.open(tmp_path, "cut", fresh=False)
    with pytest.raises(Killed):
        run(cut, shards, params, kill_at).train()
    resumed = run(Store.open(tmp_path, "cut", fresh=False), shards, params)
    resumed.train()
    ours, theirs = state_of(whole), state_of(resumed.store)
    assert ours["position"] == theirs["position"]
    for part in ("model", "ema"):
        assert all(torch.equal(value, theirs[part][key]) for key, value in ours[part].items()), part
    for index, moments in ours["optimizer"]["state"].items():
        assert all(torch.equal(value, theirs["optimizer"]["state"][index][name]) for name, value in moments.items())
    best, other = (torch.load(s.folder / "best.pt", weights_only=True) for s in (whole, resumed.store))
    assert all(torch.equal(value, other[key]) for key, value in best.items())
    losses = [[(line["step"], line.get("loss"), line.get("AP")) for line in read_log(s.folder)] for s in (whole, resumed.store)]
    assert losses[0] == losses[1]


def test_a_run_that_was_superseded_stops_at_its_next_write(tmp_path: Path) -> None:
    old = Store.open(tmp_path, "run", fresh=False)
    old.save({"step": 1})
    new = Store.open(tmp_path, "run", fresh=True)
    for write in (lambda: old.save({"step": 2}), lambda: old.append_log({"step": 2}), lambda: old.save_best({})):
        with pytest.raises(Superseded):
            write()
    assert new.load() is None


def test_gradients_of_half_batches_add_up_to_the_whole_ones(shards: Path, params: FinetuneParams) -> None:
    """The loss is summed over the global batch and divided by its size, however it is split (batch norm held fixed)."""

    def gradients(batches: list[Batch], world: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        task = simcc_task(build_pose_net("t", input_size=SIZE).double().eval(), SimCC(SIZE), params.tau)
        options = {"global_batch": 8, "weight_decay": 0.0, "optim": params.optim, "ema_momentum": 0.0}
        updater = Updater(task, device=torch.device("cpu"), precision="fp32", **options)  # type: ignore[arg-type]
        scale = world / 8  # what a rank multiplies by before DDP averages over `world` ranks
        for batch in batches:
            images = batch.images.double().permute(0, 3, 1, 2) / 255
            (updater.loss(images, batch.keypoints.double(), batch.weights.double()) * scale / world).backward()
        return [p.grad for p in task.model.parameters() if p.grad is not None]

    skeleton = load_dataset("coco17").skeleton

    def first(rank: int, world: int) -> Batch:
        stream = TrainStream([MixEntry(shards, 1)], skeleton, SIZE, batch_size=8, seed=5, rank=rank, world=world)
        return next(iter(stream.epoch(0, params.weak)))

    batches = [first(0, 1), first(0, 2), first(1, 2)]
    for one, two in zip(gradients(batches[:1], 1), gradients(batches[1:], 2), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_a_mistake_in_the_data_is_the_users_to_read(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(UserError, match="stage shard"):
        TrainStream([MixEntry(tmp_path, 1)], load_dataset("coco17").skeleton, SIZE, batch_size=4, seed=0)
