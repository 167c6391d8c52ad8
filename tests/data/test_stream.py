"""The stream: every sample as often as asked, the same run however it is split, stopped or resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.config import AugmentConfig, UserError
from rtmpose.data.annotations import read_images
from rtmpose.data.shards import write_eval_shards, write_train_shards
from rtmpose.data.stream import Batch, MixEntry, TrainStream, epoch_order, read_eval
from rtmpose.descriptors import load_dataset, load_skeleton
from tests.support import realdata

COCO, AUGMENT = load_skeleton("coco17"), AugmentConfig()
SIZE = (96, 128)


@pytest.fixture(scope="module")
def folder(mannequins: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for name in ("coco17", "aic", "coco_wholebody"):
        dataset = load_dataset(name)
        images = list(read_images(dataset, mannequins / name, "train"))
        write_train_shards(images, root / name, dataset=dataset, input_size=SIZE, shard_bytes=50_000, workers=1)
    return root


def stream(folder: Path, *, batch_size: int = 7, seed: int = 5, rank: int = 0, world: int = 1, workers: int = 0) -> TrainStream:
    entries = [MixEntry(folder / "coco17", 3), MixEntry(folder / "aic", 1)]
    return TrainStream(
        entries, COCO, SIZE, batch_size=batch_size, seed=seed, rank=rank, world=world, workers=workers
    )  # fmt: skip


def same(first: Batch, second: Batch) -> bool:
    return first.keys == second.keys and all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), min_size=1, max_size=4).filter(
        lambda sets: any(count * repeat for count, repeat in sets)
    ),
    st.integers(0, 1000),
    st.integers(0, 1000),
)
def test_every_sample_exactly_as_often_as_it_is_repeated(sets: list[tuple[int, int]], seed: int, epoch: int) -> None:
    order = epoch_order(sets, seed, epoch)
    expected = np.concatenate([np.full(count, repeat) for count, repeat in sets])
    assert (np.bincount(order, minlength=len(expected)) == expected).all()
    assert (order == epoch_order(sets, seed, epoch)).all()


def test_orders_differ_by_seed_and_epoch() -> None:
    orders = [epoch_order([(500, 2)], seed, epoch).tolist() for seed, epoch in ((1, 1), (1, 2), (2, 1), (0, 0))]
    assert len({tuple(order) for order in orders}) == 4


def test_any_stretch_holds_the_mix() -> None:
    """COCO x3 beside AIC x1: each thousand samples holds the ratio within 1 %, each third every COCO sample once."""
    sets = [(15_000, 3), (38_000, 1)]
    order = epoch_order(sets, 3, 0)
    share = 45_000 / 83_000
    for start in range(0, len(order) - 1000, 487):
        assert abs((order[start : start + 1000] < 15_000).mean() - share) < 0.01
    where = np.argsort(np.where(order < 15_000, order, 10**6), kind="stable")[:45_000].reshape(15_000, 3)
    assert ((where * 3 // len(order)) == [0, 1, 2]).mean() > 0.999


def test_batches_hold_what_they_say(folder: Path) -> None:
    one = stream(folder)
    assert one.samples_per_epoch == sum(count * repeat for count, repeat in one.sets)
    assert one.steps_per_epoch == -(-one.samples_per_epoch // 7)
    batches = list(one.epoch(0, AUGMENT))
    assert len(batches) == one.steps_per_epoch
    keys = [key for batch in batches for key in batch.keys]
    assert keys[one.samples_per_epoch :] == keys[: len(keys) - one.samples_per_epoch]  # filled up from the beginning
    counts = {key: keys[: one.samples_per_epoch].count(key) for key in set(keys)}
    assert len(counts) == sum(count for count, _ in one.sets)
    assert all(count == (3 if key.startswith("coco17/") else 1) for key, count in counts.items())
    batch = batches[0]
    assert batch.images.shape == (7, 128, 96, 3) and batch.images.dtype == torch.uint8
    assert batch.keypoints.shape == (7, 17, 2) and batch.keypoints.dtype == torch.float32
    assert batch.weights.shape == (7, 17) and batch.weights.dtype == torch.float32
    assert set(torch.cat([batch.weights.flatten() for batch in batches]).tolist()) == {0.0, 1.0}


def test_ranks_together_are_the_one_rank(folder: Path) -> None:
    whole = list(stream(folder).epoch(2, AUGMENT))
    for world in (2, 3):
        parts = [list(stream(folder, rank=rank, world=world).epoch(2, AUGMENT)) for rank in range(world)]
        for batch, *slices in zip(whole, *parts, strict=True):
            images, keypoints, weights = (torch.cat(part) for part in zip(*(part[:3] for part in slices), strict=True))
            assert same(batch, Batch(images, keypoints, weights, [key for part in slices for key in part.keys]))


def test_resuming_at_any_step_is_the_same_run(folder: Path) -> None:
    whole = list(stream(folder).epoch(1, AUGMENT))
    for start in (1, len(whole) // 2, len(whole) - 1):
        rest = list(stream(folder).epoch(1, AUGMENT, start))
        assert len(rest) == len(whole) - start and all(map(same, whole[start:], rest))
    assert list(stream(folder).epoch(1, AUGMENT, len(whole))) == []


def test_chance_differs_by_epoch_seed_and_position(folder: Path) -> None:
    def shown(seed: int, epoch: int) -> dict[str, list[torch.Tensor]]:
        found: dict[str, list[torch.Tensor]] = {}
        for batch in stream(folder, seed=seed).epoch(epoch, AUGMENT):
            for key, image in zip(batch.keys, batch.images, strict=True):
                found.setdefault(key, []).append(image)
        return found

    first, other, third = shown(5, 0), shown(5, 1), shown(6, 0)
    key = next(key for key in first if key.startswith("coco17/"))
    images = [*first[key][:3], *other[key][:3], *third[key][:3]]
    assert len(images) == 9
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_workers_change_nothing_and_live_on(folder: Path) -> None:
    # torch and OpenCV have run threads in this process by now: plainly forked workers could hang here.
    torch.set_num_threads(2)
    torch.randn(400, 400) @ torch.randn(400, 400)
    state = torch.get_rng_state()
    plain, spread = stream(folder), stream(folder, workers=2)
    for epoch in range(2):
        first, second = list(plain.epoch(epoch, AUGMENT)), list(spread.epoch(epoch, AUGMENT))
        assert len(first) == len(second) and all(map(same, first, second))
    begun = spread.epoch(2, AUGMENT)
    assert same(next(begun), next(plain.epoch(2, AUGMENT)))
    weak = AugmentConfig(shift=0, rotate=60, scale=0.25)  # an epoch that was left half-way, then another augmentation
    assert all(map(same, plain.epoch(3, weak, 2), spread.epoch(3, weak, 2)))
    assert torch.equal(state, torch.get_rng_state())  # opening a loader must not move the run's own chance


def test_one_set_serves_several_skeletons(folder: Path) -> None:
    off = AugmentConfig(flip=0, half_body=0, shift_prob=0, scale=0, rotate_prob=0)
    seen = {}
    for name, target in (("coco17", "coco17"), ("aic", "coco17"), ("aic", "coco_aic19"), ("coco_wholebody", "coco17")):
        skeleton = load_skeleton(target)
        one = TrainStream([MixEntry(folder / name, 1)], skeleton, SIZE, batch_size=64, seed=0)
        seen[name, target] = batch = next(one.epoch(0, off))
        assert batch.keypoints.shape[1] == skeleton.num_keypoints
    short, long = seen["aic", "coco17"], seen["aic", "coco_aic19"]
    assert short.weights[:, :5].max() == 0 and short.weights[:, 5:].max() == 1
    assert torch.equal(short.keypoints[:, 5:17], long.keypoints[:, 5:17])
    assert long.weights[:, 17:].mean() > 0.5  # head top and neck
    labelled = long.weights[:, [5, 6, 18]].min(dim=1).values > 0
    neck, shoulders = long.keypoints[labelled, 18], long.keypoints[labelled, 5:7].mean(dim=1)
    assert labelled.sum() > 4 and (neck - shoulders).norm(dim=1).median() < 12


def test_udp_and_plain_crops_differ_by_the_half_pixel(folder: Path) -> None:
    off = AugmentConfig(flip=0, half_body=0, shift_prob=0, scale=0, rotate_prob=0)
    entries = [MixEntry(folder / "coco17", 1)]
    plain, udp = (next(TrainStream(entries, COCO, SIZE, batch_size=8, seed=0, udp=udp).epoch(0, off)) for udp in (False, True))
    scale = torch.tensor([95 / 96, 127 / 128])
    torch.testing.assert_close(plain.keypoints * scale, udp.keypoints, atol=1e-3, rtol=0)


def test_stronger_augmentation_and_larger_inputs_are_refused(folder: Path) -> None:
    one = stream(folder)
    for key, value in (("shift", 0.2), ("scale", 0.5), ("rotate", 90.0)):
        with pytest.raises(UserError, match=f"manifest.json: cut for augmentation with {key}"):
            one.epoch(0, AugmentConfig.model_validate({key: value}))
    for size in ((192, 256), (96, 96)):
        with pytest.raises(UserError, match=f"input_size is {size[0]}x{size[1]}"):
            TrainStream([MixEntry(folder / "coco17", 1)], COCO, size, batch_size=4, seed=0)
    TrainStream([MixEntry(folder / "coco17", 1)], COCO, (48, 64), batch_size=4, seed=0)


def test_missing_and_damaged_shards_are_named(folder: Path, tmp_path: Path) -> None:
    def opened(workers: int = 0) -> TrainStream:
        return TrainStream([MixEntry(tmp_path / "train", 1)], COCO, SIZE, batch_size=4, seed=0, workers=workers)

    with pytest.raises(UserError, match=r"train/manifest\.json is missing"):
        opened()
    shutil.copytree(folder / "coco17", tmp_path / "train")
    with pytest.raises(UserError, match="eval shards are needed"):
        next(read_eval(tmp_path / "train"))
    shard = next((tmp_path / "train").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=shard.name):
        opened()
    content[512:1024] = bytes(512)  # the beginning of the first image
    shard.write_bytes(content)
    for workers in (0, 1):
        with pytest.raises(UserError, match=f"{shard.name} at byte 512: damaged image") as error:
            list(opened(workers).epoch(0, AUGMENT))
        assert "\n" not in str(error.value)


def test_an_empty_mix_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="no training samples"):
        TrainStream([MixEntry(folder / "coco17", 0)], COCO, SIZE, batch_size=4, seed=0)


def test_evaluation_images_come_whole(tmp_path: Path) -> None:
    dataset = load_dataset("coco_wholebody")
    images = list(read_images(dataset, realdata("coco_wholebody"), "val"))
    write_eval_shards(images, tmp_path / "val", dataset=dataset, workers=1)
    shown = next(iter(read_eval(tmp_path / "val", [785])))
    assert shown.image.shape == (425, 640, 3) and shown.annotations[0]["face_valid"] is True
    assert json.dumps(shown.annotations) == json.dumps(images[0].annotations)
