"""Sharding over a cluster and resumed after a kill: the same bytes as one undisturbed process writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from rtmpose.cluster import session as cluster
from rtmpose.cluster.session import map_on_cluster
from rtmpose.data.raw.annotations import RawImage
from rtmpose.data.shards.complete_folders import resumable_folder
from rtmpose.data.shards.write import write_eval_shards
from rtmpose.descriptors import Dataset, load_dataset
from rtmpose.files import UserError
from tests.data.shards.resuming import COCO, Killed, alter, cut, kept, resumed, truncate
from tests.data.shards.test_write import contents, half
from tests.support import ROOT


def test_a_killed_run_goes_on(
    killed: Path, images: list[RawImage], undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    (killed / "halfway/shards/train/.train-000003.tar.1234.tmp").write_bytes(b"half")
    resumed(images, killed)
    assert kept(capsys.readouterr().out) == 3
    assert contents(killed / "out/train") == undisturbed
    assert sorted(path.name for path in killed.iterdir()) == ["halfway", "out"]
    assert sorted(path.name for path in (killed / "halfway").iterdir()) == ["lock", "receipts"]


def another_sigma(folder: Path) -> Dataset:
    """COCO's descriptor with another OKS sigma and one limb less, as a user edits it."""
    values = yaml.safe_load((ROOT / "datasets/coco17.yaml").read_text())
    values["skeleton"]["sigmas"][0] *= 2
    values["skeleton"]["limbs"].pop()
    path = folder / "edited.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    found = load_dataset(str(path))
    assert found.skeleton.sigmas[0] == 2 * COCO.skeleton.sigmas[0] and found.name == COCO.name
    return found


