"""The process that a runtime of another environment lives in; this environment stands for it."""

from __future__ import annotations

import platform
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import cast

import numpy as np
import pytest

from rtmpose.deploy import targets, workers
from rtmpose.deploy.runtimes import apart, apart_program
from rtmpose.deploy.runtimes.apart import Apart
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible, Placement, RuntimeName, Session, Spent
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.deploy.workers import Configuration, Memory, Opened
from tests.support import det_input

# Stands for a runtime: `apart_program` with an opener that computes means of the image.
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import apart_program

ballast = []

def opened(about):
    def run(image):
        if image[0, 0, 0, 0] > 8:
            raise RuntimeError("the image is too bright")
        print("libraries print", flush=True)
        ballast.append(b"x" * 60_000_000)
        end = apart_program.time.process_time() + {busy}
        while apart_program.time.process_time() < end:
            pass
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
    text = PROGRAM.format(folder=str(apart.PROGRAM.parent), second="image.max((2, 3))", busy=0)
    program.write_text(text)
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


def test_the_process_tells_what_it_has_cost(toy: Path) -> None:
    toy.write_text(toy.read_text().replace("process_time() + 0", "process_time() + 0.2"))
    process = Apart("litert", Path("model"), SHAPES, threads=1)
    before = process.spent()
    assert 5 < before.peak_mb < 1000 and before.cpu_s > 0
    process.infer(det_input((2, 3, 8, 4)))
    after = process.spent()
    assert after.peak_mb > before.peak_mb + 110 and 0.4 <= after.cpu_s - before.cpu_s < 2


def test_a_benchmark_counts_the_process(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory and CPU time are those of both processes."""
    elsewhere = iter([Spent(500.0, 3.0), Spent(500.0, 4.0)])
    images = det_input((1, 3, 8, 4))
    turn = workers._time(lambda images: (images,), images, [], lambda: next(elsewhere), 0.0, 3)
    assert 1 <= turn.cpu < 1.5
    session = Session(lambda images: (images,), "1", "CPU", lambda: Spent(5000.0, 0.0))
    opened = Opened((), "1", "CPU", 1.0, 1.0)
    monkeypatch.setattr(workers, "_open", lambda *_: (session, opened))
    answers: list[object] = []
    asked = iter([("memory",)])

    class Pipe:
        def recv(self) -> tuple[str, ...]:
            try:
                return next(asked)
            except StopIteration:
                raise EOFError from None

        def send(self, answer: object) -> None:
            answers.append(answer)

    one = Configuration("litert", "fp32", Placement(), 1)
    workers.work(cast(Connection, Pipe()), one, files, images, 0, None, 0.0)
    memory = answers[-1]
    assert answers[0] is opened and isinstance(memory, Memory) and 5010 < memory.peak_mb < 9000


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The device tree of a board, and a file that stands for a converted network."""
    (tmp_path / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    monkeypatch.setattr(targets, "BOARD", (tmp_path / "compatible",))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    converted = tmp_path / "rtmpose.fp16.rknn"
    monkeypatch.setattr(apart, "convert", lambda *_: (converted,))
    return converted


def test_rknn_runs_the_converted_file_on_its_board_alone(
    files: ModelFiles, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Path] = []

    class Process:
        version, device = "2.5", "NPU"

        def __init__(self, runtime: str, model: Path, *_: object) -> None:
            served.append(model)

        def infer(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
            return (images,)

        def spent(self) -> Spent:
            return Spent(1.0, 1.0)

    monkeypatch.setattr(apart, "Apart", Process)
    session = apart.load("rknn", files, "fp16", Placement(), 1)
    assert served == [board] and session.elsewhere is not None and session.elsewhere().peak_mb == 1
    with pytest.raises(NotPossible, match="in fp16, not in int8"):
        apart.load("rknn", files, "int8", Placement(), 1)
    (board.parent / "compatible").write_bytes(b"raspberrypi,5-model-b\0")
    with pytest.raises(NotPossible, match=r"not run here: RKNN needs an RK3588, .* is raspberrypi,5-model-b"):
        apart.load("rknn", files, "fp16", Placement(), 1)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    said = r"machine is x86_64; `rtmpose convert-runtime .*rtmpose\.onnx --runtime rknn --precision fp16`"
    with pytest.raises(NotPossible, match=said):
        apart.load("rknn", files, "fp16", Placement(), 1)
    assert len(served) == 1


def test_rknn_opens_the_npu_and_no_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    failing: set[str] = set()

    class RKNNLite:
        def load_rknn(self, path: str) -> int:
            calls.append(path)
            return int("load" in failing)

        def init_runtime(self, target: str | None = None) -> int:
            calls.append(target)  # with one it looks for a board at a cable
            return int("init" in failing)

        def inference(self, inputs: list[np.ndarray], **settings: str) -> list[np.ndarray] | None:
            calls.append(settings)
            return None if "run" in failing else inputs

    api = ModuleType("rknnlite.api")
    api.__dict__["RKNNLite"] = RKNNLite
    monkeypatch.setitem(sys.modules, "rknnlite", ModuleType("rknnlite"))
    monkeypatch.setitem(sys.modules, "rknnlite.api", api)
    monkeypatch.setattr(apart_program, "version", lambda package: {"rknn-toolkit-lite2": "2.5.0"}[package])
    run, *about = apart_program.open_rknn({"model": "m.rknn"})
    assert about == ["2.5.0", "NPU of rk3588"]
    image = det_input((1, 3, 8, 4))
    assert run(image)[0] is image
    assert calls == ["m.rknn", None, {"data_type": "float32", "data_format": "nchw"}]
    failing.add("run")
    with pytest.raises(RuntimeError, match="could not run"):
        run(image)
    for failure, reason in (("init", "cannot use this board's NPU"), ("load", r"cannot read m\.rknn")):
        failing.add(failure)
        with pytest.raises(RuntimeError, match=reason):
            apart_program.open_rknn({"model": "m.rknn"})


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
