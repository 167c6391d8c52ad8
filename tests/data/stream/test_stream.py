"""The stream's batches: what they hold, the same run however it is split or resumed, and damaged shards."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtmpose.config import AugmentConfig
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.manifest import MANIFEST, read_eval
from rtmpose.data.shards.sample import INDEX, span
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.data.stream.batch import Batch
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.pixels import Impossible
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset, load_skeleton
from rtmpose.files import UserError
from tests.data.stream.support import AUGMENT, COCO, SIZE
from tests.support import realdata


@pytest.fixture(scope="module")
def folder(mannequins: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for name in ("coco17", "aic", "coco_wholebody"):
        dataset = load_dataset(name)
        images = list(read_images(dataset, mannequins / name, "train"))
        write_train_shards(
            images, root / name, dataset=dataset, input_size=SIZE, shard_bytes=50_000, workers=1
        )
    return root


def stream(
    folder: Path, *, batch_size: int = 7, seed: int = 5, rank: int = 0, world: int = 1, workers: int = 0
) -> TrainStream:
    entries = [MixEntry(folder / "coco17", 3), MixEntry(folder / "aic", 1)]
    return TrainStream(
        entries, COCO, SIZE, batch_size=batch_size, seed=seed, rank=rank, world=world, workers=workers
    )  # fmt: skip


def same(first: Batch, second: Batch) -> bool:
    return first.keys == second.keys and all(
        torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True)
    )


def test_batches_hold_what_they_say(folder: Path) -> None:
    one = stream(folder)
    assert one.samples_per_epoch == sum(size.shards.sum() * size.repeat for size in one.sets)
    assert one.steps_per_epoch == -(-one.samples_per_epoch // 7)
    batches = list(one.epoch(0, AUGMENT))
    assert len(batches) == one.steps_per_epoch
    keys = [key for batch in batches for key in batch.keys]
    assert set(keys[one.samples_per_epoch :]) <= set(
        keys[: one.samples_per_epoch]
    )  # filled up by beginning again
    counts = {key: keys[: one.samples_per_epoch].count(key) for key in set(keys)}
    assert len(counts) == sum(size.shards.sum() for size in one.sets)
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
            images, keypoints, weights = (
                torch.cat(part) for part in zip(*(part[:3] for part in slices), strict=True)
            )
            assert same(
                batch, Batch(images, keypoints, weights, [key for part in slices for key in part.keys], [])
            )


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
    weak = AugmentConfig(
        shift=0, rotate=60, scale=0.25
    )  # an epoch that was left half-way, then another augmentation
    assert all(map(same, plain.epoch(3, weak, 2), spread.epoch(3, weak, 2)))
    assert torch.equal(state, torch.get_rng_state())  # opening a loader must not move the run's own chance


def test_one_set_serves_several_skeletons(folder: Path) -> None:
    off = AugmentConfig(flip=0, half_body=0, shift_prob=0, scale=0, rotate_prob=0)
    seen = {}
    for name, target in (
        ("coco17", "coco17"),
        ("aic", "coco17"),
        ("aic", "coco_aic19"),
        ("coco_wholebody", "coco17"),
    ):
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
    plain, udp = (
        next(TrainStream(entries, COCO, SIZE, batch_size=8, seed=0, udp=udp).epoch(0, off))
        for udp in (False, True)
    )
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
        return TrainStream(
            [MixEntry(tmp_path / "train", 1)], COCO, SIZE, batch_size=4, seed=0, workers=workers
        )

    with pytest.raises(UserError, match=r"train/manifest\.json is missing"):
        opened()
    shutil.copytree(folder / "coco17", tmp_path / "train")
    with pytest.raises(UserError, match="eval shards are needed"):
        next(read_eval(tmp_path / "train"))
    shard = next((tmp_path / "train").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(UserError, match=f"{shard.name}: missing or not"):
        opened()


@pytest.mark.parametrize("error", [UserError("a.tar: gone"), Impossible("name", "no transform")], ids=repr)
def test_what_a_worker_says_is_raised_as_it_is(folder: Path, error: UserError) -> None:
    one = stream(folder)
    one.loader = [error]  # type: ignore[assignment]
    with pytest.raises(type(error), match=f"^{re.escape(str(error))}$") as found:
        next(one.epoch(0, AUGMENT))
    assert found.value is not error and vars(found.value) == vars(error)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["cut off", "damaged"])
def test_a_shard_damaged_while_training(folder: Path, tmp_path: Path, damage: str, workers: int) -> None:
    """One flipped bit, or a tar that ends too early: an error that names shard and offset, or skipped and
    counted.
    """
    shutil.copytree(folder / "coco17", tmp_path / "train")
    entries, manifest = (
        [MixEntry(tmp_path / "train", 1)],
        json.loads((tmp_path / "train" / MANIFEST).read_text()),
    )
    options: dict[str, Any] = {"batch_size": 4, "seed": 0, "workers": workers}
    stop, skip = (
        TrainStream(entries, COCO, SIZE, **options),
        TrainStream(entries, COCO, SIZE, on_corrupt="skip", **options),
    )
    whole = list(skip.epoch(0, AUGMENT))
    assert not any(batch.damaged for batch in whole)
    shard = tmp_path / "train" / manifest["shards"][1]["name"]
    rows, content = np.fromfile(shard.with_suffix(".idx"), INDEX), bytearray(shard.read_bytes())
    first, end = span(rows[-1])
    if damage == "damaged":
        content[(first + end) // 2] ^= 4
    shard.write_bytes(content if damage == "damaged" else content[: (first + end) // 2])
    with pytest.raises(UserError, match=rf"^[^\n]*{shard.name} at byte {first}: sample {damage}[^\n]*\Z"):
        list(stop.epoch(0, AUGMENT))
    batches = list(skip.epoch(0, AUGMENT))
    notes = {text for batch in batches for text in batch.damaged}
    assert len(notes) == 1 and f"{shard.name} at byte {first}" in notes.pop()
    assert len(batches) == len(whole)  # equal steps on every rank
    lost = 0
    for batch, before in zip(batches, whole, strict=True):
        for i, key in enumerate(batch.keys):
            if key:
                assert key == before.keys[i] and torch.equal(batch.images[i], before.images[i])
            else:
                lost += 1
                assert batch.images[i].max() == 0 and batch.weights[i].max() == 0
    assert lost == sum(len(batch.damaged) for batch in batches) >= 1


def test_a_tar_without_its_index_gets_one(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "coco17", tmp_path / "train")
    indices = {path: path.read_bytes() for path in (tmp_path / "train").glob("*.idx")}
    for path in indices:
        path.unlink()
    TrainStream([MixEntry(tmp_path / "train", 1)], COCO, SIZE, batch_size=4, seed=0)
    assert len(indices) > 1 and all(path.read_bytes() == content for path, content in indices.items())
    index = next(iter(indices))
    index.unlink()
    shard = bytearray(index.with_suffix(".tar").read_bytes())
    shard[700] ^= 1
    index.with_suffix(".tar").write_bytes(shard)
    with pytest.raises(UserError, match="not the shard that was cut"):
        TrainStream([MixEntry(tmp_path / "train", 1)], COCO, SIZE, batch_size=4, seed=0)


def test_a_set_without_a_point_of_the_target_is_refused(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"coco17: no point of coco17 is one of cephalometric38; give it maps\."
    ):
        TrainStream(
            [MixEntry(folder / "coco17", 1)], load_skeleton("cephalometric38"), SIZE, batch_size=4, seed=0
        )


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
