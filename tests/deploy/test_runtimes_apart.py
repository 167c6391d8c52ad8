"""The process that a runtime of another environment lives in; this environment stands for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rtmpose.deploy.runtimes import apart
from rtmpose.deploy.runtimes.apart import Apart
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, RuntimeName
from rtmpose.deploy.runtimes.session import open_session
from tests.support import det_input

# Stands for a runtime: `apart_program` with an opener that computes means of the image.
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import apart_program

def opened(about):
    def run(image):
        if image[0, 0, 0, 0] > 8:
            raise RuntimeError("the image is too bright")
        print("libraries print", flush=True)
        return [image.mean((2, 3))[:, :, None] * about["threads"], {second}]
    return run, "4.5", "CPU, toy"

apart_program.OPENERS["litert"] = opened
apart_program.serve("litert", apart_program.json.loads(sys.argv[3]))
"""
SHAPES = ((1, 3, 8, 4), ((1, 3, 1), (1, 3)))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program of a runtime that gives a mean for each channel, and their maximum."""
    program = tmp_path / "toy.py"
    program.write_text(PROGRAM.format(folder=str(apart.PROGRAM.parent), second="image.max((2, 3))"))
    monkeypatch.setattr(apart, "_command", lambda runtime: [sys.executable, "-I", str(program), runtime])
    return program


def test_arrays_go_there_and_back(toy: Path) -> None:
    images = det_input((3, 3, 8, 4))
    process = Apart("litert", Path("model"), SHAPES, threads=2)
    means, largest = process.infer(images)
    np.testing.assert_allclose(means[:, :, 0], 2 * images.mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(largest, images.max((2, 3)))
    assert (process.version, process.device) == ("4.5", "CPU, toy")


def test_a_process_that_dies_says_why(toy: Path) -> None:
    process = Apart("litert", Path("model"), SHAPES, threads=1)
    bright = np.full((1, 3, 8, 4), 9, np.float32)
    for _ in range(2):
        with pytest.raises(NotPossible, match=r"LiteRT: its process ended with status 1: .*too bright"):
            process.infer(bright)


def test_outputs_of_other_sizes_are_refused(toy: Path) -> None:
    toy.write_text(toy.read_text().replace("image.max((2, 3))", "image"))
    process = Apart("litert", Path("model"), SHAPES, threads=1)
    with pytest.raises(NotPossible, match="by the model card they are"):
        process.infer(det_input((1, 3, 8, 4)))


def test_the_process_ends_with_its_session(toy: Path) -> None:
    process = Apart("litert", Path("model"), SHAPES, threads=1)
    child: subprocess.Popen[bytes] = process._process
    assert child.poll() is None
    del process
    assert child.poll() is not None


@pytest.mark.parametrize("runtime", ["litert", "executorch"])
def test_runtimes_of_other_environments_compute_the_same(files: ModelFiles, runtime: RuntimeName) -> None:
    """Where `rtmpose setup-runtime` has set one up."""
    images = det_input((2, 3, 128, 96))
    try:
        session = open_session(runtime, files, batch=2)
    except NotPossible as reason:
        if "not set up" not in str(reason):
            raise
        pytest.skip(str(reason))
    expected = open_session("onnxruntime", files)(images)
    for ours, theirs in zip(session(images), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    assert "XNNPACK" in session.device and session.version[0].isdigit()
