"""`rtmpose track` that is really killed: a playable video and complete results under their own names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.inference.video import Video
from tests.inference.clips import clip
from tests.support import ROOT

pytestmark = pytest.mark.slow

COMMAND = """
import signal
from rtmpose.cli.app import app
from rtmpose.ending import run_command

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
run_command(app)
"""
FRAMES = 600  # more than are done when the signal comes


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    times = [number / 30 for number in range(FRAMES)]
    return clip(tmp_path_factory.mktemp("long") / "film.mp4", times)


@pytest.mark.parametrize(("number", "every"), [(signal.SIGINT, 1), (signal.SIGTERM, 5)])
def test_a_signal_leaves_a_playable_video_and_complete_results(
    files: ModelFiles, film: Path, tmp_path: Path, number: signal.Signals, every: int
) -> None:
    arguments = ["track", str(film), "--model", str(files.onnx), "--every", str(every), "--threads", "1"]
    arguments += ["--out", str(tmp_path / "people.json"), "--draw", str(tmp_path / "drawn.mp4")]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], text=True, stderr=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    try:
        while not any(path.stat().st_size for path in tmp_path.glob(".people*")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + number, errors
    assert "ended early; what was done is kept: " in errors and "Traceback" not in errors
    rows = json.loads((tmp_path / "people.json").read_text())
    with Video(tmp_path / "drawn.mp4") as video:
        count = len(list(video))
        assert video.remark() is None
    assert 0 < count < FRAMES and {row["frame"] for row in rows} == {*range(count)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.mp4", "people.json"]
