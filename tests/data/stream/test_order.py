"""The order of an epoch: every sample as often as asked, however the run is split or resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rtmpose.data.shards.cache import RemoteShard, ShardCache
from rtmpose.data.shards.crops import CutFor
from rtmpose.data.shards.manifest import FORMAT, MANIFEST
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.order import EpochOrder, Rows, SetSize
from rtmpose.data.stream.prefetch import Prefetch
from rtmpose.data.stream.stream import TrainStream
from tests.data.stream.support import AUGMENT, COCO, SIZE


@contextmanager
def no_fetching() -> Iterator[None]:
    with mock.patch.object(ShardCache, "fetch"):
        yield


@st.composite
def mixes(draw: st.DrawFn) -> list[tuple[list[int], int]]:
    """(samples in each shard, repeat) of some sets, at least one sample in all."""
    shards = st.lists(st.integers(0, 30), min_size=1, max_size=9)
    sets = draw(st.lists(st.tuples(shards, st.integers(1, 4)), min_size=1, max_size=3))
    assume(any(sum(sizes) for sizes, _ in sets))
    return sets


def planned(folder: Path, sets: list[tuple[list[int], int]], **options: Any) -> TrainStream:
    """A stream over sets that exist on paper only: all that planning needs is their manifests."""
    entries = []
    for which, (sizes, repeat) in enumerate(sets):
        name = {"bytes": 10, "sha256": "0", "idx_sha256": "0"}
        shards = [{"name": f"{which}-{i}.tar", "samples": size} | name for i, size in enumerate(sizes)]
        manifest = {
            "format": FORMAT,
            "kind": "train",
            "url": "memory://nowhere",
            "skeleton": COCO.to_dict(),
            "shards": shards,
        }
        manifest["cut_for"] = CutFor(SIZE).to_dict()
        (folder / str(which)).mkdir(exist_ok=True)
        (folder / str(which) / MANIFEST).write_text(json.dumps(manifest))
        entries.append(MixEntry(folder / str(which), repeat))
    return TrainStream(entries, COCO, SIZE, cache=ShardCache(folder / "cache", 10**6), **options)


@settings(max_examples=40, deadline=None)
@given(
    sets=mixes(),
    batch_size=st.integers(1, 40),
    world=st.integers(1, 8),
    window=st.integers(1, 10),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 1000),
    data=st.data(),
)
def test_every_sample_exactly_as_often_as_it_is_repeated(
    tmp_path_factory: pytest.TempPathFactory,
    sets: list[tuple[list[int], int]],
    batch_size: int,
    world: int,
    window: int,
    seed: int,
    epoch: int,
    data: st.DataObject,
) -> None:
    """For any shards, ranks, batch and window; and a run that begins at any step is the rest of the whole
    one.
    """
    folder = tmp_path_factory.mktemp("paper")
    options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "window": window}
    with no_fetching():
        ranks = [planned(folder, sets, rank=rank, world=world, **options) for rank in range(world)]
        plans = [list(one.requests(epoch, AUGMENT)) for one in ranks]
    steps, total = ranks[0].steps_per_epoch, sum(sum(sizes) * repeat for sizes, repeat in sets)
    assert all(len(plan) == steps for plan in plans) and steps == -(-total // batch_size)
    shown, positions = [], []
    for step in range(steps):
        for plan in plans:
            request = plan[step]
            assert len(request.positions) == len(request.rows) == len(request.shards) == len(request.sets)
            shown += [(url(shard), int(row)) for shard, row in zip(request.shards, request.rows, strict=True)]
            positions += request.positions.tolist()
    assert positions == list(range(steps * batch_size))
    counts = Counter(shown[:total])
    for which, (sizes, repeat) in enumerate(sets):
        for i, size in enumerate(sizes):
            assert all(
                counts.pop((f"memory://nowhere/{which}-{i}.tar", row)) == repeat for row in range(size)
            )
    assert not counts
    assert set(shown[total:]) <= set(shown[:total])  # filled up by beginning again
    start, rank = data.draw(st.integers(0, steps)), data.draw(st.integers(0, world - 1))
    with no_fetching():
        rest = list(planned(folder, sets, rank=rank, world=world, **options).requests(epoch, AUGMENT, start))
    assert len(rest) == steps - start
    for resumed, whole in zip(rest, plans[rank][start:], strict=True):
        assert resumed.shards == whole.shards
        for name in ("positions", "sets", "rows"):
            assert (getattr(resumed, name) == getattr(whole, name)).all()


def url(shard: Path | RemoteShard) -> str:
    assert isinstance(shard, RemoteShard)
    return shard.tar.url


def sizes(*counts: int) -> NDArray[np.int64]:
    return np.array(counts, np.int64)


def order_of(sets: list[SetSize], seed: int = 3, epoch: int = 0, window: int = 4) -> Rows:
    order = EpochOrder(sets, seed, epoch, window)
    return order.rows(0, sum(order.shown))


def test_orders_differ_by_seed_epoch_and_turn() -> None:
    one = [SetSize(sizes(100, 300, 100), 2)]
    orders = [order_of(one, seed, epoch).tolist() for seed, epoch in ((1, 1), (1, 2), (2, 1), (0, 0))]
    assert len({str(order) for order in orders}) == 4
    assert orders[0][:500] != orders[0][500:]
    assert orders[0] == order_of(one, 1, 1).tolist()


def test_any_stretch_holds_the_mix() -> None:
    """COCO x3 beside AIC x1: each thousand samples holds the ratio within 1 %, each third every COCO sample
    once.
    """
    rng = np.random.default_rng(0)
    coco, aic = SetSize(rng.integers(1500, 2500, 75), 3), SetSize(rng.integers(1500, 2500, 190), 1)
    order = order_of([coco, aic], window=16)
    of_coco = order["set"] == 0
    assert of_coco.mean() == pytest.approx(0.54, abs=0.01)
    counts = np.concatenate([[0], np.cumsum(of_coco)])
    assert np.abs((counts[1000:] - counts[:-1000]) / 1000 - of_coco.mean()).max() < 0.01
    showings = order[of_coco]
    once = len(showings) // 3
    for turn in range(3):
        assert len(np.unique(showings[turn * once : (turn + 1) * once])) == once


def test_reads_stay_within_windows_of_shards() -> None:
    order = order_of([SetSize(sizes(*[50] * 40), 2)], window=4)
    for turn in range(2):
        shards = order["shard"][turn * 2000 : (turn + 1) * 2000].reshape(10, 200)
        assert all(len(np.unique(window)) == 4 for window in shards)
        assert len(np.unique(shards)) == 40
        assert all(len(np.unique(window[:40])) == 4 for window in shards)  # and are mixed inside one


def test_each_rank_reads_its_part_of_a_window(tmp_path: Path) -> None:
    """Eight ranks over windows of 64 shards: none needs all of them, and none more than it copied ahead."""
    fetched: list[list[str]] = [[] for _ in range(8)]
    read: list[set[str]] = [set() for _ in range(8)]
    for rank in range(8):
        one = planned(tmp_path, [([200] * 64, 1)], batch_size=1024, seed=1, window=64, rank=rank, world=8)
        with mock.patch.object(
            Prefetch, "fetch", lambda _, shards, rank=rank: fetched[rank].extend(s.tar.url for s in shards)
        ):
            for request in list(one.requests(0, AUGMENT))[
                :-1
            ]:  # the last batch is half padding, and divided otherwise
                read[rank].update(map(url, request.shards))
    assert len(set.union(*read)) == 64
    for rank in range(8):
        assert 8 <= len(read[rank]) <= 8 + 2 * 3 + 1
        assert len(read[rank] - set(fetched[rank])) <= 1 and len(fetched[rank]) <= 16


def test_the_middle_of_ten_billion_samples_is_near() -> None:
    """A position is found without the positions before it: this would need 80 GB and minutes otherwise."""
    order = EpochOrder([SetSize(np.full(1_000_000, 10_000), 1)], 0, 0, 16)
    rows = order.rows(7_000_000_000, 7_000_000_064)
    assert len(np.unique(rows)) == 64 and len(np.unique(rows["shard"])) <= 16


def test_a_set_of_one_shard_is_spread_over_the_ranks(tmp_path: Path) -> None:
    counts = []
    for rank in range(4):
        one = planned(tmp_path, [([400], 1), ([200] * 8, 1)], batch_size=80, seed=1, rank=rank, world=4)
        with no_fetching():
            counts.append(sum(int((request.sets == 0).sum()) for request in one.requests(0, AUGMENT)))
    assert min(counts) > 70
