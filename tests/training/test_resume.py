"""A run cut off at any report and resumed ends bit for bit where the undisturbed one does, one that gets
nowhere stops; ranks split a batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rtmpose.config import AugmentConfig, FinetuneParams, ModelParams, Precision
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.write import write_train_shards
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.files import UserError
from rtmpose.targets import SimCC
from rtmpose.training.checkpoint import Store, Superseded, read_log
from rtmpose.training.loop import Run
from rtmpose.training.update import simcc_task
from tests.models.support import light_net
from tests.support import ROOT
from tests.training.ranks import on_ranks

SIZE = (64, 64)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    dataset = load_dataset("coco17")
    render_dataset(
        folder / "raw", "coco17", level="easy", images={"train": 10}, size=(160, 120), seed=2, workers=1
    )
    images = list(read_images(dataset, folder / "raw", "train"))
    write_train_shards(images, folder / "shards", dataset=dataset, input_size=SIZE, workers=1)
    return folder / "shards"


@pytest.fixture(scope="module")
def params() -> FinetuneParams:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())["finetune"]
    changes = {
        "epochs": 3,
        "weak_epochs": 1,
        "batch_size": 4,
        "evaluate_every": 1,
        "checkpoint_steps": 2,
        "log_steps": 1,
    }
    return FinetuneParams.model_validate(content | changes)


class Killed(Exception):
    """Stands for the moment a process is killed: nothing after it runs."""


def sum_of_weights(model: torch.nn.Module) -> dict[str, float]:
    """Any number that depends on the weights alone will do for AP."""
    return {"AP": float(next(model.parameters()).detach().double().abs().sum())}


class BadStream(TrainStream):
    """Labels that are not finite in the updates `bad` of the run, counted from 0."""

    bad: frozenset[int] = frozenset()

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        for step, batch in enumerate(
            super().epoch(epoch, augment, start_step), epoch * self.steps_per_epoch + start_step
        ):
            if step in self.bad:
                batch.weights[0] = math.nan
            yield batch


def run(
    store: Store,
    shards: Path,
    params: FinetuneParams,
    kill_at: int | None = None,
    bad: frozenset[int] = frozenset(),
    evaluate: Callable[[torch.nn.Module], dict[str, float]] = sum_of_weights,
    rank: int = 0,
    world: int = 1,
    precision: Precision = "fp32",
) -> Run:
    torch.manual_seed(0)
    task = simcc_task(light_net(17, SIZE), SimCC(SIZE), params.tau)
    skeleton = load_dataset("coco17").skeleton
    stream = BadStream([MixEntry(shards, 1)], skeleton, SIZE, batch_size=4, seed=5, rank=rank, world=world)
    stream.bad = bad
    seen: list[float] = []

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
        precision=precision,
        rank=rank,
        world=world,
    )


def state_of(store: Store) -> dict[str, Any]:
    state = store.load()
    assert state is not None
    return state


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, shards: Path
) -> Callable[[FinetuneParams, frozenset[int]], Store]:
    """The store of an undisturbed run; one for all that ask for the same."""
    stores: dict[tuple[int, frozenset[int]], Store] = {}

    def store_of(params: FinetuneParams, bad: frozenset[int]) -> Store:
        key = (params.log_steps, bad)
        if key not in stores:
            stores[key] = Store.open(tmp_path_factory.mktemp("undisturbed"), "whole", fresh=False)
            run(stores[key], shards, params, bad=bad).train()
        return stores[key]

    return store_of


@pytest.mark.parametrize(
    ("kill_at", "bad", "log_steps"),
    [(1, (), 1), (4, (), 1), (7, (), 1), (9, (), 1), (6, (0, 1, 4), 1), (3, (1,), 3)],
)
def test_killed_anywhere_it_ends_bit_for_bit_the_same(
    tmp_path: Path,
    shards: Path,
    params: FinetuneParams,
    undisturbed: Callable[[FinetuneParams, frozenset[int]], Store],
    kill_at: int,
    bad: tuple[int, ...],
    log_steps: int,
) -> None:
    params = params.model_copy(update={"log_steps": log_steps})
    whole = undisturbed(params, frozenset(bad))
    cut = Store.open(tmp_path, "cut", fresh=False)
    with pytest.raises(Killed):
        run(cut, shards, params, kill_at, bad=frozenset(bad)).train()
    resumed = run(Store.open(tmp_path, "cut", fresh=False), shards, params, bad=frozenset(bad))
    resumed.train()
    ours, theirs = state_of(whole), state_of(resumed.store)
    assert ours["position"] == theirs["position"]
    assert ours["guard"].tolist() == theirs["guard"].tolist() == [len(bad), 0, {0: 0, 1: 1, 3: 2}[len(bad)]]
    for part in ("model", "ema"):
        assert all(torch.equal(value, theirs[part][key]) for key, value in ours[part].items()), part
    for index, moments in ours["optimizer"]["state"].items():
        assert all(
            torch.equal(value, theirs["optimizer"]["state"][index][name]) for name, value in moments.items()
        )
    best, other = (torch.load(s.folder / "best.pt", weights_only=True) for s in (whole, resumed.store))
    assert all(torch.equal(value, other[key]) for key, value in best.items())
    losses = [
        [(line["step"], str(line.get("loss")), line.get("AP")) for line in read_log(s.folder)]
        for s in (whole, resumed.store)
    ]
    assert losses[0] == losses[1]


def test_skipped_updates_are_reported_and_too_many_in_a_row_end_the_run(
    tmp_path: Path, shards: Path, params: FinetuneParams
) -> None:
    params = params.model_copy(update={"max_bad_updates": 3, "log_steps": 2, "checkpoint_steps": None})
    whole = Store.open(tmp_path, "whole", fresh=False)
    steps = run(whole, shards, params, bad=frozenset({1, 2})).train().step
    assert steps >= 9
    reports = [line for line in read_log(whole.folder) if "loss" in line]
    assert [line["skipped_updates"] for line in reports][:2] == [1, 2] and reports[-1]["skipped_updates"] == 2
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in reports)

    stopped = Store.open(tmp_path, "stopped", fresh=False)
    with pytest.raises(UserError, match=r"stopped/bad_batches\.rank0\.json: .* in 3 updates in a row"):
        run(stopped, shards, params, bad=frozenset({4, 5, 6})).train()
    lines = json.loads((stopped.folder / "bad_batches.rank0.json").read_text())
    assert [line["step"] for line in lines if line["skipped"]] == [5, 6, 7]
    expected = run(Store.open(tmp_path, "other", fresh=False), shards, params).stream.epoch(0, params.strong)
    assert lines[0] == {"step": 1, "skipped": False, "keys": next(expected).keys}
    position = stopped.load()
    assert position is None or position["position"]["step"] < 7  # nothing was saved of what went wrong


def test_without_a_better_ap_it_ends_after_its_patience(
    tmp_path: Path, shards: Path, params: FinetuneParams
) -> None:
    params = params.model_copy(update={"epochs": 6, "patience": 2})
    ap = iter([0.1, 0.3, 0.2, 0.3, 0.9, 0.9])
    store = Store.open(tmp_path, "run", fresh=False)
    first = run(store, shards, params, evaluate=lambda model: {"AP": next(ap)})
    position = first.train()
    assert position.stopped and (position.best_epoch, position.best_ap) == (2, 0.3)
    assert position.step == 4 * first.stream.steps_per_epoch
    again = run(store, shards, params, evaluate=lambda model: {"AP": 1.0}).train()
    assert again == position
    falling = iter([{"AP": 0.0, "error": error} for error in (0.9, 0.8, 0.7, 0.7, 0.8, 0.6)])
    by_error = run(
        Store.open(tmp_path, "error", fresh=False), shards, params, evaluate=lambda model: next(falling)
    ).train()
    assert (by_error.best_epoch, by_error.best_error, by_error.stopped) == (3, 0.7, True)


def run_of_a_rank(
    shards: Path, folder: Path, params: FinetuneParams, rank: int, world: int
) -> dict[str, Any]:
    """A run that stops for want of a better AP, then one that stops since the last rank's labels are bad."""
    first = run(
        Store(folder / "patient", "x"),
        shards,
        params,
        evaluate=lambda model: {"AP": 0.5},
        rank=rank,
        world=world,
    )
    position = first.train()
    bad = frozenset({1, 2, 3}) if rank == world - 1 else frozenset()
    try:
        run(Store(folder / "bad", "x"), shards, params, bad=bad, rank=rank, world=world).train()
    except UserError as error:
        return vars(position) | {"error": str(error), "model": first.updater.task.model.state_dict()}
    raise AssertionError("the run went on")


