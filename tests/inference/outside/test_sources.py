"""Models by name: registered versions in a store of their own, what was picked of them, and released ones."""

from __future__ import annotations

import hashlib
import logging
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from rtmpose.deploy.e2e import e2e_path, export_e2e
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.targets import load_target
from rtmpose.files import UserError
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.inference.sources import model_file, model_source
from rtmpose.released.download import pull
from rtmpose.tracking import models, runs
from tests.deploy.support import relabelled, save_form
from tests.released.conftest import FILES, POSE_ZIP, Publisher, publisher
from tests.support import ROOT
from tests.tracking.conftest import store

__all__ = ["publisher", "store"]
PROGRAM = ROOT / "rtmpose/inference/served_program.py"
PIXELS = np.full((120, 90, 3), 90, np.uint8)
OWN = {"x86_64": "cpu-x86", "aarch64": "cpu-arm64"}[platform.machine()]  # the target that this machine is


@pytest.fixture(scope="module")
def made(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a version, each recognisable by its commit: the fp32 one, its end-to-end form, int8."""
    folder = tmp_path_factory.mktemp("version")
    shutil.copy(files.onnx, folder / "rtmpose.onnx")
    export_e2e(folder / "rtmpose.onnx")
    other = relabelled(files, folder, git_commit="quantised")
    save_form(onnx.load(str(other)), folder / "rtmpose.int8.onnx", files.onnx)
    other.unlink()
    return folder


@pytest.fixture
def version(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and a cache of the test's own."""
    monkeypatch.setenv("RTMPOSE_CACHE", str(tmp_path / "cache"))
    return made


def registered(folder: Path, picked: Mapping[str, str | None]) -> None:
    first = folder / "rtmpose.onnx"
    models.register(
        [first, *sorted(set(folder.iterdir()) - {first})],
        program=PROGRAM,
        name="pose",
        run_id=runs.start_or_resume_run("training"),
        tags=models.picked_tags(picked),
        requirements=["onnxruntime==1.31.1"],
    )


def opened(caplog: pytest.LogCaptureFixture, uri: str, precision: str | None = None) -> tuple[str, list[str]]:
    """The commit of the file that is run, and what was said of it."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        pipeline = PosePipeline.load(uri, threads=1, precision=precision)
    assert len(pipeline(PIXELS)) == 1
    return pipeline.card.git_commit, [line for line in caplog.messages if "no calibration" not in line]


def test_what_was_picked_for_this_machine_is_opened(
    version: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registered(version, {OWN: "onnxruntime_int8", "rpi5": "ncnn_fp16", "unknown-board": "mnn_fp32"})
    assert models.picks("pose", 1)["rpi5"] == "ncnn_fp16"
    for uri in ("models:/pose/1", "models:/pose@candidate"):
        assert opened(caplog, uri) == (
            "quantised", [f"{uri}: onnxruntime in int8 is run, as picked for target {OWN}"],
        )  # fmt: skip
    assert opened(caplog, "models:/pose/1", "fp32") == ("0123abc", [])
    cached = tmp_path / "cache/models/pose/1"
    assert sorted(path.name for path in cached.iterdir()) == sorted(path.name for path in version.iterdir())
    with pytest.raises(UserError, match=r"--precision fp16: models:/pose/1 holds no rtmpose\.fp16\.onnx"):
        model_source("models:/pose/1", "fp16")
    with pytest.raises(UserError, match=r"--precision: 'int4' is none of fp32, "):
        model_source("models:/pose/1", "int4")


@pytest.mark.parametrize(
    ("picked", "words"),
    [
        ({}, "nothing was picked for a target that this machine is: fp32 is run"),
        ({OWN: None}, f"nothing passed on target {OWN}: fp32 is run"),
        ({OWN: "openvino_fp32"}, f"openvino in fp32 is run, as picked for target {OWN}"),
        ({OWN: "openvino_int8"}, "openvino in int8 cannot be run here"),
    ],
)
def test_without_a_file_for_the_pick_fp32_is_run(
    version: Path,
    caplog: pytest.LogCaptureFixture,
    picked: dict[str, str | None],
    words: str,
) -> None:
    registered(version, picked)
    commit, lines = opened(caplog, "models:/pose/1")
    assert commit == "0123abc" and words in lines[-1]


def test_openvino_gives_the_points_of_onnx_runtime(version: Path) -> None:
    registered(version, {OWN: "openvino_fp32"})
    boxes = np.array([[10.0, 20.0, 70.0, 100.0], [-10.0, 5.5, 60.0, 110.5]])
    pixels = np.random.default_rng(3).integers(0, 256, (120, 90, 3), np.uint8)
    ours = PosePipeline.load("models:/pose/1", threads=1).persons(pixels, boxes)
    theirs = PosePipeline.load("models:/pose/1", threads=1, precision="fp32").persons(pixels, boxes)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=0.5)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


def test_a_target_of_a_board_comes_before_one_of_a_cpu(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtmpose.inference import sources

    own = load_target(OWN)
    board = own.model_copy(update={"name": "board", "board": "Own board"})
    monkeypatch.setattr(sources, "load_target", lambda name: {"board": board, OWN: own}[name])
    monkeypatch.setattr("rtmpose.deploy.targets.board_name", lambda: "Own board 5")
    registered(version, {OWN: "onnxruntime_fp32", "board": "onnxruntime_int8"})
    assert model_source("models:/pose/1").precision == "int8"
    monkeypatch.setattr("rtmpose.deploy.targets.board_name", lambda: "another")
    assert model_source("models:/pose/1").precision == "fp32"


def test_what_is_not_registered_is_one_line(
    version: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/none/mlflow.db")
        with pytest.raises(UserError, match=r"models:/pose@champion: no such model or alias in sqlite:"):
            PosePipeline.load("models:/pose@champion")
        assert not (store / "none").exists(), "asking makes no store"
    for uri, reason in (
        ("models:/pose", "no URI of a registered model"),
        ("models:/pose/latest", "no URI of a registered model"),
    ):
        with pytest.raises(UserError, match=reason):
            PosePipeline.load(uri)
    registered(version, {})
    for uri, reason in (
        ("models:/pose@champion", "no such model or alias"),
        ("models:/other@candidate", "no such model or alias"),
        ("models:/pose/7", "pose version 7: no such version"),
    ):
        with pytest.raises(UserError, match=reason):
            PosePipeline.load(uri)


def test_a_released_name_is_what_was_fetched_and_proven(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^pose-one\.onnx: not to be had: [^\n]*--sha256[^\n]*$"):
        PosePipeline.load("pose-one", threads=1)
    path = pull("pose-one", sha256=hashlib.sha256(FILES[POSE_ZIP]).hexdigest())
    asked = len(publisher.asked)
    for name in ("pose-one", "pose-one.onnx"):
        pipeline = PosePipeline.load(name, threads=1)
        assert len(pipeline(PIXELS)) == 1 and pipeline.names[0] == "nose"
        assert pipeline.network.path == path and path.is_relative_to(tmp_path / "cache")
    assert len(publisher.asked) == asked


def test_files_and_names_are_told_apart(files: ModelFiles, publisher: Publisher) -> None:
    assert model_source(files.onnx).files == files.__class__(files.onnx)
    with pytest.raises(UserError, match="--precision int8: chooses among the files of models:/"):
        model_source(files.onnx, "int8")
    with pytest.raises(UserError, match="--detector none: no such file, and no released weights"):
        model_file("none", "--detector")
    assert not e2e_path(files.onnx).exists()