def test_a_finished_set_is_found_again(
    images: list[RawImage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run once more, and with another OKS sigma, on which no crop depends: every shard stays the very file it
    was, and the manifest says the same. Another point order is another set.
    """
    resumed(images, tmp_path)
    before = contents(tmp_path / "out/train")
    files = {path.name: path.stat() for path in (tmp_path / "out/train").glob("*.tar")}
    for dataset in (COCO, another_sigma(tmp_path)):
        capsys.readouterr()
        resumed(images, tmp_path, dataset=dataset)
        assert kept(capsys.readouterr().out) == len(files) > 3
        assert contents(tmp_path / "out/train") == before
        for path in (tmp_path / "out/train").glob("*.tar"):
            same = files[path.name]
            assert (path.stat().st_ino, path.stat().st_mtime_ns) == (same.st_ino, same.st_mtime_ns)
    alter(tmp_path / "out/train/train-000002.tar")
    (tmp_path / "out/train/train-000001.idx").unlink()
    resumed(images, tmp_path)
    assert kept(capsys.readouterr().out) == len(files) - 2 and contents(tmp_path / "out/train") == before
    halves = replace(COCO.skeleton, upper=COCO.skeleton.upper[1:])
    resumed(images, tmp_path, dataset=replace(COCO, skeleton=halves))
    assert kept(capsys.readouterr().out) == 0


@pytest.mark.parametrize(
    "name",
    [
        "shards/train/train-000001.tar",
        "shards/train/train-000001.idx",
        "receipts/train/train-000001.tar.json",
    ],
)
@pytest.mark.parametrize("damage", [truncate, alter, Path.unlink])
def test_a_shard_that_is_not_whole_is_cut_again(
    killed: Path, images: list[RawImage], undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None], name: str,
) -> None:  # fmt: skip
    damage(killed / "halfway" / name)
    resumed(images, killed)
    assert kept(capsys.readouterr().out) == 2 and contents(killed / "out/train") == undisturbed


def again(work: Path, root: Path) -> None:
    """Put `root` back to where its run was killed."""
    for folder in ("out", "halfway"):
        shutil.rmtree(root / folder, ignore_errors=True)
    shutil.copytree(work, root / "halfway")


def test_what_does_not_match_is_cut_again(
    killed: Path, images: list[RawImage], capsys: pytest.CaptureFixture[str]
) -> None:
    """Other parameters, other persons and `fresh` keep nothing; a replaced photograph costs its own shard
    alone.
    """
    work = killed / "before"
    shutil.move(killed / "halfway", work)
    photographs = killed / "photographs"
    shutil.copytree(images[0].path.parent, photographs)
    for options, wanted, expected in (
        ({}, images, 3),
        ({"quality": 90}, images, 0),
        ({"input_size": (48, 64)}, images, 0),
        ({"fresh": True}, images, 0),
        ({}, images[:-1], 0),
        ({}, [replace(raw, path=photographs / raw.path.name) for raw in images], 3),
    ):
        again(work, killed)
        resumed(wanted, killed, **options)
        assert kept(capsys.readouterr().out) == expected, options
    again(work, killed)
    path = photographs / images[1].path.name
    os.utime(path, (1, 1))
    resumed([replace(raw, path=photographs / raw.path.name) for raw in images], killed)
    assert kept(capsys.readouterr().out) == 2


def test_mended_photographs_are_seen(
    images: list[RawImage], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """Too many are skipped, the user fetches the file again: the finished shards stay, the one with the
    damaged file goes.
    """
    spoilt = [half(images[0], tmp_path), *images[1:]]
    with pytest.raises(UserError, match=rf"all are in {tmp_path}/halfway/receipts/train/skipped\.csv"):
        resumed(spoilt, tmp_path)
    assert not (tmp_path / "out").exists() and (tmp_path / "halfway/receipts/train/skipped.csv").exists()
    shutil.copy(images[0].path, spoilt[0].path)
    manifest = resumed(spoilt, tmp_path)
    assert manifest["skipped"] == {} and contents(tmp_path / "out/train") == undisturbed


def test_parts_of_another_run_are_not_published(killed: Path, images: list[RawImage]) -> None:
    with resumable_folder(killed / "out", killed / "halfway", ["val"]) as (folder, receipts):
        write_eval_shards(images, folder / "val", dataset=COCO, workers=1, resume=receipts / "val")
    assert [path.name for path in (killed / "out").iterdir()] == ["val"]


def test_one_at_a_time(images: list[RawImage], tmp_path: Path) -> None:
    with (
        resumable_folder(tmp_path / "out", tmp_path / "halfway", []),
        pytest.raises(UserError, match="another process is writing the same shards"),
    ):
        resumed(images, tmp_path)


def test_an_older_folder_stays_until_then(images: list[RawImage], tmp_path: Path) -> None:
    for text in ("old", "new"):
        with resumable_folder(tmp_path / "out", tmp_path / "halfway", []) as (folder, _):
            (folder / text).write_text(text)
            assert not (tmp_path / "out" / text).exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["halfway", "out"]
        assert [path.name for path in (tmp_path / "out").iterdir()] == [text]


def test_another_file_system(images: list[RawImage], tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    work = other / f"rtmpose-test-{os.getpid()}"
    try:
        with resumable_folder(tmp_path / "out", work, ["train"]) as (folder, receipts):
            cut(images, folder / "train", resume=receipts / "train")
        assert not (work / "shards").exists()
        with resumable_folder(tmp_path / "out", work, ["train"]) as (folder, receipts):
            assert not any(folder.iterdir())  # nothing to link from there
            cut(images, folder / "train", resume=receipts / "train")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    assert contents(tmp_path / "out/train") == undisturbed and [path.name for path in tmp_path.iterdir()] == [
        "out"
    ]


def test_one_process_needs_no_ray(
    images: list[RawImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ray_cluster", None)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    cut(images, tmp_path / "a", workers=1)
    cut(images, tmp_path / "b", workers=None, shard_bytes=10**9)
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    cut(images, tmp_path / "c", workers=None)


def test_workers_import_nothing_slow_before_they_write() -> None:
    slow = "{'torch', 'ray', 'webdataset', 'fsspec'}"
    code = f"import sys, rtmpose.data.shards.write; print({slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[None]:
    """A cluster of two cores that RAY_ADDRESS leads to."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
    running = Cluster(initialize_head=True, head_node_args=node)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", running.address)
        yield
    running.shutdown()


@pytest.mark.slow
def test_a_cluster_cuts_the_same_bytes(
    running_cluster: None, images: list[RawImage], tmp_path: Path, undisturbed: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    cut(images, tmp_path / "a", workers=None)
    assert contents(tmp_path / "a") == undisturbed
    with pytest.raises(Killed):
        resumed(images, tmp_path, stop=2, workers=2)
    resumed(images, tmp_path, workers=2)
    assert contents(tmp_path / "out/train") == undisturbed and kept(capsys.readouterr().out) >= 2


@pytest.mark.slow
def test_a_mistake_in_a_worker_is_one_line(
    running_cluster: None, images: list[RawImage], tmp_path: Path
) -> None:
    spoilt = [*images[:3], half(images[3], tmp_path), *images[4:]]
    with pytest.raises(UserError, match=rf"^{spoilt[3].path}: the JPEG is cut off[^\n]*$"):
        write_eval_shards(spoilt, tmp_path / "val", dataset=COCO, shard_bytes=5_000, workers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def die(folder: Path, times: int, task: int) -> int:
    """Kill this process the first `times` times that the task is tried."""
    tries = len(list(folder.glob(f"{task}-*")))
    (folder / f"{task}-{tries}").touch()
    if tries < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.slow
def test_a_worker_that_dies(running_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "RETRIES", 1)
    assert sorted(map_on_cluster(partial(die, tmp_path, 1), range(4), 2)) == [0, 1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 8
    with pytest.raises(UserError, match=r"^a worker process died 2 times [^\n]*$"):
        list(map_on_cluster(partial(die, tmp_path, 99), range(8, 10), 2))


@pytest.mark.slow
def test_killed_at_random_moments() -> None:
    command = [sys.executable, "-m", "tests.faults.sharding", "--kills", "5", "--seed", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["tried"] == line["survived"] == 5 and line["identical"] is True
