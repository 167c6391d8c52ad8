"""Remote shards: the same run as from local ones, within a bounded cache, through a store that fails and
recovers.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import pytest
import torch

from rtmpose.config import AugmentConfig
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.cache import RemoteFile, RemoteShard, ShardCache
from rtmpose.data.shards.manifest import MANIFEST
from rtmpose.data.shards.write import write_train_shards
from rtmpose.data.stream.mix import MixEntry
from rtmpose.data.stream.stream import TrainStream
from rtmpose.descriptors import load_dataset
from rtmpose.files import ATTEMPTS, UserError, read_json, write_atomic
from tests.s3 import BUCKET, faulty_proxy, s3_server, use_endpoint

COCO, SIZE = load_dataset("coco17"), (96, 128)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as endpoint:
        yield endpoint


def store(url: str, content: bytes = b"tar" * 40_000) -> RemoteShard:
    """Put a tar and its index at a URL."""
    with fsspec.open(f"{url}.tar", "wb") as file:
        file.write(content)
    with fsspec.open(f"{url}.idx", "wb") as file:
        file.write(b"rows")
    digest = hashlib.sha256(content).hexdigest()
    return RemoteShard(
        RemoteFile(f"{url}.tar", len(content), digest),
        RemoteFile(f"{url}.idx", 4, hashlib.sha256(b"rows").hexdigest()),
    )


def cache(tmp_path: Path, max_bytes: int = 10**9) -> ShardCache:
    return ShardCache(tmp_path / "cache", max_bytes, first_pause=0.01)


def failing(kind: str, times: int) -> Callable[[int], str]:
    return lambda number: kind if number < times else "ok"


def test_a_store_that_fails_twice(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = store(f"s3://{BUCKET}/a")
    for bad in ("500", "cut", "flip"):
        with faulty_proxy(endpoint, failing(bad, 2)) as (proxy, served):
            use_endpoint(proxy, monkeypatch)
            copy = cache(tmp_path / bad).fetch(shard)
        assert copy.read_bytes() == b"tar" * 40_000 and copy.with_suffix(".idx").read_bytes() == b"rows"
        assert served[:3] == [bad, bad, "ok"]


def test_a_store_that_goes_on_failing(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = store(f"s3://{BUCKET}/a")
    for bad, reason in (("500", "out of order"), ("flip", "checksum")):
        with faulty_proxy(endpoint, failing(bad, 10**6)) as (proxy, served):
            use_endpoint(proxy, monkeypatch)
            with pytest.raises(
                UserError, match=f"^s3://{BUCKET}/a.idx: {ATTEMPTS} attempts failed, .*{reason}"
            ) as error:
                cache(tmp_path).fetch(shard)
        assert "\n" not in str(error.value) and len(served) >= ATTEMPTS
        assert not [
            path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"
        ]  # nothing half-copied


def test_another_content_than_was_cut(tmp_path: Path) -> None:
    shard = store(f"file://{tmp_path}/a")
    (tmp_path / "a.tar").write_bytes(b"rat" * 40_000)
    with pytest.raises(UserError, match=r"a\.tar: 5 attempts failed, .*its content is not what was cut"):
        cache(tmp_path).fetch(shard)
    assert not list((tmp_path / "cache").glob("*.tar"))


def test_a_store_that_is_slow(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer later than the client's patience is an attempt that failed, not a run that hangs."""
    shard = store(f"s3://{BUCKET}/a")
    monkeypatch.setitem(
        fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 1}, "default_block_size": 10**6}
    )
    with faulty_proxy(endpoint, lambda number: "slow" if number == 0 else "ok") as (proxy, served):
        use_endpoint(proxy, monkeypatch)
        assert cache(tmp_path).fetch(shard).stat().st_size == 120_000
        assert served[0] == "slow" and "ok" in served


def test_what_is_not_there_is_not_waited_for(endpoint: str, tmp_path: Path) -> None:
    shard = store(f"s3://{BUCKET}/a")
    missing = replace(shard, index=shard.index._replace(url=f"s3://{BUCKET}/b.idx"))
    with pytest.raises(UserError, match=f"s3://{BUCKET}/b.idx: .*check the URL and the store's credentials"):
        ShardCache(tmp_path / "cache", 10**9, first_pause=60).fetch(missing)


def test_the_cache_is_bounded_and_keeps_what_is_used(tmp_path: Path) -> None:
    shards = [store(f"file://{tmp_path}/{name}", name.encode() * 1000) for name in "abcde"]
    small = cache(tmp_path, 3 * 1004)
    copies = {name: small.fetch(shard) for name, shard in zip("abc", shards, strict=False)}
    for i, path in enumerate(copies.values()):
        os.utime(path, (i, i))
    small.fetch(shards[0])  # used now: `b` is the oldest
    small.fetch(shards[3])
    held = {path.read_bytes()[:1].decode() for path in (tmp_path / "cache").glob("*.tar")}
    assert held == {"a", "c", "d"}
    assert len(list((tmp_path / "cache").glob("*.idx"))) == 3


def fetch_in_turn(folder: Path, shards: list[RemoteShard], times: int) -> None:
    small = ShardCache(folder, 3 * 1004)
    for turn in range(times):
        for shard in shards[turn % 2 :]:
            small.fetch(shard)


