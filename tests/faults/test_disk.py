"""A disk that is full, read-only or not ours: every writer says so in one line and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from rtmpose.config import Architecture
from rtmpose.data.mannequins.dataset import render_dataset
from rtmpose.data.raw.annotations import read_images
from rtmpose.data.shards.complete_folders import complete_folder, resumable_folder
from rtmpose.data.shards.places import LocalPlace
from rtmpose.data.shards.write import write_eval_shards, write_train_shards
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.export import export_onnx
from rtmpose.deploy.quantize.onnx import Quantizer, Recipe, save_quantized
from rtmpose.descriptors import load_dataset
from rtmpose.files import FIXES, UserError, append, locked, write_atomic, write_csv, writing
from rtmpose.models import PoseNet, build_pose_net, save_tensors
from rtmpose.search.ledger import Ledger
from rtmpose.tracking import runs
from rtmpose.tracking.runs import start_or_resume_run
from rtmpose.training.checkpoint import Store

Writer = Callable[[Path, Path], object]  # (folder to write into, folder with raw data)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    render_dataset(root, "coco17", images={"train": 4}, size=(160, 120), seed=1, workers=1)
    return root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte of its own; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(params=["full", "read-only"])
def refusing(disk: Path, request: pytest.FixtureRequest) -> Path:
    """The disk once it takes nothing more."""
    if request.param == "full":
        with (disk / "filling").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(bytes(4096))
    else:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return disk


def shards(write: Callable[..., object], folder: Path, raw: Path, **options: object) -> None:
    dataset = load_dataset("coco17")
    write(list(read_images(dataset, raw, "train")), folder, dataset=dataset, workers=1, **options)


def opened(folder: Path) -> Store:
    return Store(folder, (folder / "token").read_text() if (folder / "token").exists() else "")


def small_net() -> PoseNet:
    return build_pose_net("t", input_size=(64, 64), num_keypoints=3, hidden=8)


def kept(folder: Path) -> Path:
    """The file of one export that several writers start from."""
    path = folder / "m.onnx"
    return path if path.exists() else export_onnx(small_net(), (64, 64), path)


def exported(folder: Path, raw: Path) -> None:
    """An export from the graph that an earlier one traced, in memory: only its writing is of interest."""
    graph = onnx.load(str(kept(raw)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rtmpose.deploy.export.traced", lambda *_: graph)
        export_onnx(small_net(), (64, 64), folder / "m.onnx")


def quantised(folder: Path, raw: Path) -> None:
    """Calibration keeps its ranges, and what it makes, on the disk that takes nothing."""
    path = kept(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        with writing(folder), Quantizer(path, np.zeros((2, 3, 64, 64), np.float32)) as quantizer:
            quantizer.quantized(Recipe(True))


def int8(folder: Path, raw: Path) -> None:
    """A file of int8 that is ready to be written."""
    card = ModelCard.of(Architecture(size="t"), (64, 64), "coco17")
    save_quantized(onnx.load(str(kept(raw))), folder / "m.int8.onnx", card, kept(raw))


def saved(folder: Path) -> None:
    Store.open(folder, "run", fresh=True).save({"step": 1, "x": torch.ones(4096)})


def searched(folder: Path) -> None:
    Ledger(folder / "ledger.jsonl").start({"a": "b" * 8192}, seed=1, kind="searched")


def placed(folder: Path) -> None:
    LocalPlace(folder / "s", folder / "receipts", "p" * 8192).open(["a.tar"], fresh=True)


def rendered(folder: Path) -> None:
    render_dataset(folder / "new", "coco17", images={"train": 1}, size=(64, 64), seed=1, workers=1)


def resumable(folder: Path) -> None:
    with resumable_folder(folder / "out", folder / "work", []):
        pass


def complete(folder: Path) -> None:
    with complete_folder(folder / "out") as new:
        write_atomic(new / "a", "a" * 8192)


def lock(folder: Path) -> None:
    with locked(folder / "deep" / "lock"):
        append(folder / "deep" / "lock", "a" * 8192)


WRITERS: dict[str, Writer] = {
    "a small file": lambda folder, _: write_atomic(folder / "deep" / "a.json", "{}" * 4096),
    "weights": lambda folder, _: save_tensors(folder / "w.pt", {"x": torch.zeros(4096)}),
    "a run's store": lambda folder, _: saved(folder),
    "a warning": lambda folder, _: opened(folder).warn("w" * 8192),
    "damaged samples": lambda folder, _: opened(folder).note_damaged(1, ["s" * 8192]),
    "a receipt": lambda folder, _: opened(folder).finish({"a": "b" * 8192}),
    "a search's ledger": lambda folder, _: searched(folder),
    "a table": lambda folder, _: write_csv(folder / "t.csv", ["a"], [{"a": "b" * 8192}]),
    "a lock": lambda folder, _: lock(folder),
    "an export": exported,
    "calibration": quantised,
    "an int8 file": int8,
    "mannequins": lambda folder, _: rendered(folder),
    "a complete folder": lambda folder, _: complete(folder),
    "training shards": lambda folder, raw: shards(
        write_train_shards, folder / "s", raw, input_size=(96, 128)
    ),
    "evaluation shards": lambda folder, raw: shards(write_eval_shards, folder / "s", raw),
    "resumed shards": lambda folder, raw: shards(
        write_eval_shards, folder / "s", raw, resume=folder / "notes"
    ),
    "a finished shard": lambda folder, _: placed(folder),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_refusing_disk_is_one_line(refusing: Path, raw: Path, name: str) -> None:
    before = {path for path in refusing.rglob("*") if path.is_file()}
    with pytest.raises((UserError, OSError)) as caught:
        WRITERS[name](refusing, raw)
    assert isinstance(caught.value, UserError), repr(caught.value)
    text = str(caught.value)
    fixes = (FIXES[errno.ENOSPC], FIXES[errno.EROFS])
    assert "\n" not in text and str(refusing) in text and any(fix in text for fix in fixes), text
    left = {path for path in refusing.rglob("*") if path.is_file() and path.stat().st_size} - before
    assert not left, left


def test_a_run_store_on_a_read_only_disk(disk: Path) -> None:
    store = Store.open(disk, "run", fresh=True)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for write in (
        lambda: store.append_log({"step": 1}),
        lambda: store.save({"step": 1}),
        lambda: store.save_best({"x": torch.ones(1)}),
        lambda: store.warn("w"),
    ):
        with pytest.raises(UserError, match=f"{disk}.*read-only"):
            write()


@pytest.mark.parametrize("state", ["full", "read-only", "absent and read-only"])
def test_the_data_base_of_mlflow(
    disk: Path, monkeypatch: pytest.MonkeyPatch, make_store: Callable[[Path], None], state: str
) -> None:
    monkeypatch.setattr(runs, "_create", make_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{disk}/mlflow.db")
    if state == "read-only":
        (disk / "mlflow.db").touch()
    if state == "full":
        (disk / "filling").write_bytes(bytes((1 << 20) - 16384))
    else:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(UserError, match=r"mlflow\.db") as caught:
        start_or_resume_run("second")
    assert "\n" not in str(caught.value)
    assert bool(list(disk.glob("*mlflow.db*"))) == (state == "read-only"), "nothing half-made is left"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_the_system_refuses_at_the_last_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """Root is refused nothing, so the system's answer is imitated."""
    (tmp_path / "kept.json").write_text("before")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UserError, match=r"kept\.json: cannot be written: .*; ") as caught:
        write_atomic(tmp_path / "kept.json", "after")
    assert FIXES[number] in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]
    assert (tmp_path / "kept.json").read_text() == "before"


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "b" / "a.json"):
        with pytest.raises(UserError, match="a file stands where a folder belongs"):
            write_atomic(path, "a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="a folder stands where a file belongs"):
        write_atomic(tmp_path / "folder", "a")


def test_the_command_ends_with_exit_code_2(disk: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    (disk / "filling").write_bytes(bytes(1 << 20))
    torch.save(build_pose_net("t").state_dict(), weights)
    command = [sys.executable, "-m", "rtmpose.cli", "convert", str(weights), "--size", "t", "-o"]
    done = subprocess.run([*command, str(disk / "copy.pt")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {disk / 'copy.pt'}: cannot be written: no space left on device; free")
    assert [path.name for path in disk.iterdir()] == ["filling"]