def test_two_workers_stop_together(tmp_path: Path, shards: Path, params: FinetuneParams) -> None:
    for name in ("patient", "bad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text("x")
    params = params.model_copy(
        update={"patience": 1, "max_bad_updates": 3, "log_steps": 3, "checkpoint_steps": None}
    )
    ranks = on_ranks(2, tmp_path / "ranks", partial(run_of_a_rank, shards, tmp_path, params))
    assert all(found["stopped"] and found["step"] == ranks[0]["step"] for found in ranks)
    assert ranks[0]["step"] == state_of(Store(tmp_path / "patient", "x"))["step"]
    for key, value in ranks[0]["model"].items():
        assert torch.equal(value, ranks[1]["model"][key]), key
    for rank, found in enumerate(ranks):
        assert f"bad_batches.rank{rank}.json" in found["error"]
        lines = json.loads((tmp_path / "bad" / f"bad_batches.rank{rank}.json").read_text())
        assert [line["step"] for line in lines if line["skipped"]] == [2, 3, 4] and len(lines[0]["keys"]) == 2


def test_more_parts_than_samples_are_one_line(tmp_path: Path, shards: Path, params: FinetuneParams) -> None:
    with pytest.raises(UserError, match=r"batch_size 4 is too small for hardware\.workers 1 x accumulate 5"):
        run(Store.open(tmp_path, "run", fresh=False), shards, params.model_copy(update={"accumulate": 5}))


def test_a_run_that_was_superseded_stops_at_its_next_write(tmp_path: Path) -> None:
    old = Store.open(tmp_path, "run", fresh=False)
    old.save({"step": 1})
    new = Store.open(tmp_path, "run", fresh=True)
    for write in (
        lambda: old.save({"step": 2}),
        lambda: old.append_log({"step": 2}),
        lambda: old.save_best({}),
    ):
        with pytest.raises(Superseded):
            write()
    assert new.load() is None


def test_a_run_goes_on_in_the_precision_that_it_began_in(
    tmp_path: Path, shards: Path, params: FinetuneParams
) -> None:
    """As where a worker is started again on a machine of another kind."""
    store = Store.open(tmp_path, "run", fresh=False)
    with pytest.raises(Killed):
        run(store, shards, params, kill_at=4).train()
    before = state_of(store)
    said = (
        r"run: this run has computed in fp32 so far and cannot go on in bf16; set hardware\.precision: fp32"
    )
    with pytest.raises(UserError, match=said):
        run(store, shards, params, precision="bf16")
    assert state_of(store)["step"] == before["step"] and before["precision"] == "fp32"


def test_a_mistake_in_the_data_is_the_users_to_read(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(UserError, match="stage shard"):
        TrainStream([MixEntry(tmp_path, 1)], load_dataset("coco17").skeleton, SIZE, batch_size=4, seed=0)


def test_augmentation_that_the_shards_do_not_allow_is_refused_before_the_first_update(
    tmp_path: Path, shards: Path, params: FinetuneParams
) -> None:
    wild = params.model_copy(update={"weak": params.weak.model_copy(update={"scale": 0.9})})
    with pytest.raises(UserError, match="scale"):
        run(Store.open(tmp_path, "run", fresh=False), shards, wild)


def test_best_weights_of_another_time_are_not_taken_for_those_of_the_checkpoint(
    tmp_path: Path, shards: Path, params: FinetuneParams
) -> None:
    """As after a fall back behind an evaluation: the file holds what the checkpoint does not know of."""
    ap = iter([0.5, 0.4, 0.3])
    store = Store.open(tmp_path, "run", fresh=False)
    first = run(store, shards, params, evaluate=lambda model: {"AP": next(ap)})
    assert (first.train().best_epoch, first.position.best_ap) == (1, 0.5)
    store.save_best({"w": torch.zeros(1)})
    again = run(
        Store.open(tmp_path, "run", fresh=False),
        shards,
        params.model_copy(update={"epochs": 4}),
        evaluate=lambda _: {"AP": 0.2},
    )
    assert again.train().best_epoch == 4 and store.best_is(again.position.best_sha256)