def test_processes_share_it(tmp_path: Path) -> None:
    shards = [store(f"file://{tmp_path}/{name}", name.encode() * 1000) for name in "abcdef"]
    context = multiprocessing.get_context("forkserver")
    others = [
        context.Process(target=fetch_in_turn, args=(tmp_path / "cache", shards[i:], 30)) for i in range(3)
    ]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    copies = list((tmp_path / "cache").glob("*.tar"))
    assert 1 <= len(copies) <= 3 and all(path.stat().st_size == 1000 for path in copies)
    assert not list((tmp_path / "cache").glob("*.tmp"))


@pytest.fixture
def cut(mannequins: Path, tmp_path: Path) -> Path:
    images = list(read_images(COCO, mannequins / "coco17", "train"))
    write_train_shards(
        images, tmp_path / "local", dataset=COCO, input_size=SIZE, shard_bytes=15_000, workers=1
    )
    return tmp_path / "local"


def moved(local: Path, folder: Path, url: str) -> Path:
    """The same set with its shards at a URL and only the manifest here."""
    manifest = read_json(local / MANIFEST)
    for path in (*local.glob("*.tar"), *local.glob("*.idx")):
        with fsspec.open(f"{url}/{path.name}", "wb") as file:
            file.write(path.read_bytes())

    write_atomic(folder / MANIFEST, json.dumps(manifest | {"url": url}))
    return folder


def stream(folder: Path, cache: ShardCache | None, **options: Any) -> TrainStream:
    return TrainStream(
        [MixEntry(folder, 2)], COCO.skeleton, SIZE, batch_size=5, seed=1, window=1, cache=cache, **options
    )


def assert_same_run(first: TrainStream, second: TrainStream, epoch: int = 0) -> None:
    for one, other in zip(
        first.epoch(epoch, AugmentConfig()), second.epoch(epoch, AugmentConfig()), strict=True
    ):
        assert one.keys == other.keys and all(
            torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True)
        )


def test_training_from_s3_is_training_from_disk(endpoint: str, cut: Path, tmp_path: Path) -> None:
    remote = moved(cut, tmp_path / "remote", f"s3://{BUCKET}/coco")
    sizes = [shard["bytes"] for shard in read_json(cut / MANIFEST)["shards"]]
    assert len(sizes) > 4
    bounded = cache(tmp_path, 3 * max(sizes) + 10_000)  # three windows of one shard
    assert_same_run(stream(cut, None), stream(remote, bounded))
    held = sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert held <= bounded.max_bytes
    with pytest.raises(UserError, match=r"hardware\.cache_gb: .* need a cache of"):
        stream(remote, cache(tmp_path, 3 * max(sizes) - 1))


def test_loader_workers_fetch_too(cut: Path, tmp_path: Path) -> None:
    remote = moved(cut, tmp_path / "remote", f"file://{tmp_path}/store")
    one, other = stream(cut, None), stream(remote, cache(tmp_path), workers=2)
    for epoch in range(2):
        assert_same_run(one, other, epoch)
    shutil.rmtree(tmp_path / "store")  # all of it is cached by now
    assert_same_run(one, other, 2)


def test_a_shard_missing_from_the_store_ends_training_in_one_line(cut: Path, tmp_path: Path) -> None:
    remote = moved(cut, tmp_path / "remote", f"file://{tmp_path}/store")
    lost = next((tmp_path / "store").glob("*-000001.tar"))
    lost.unlink()
    with pytest.raises(UserError, match=rf"^[^\n]*{lost.name}: .*check the URL[^\n]*\Z"):
        list(stream(remote, cache(tmp_path), workers=1).epoch(0, AugmentConfig()))


def test_each_shard_is_copied_once_an_epoch(cut: Path, tmp_path: Path) -> None:
    """A window ahead, into a cache of three windows: what is copied is not evicted before it is read."""
    remote = moved(cut, tmp_path / "remote", f"file://{tmp_path}/store")
    sizes = [
        shard["bytes"] + 100_000 // len(read_json(cut / MANIFEST)["shards"])
        for shard in read_json(cut / MANIFEST)["shards"]
    ]
    bounded, copied = cache(tmp_path, 3 * max(sizes)), []
    original = ShardCache._download

    def counted(self: ShardCache, file: RemoteFile, path: Path) -> None:
        copied.append(file.url)
        original(self, file, path)

    with mock.patch.object(ShardCache, "_download", counted):
        one = TrainStream(
            [MixEntry(remote, 1)], COCO.skeleton, SIZE, batch_size=2, seed=1, window=1, cache=bounded
        )
        for _ in one.epoch(0, AugmentConfig()):
            time.sleep(0.02)  # as long as an update takes: time to copy ahead
    tars = [url for url in copied if url.endswith(".tar")]
    assert len(sizes) <= len(tars) <= len(sizes) + 2


def test_a_damaged_copy_is_fetched_again(cut: Path, tmp_path: Path) -> None:
    remote = moved(cut, tmp_path / "remote", f"file://{tmp_path}/store")
    assert_same_run(stream(cut, None), stream(remote, cache(tmp_path)))
    copies = sorted((tmp_path / "cache").glob("*.tar"))
    content = bytearray(copies[0].read_bytes())
    content[1500] ^= 1
    copies[0].write_bytes(content)
    copies[1].write_bytes(b"")
    assert_same_run(stream(cut, None), stream(remote, cache(tmp_path)))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    shard = store(f"file://{tmp_path}/a")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match=r"cache: .*name another hardware\.cache"):
        cache(tmp_path).fetch(shard)
