"""A model in runtimes' own formats: converted once, whole or not at all."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.deploy import environments
from rtmpose.deploy.environments import ENVIRONMENTS, environment_python, set_up
from rtmpose.deploy.runtimes.base import (
    DeviceKind,
    Infer,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    RuntimeName,
)
from rtmpose.deploy.runtimes.conversion import Conversion, Parts
from rtmpose.deploy.runtimes.onnxruntime import open_file
from rtmpose.deploy.runtimes.session import convert_model, open_session
from rtmpose.files import UserError
from tests.support import ROOT


@pytest.fixture
def copy(files: ModelFiles, tmp_path: Path) -> ModelFiles:
    """The exported model in a folder of its own."""
    os.link(files.onnx, tmp_path / "rtmpose.onnx")
    return ModelFiles(tmp_path / "rtmpose.onnx")


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def conversion(
    make: Callable[[ModelFiles, Precision, Parts], None], opened: Callable[[Parts], Infer] | None = None
) -> Conversion:
    return Conversion("ncnn", (".toy.a", ".toy.b"), "toy 1", make, opened)


def two_files(files: ModelFiles, precision: Precision, parts: Parts) -> None:
    for part in parts:
        part.write_text(f"{part.name} {os.urandom(4).hex()}")


def test_a_model_is_converted_once_and_anew_for_other_files(copy: ModelFiles) -> None:
    parts = conversion(two_files).converted(copy, "fp16")
    assert [part.name for part in parts] == ["rtmpose.fp16.toy.a", "rtmpose.fp16.toy.b"]
    before = [part.read_text() for part in parts]
    assert [part.read_text() for part in conversion(two_files).converted(copy, "fp16")] == before
    parts[1].write_text("damaged")
    assert [part.read_text() for part in conversion(two_files).converted(copy, "fp16")] != before
    for change in (
        lambda: Conversion("ncnn", (".toy.a", ".toy.b"), "toy 2", two_files),
        lambda: _other(copy),
    ):
        before = [part.read_text() for part in parts]
        change().converted(copy, "fp16")
        assert all(part.read_text() != text for part, text in zip(parts, before, strict=True))


def _other(copy: ModelFiles) -> Conversion:
    content = copy.onnx.read_bytes()
    copy.onnx.unlink()
    copy.onnx.write_bytes(content + b"\x00")
    return conversion(two_files)


def fails(files: ModelFiles, precision: Precision, parts: Parts) -> None:
    parts[0].write_text("half")
    raise RuntimeError("out of luck")


def forgets(files: ModelFiles, precision: Precision, parts: Parts) -> None:
    parts[0].write_text("half")


@pytest.mark.parametrize(
    ("make", "reason"),
    [(fails, "ncnn: the conversion failed: out of luck"), (forgets, r"wrote no rtmpose\.toy\.b")],
)
def test_a_conversion_that_fails_leaves_nothing(
    copy: ModelFiles, make: Callable[[ModelFiles, Precision, Parts], None], reason: str
) -> None:
    with pytest.raises(NotPossible, match=reason):
        conversion(make).converted(copy, "fp32")
    assert visible(copy.onnx.parent) == ["rtmpose.onnx"]


@pytest.mark.parametrize(("factor", "kept"), [(1.0, True), (1.02, False), (np.nan, False)])
def test_what_computes_something_else_is_not_kept(copy: ModelFiles, factor: float, kept: bool) -> None:
    session = open_file(copy.onnx, threads=1)

    def opened(parts: Parts) -> Infer:
        return lambda images: tuple(part * factor for part in session.run(None, {"input": images}))

    if kept:
        conversion(two_files, opened).converted(copy, "fp32")
        return
    with pytest.raises(NotPossible, match="computes something else than ONNX Runtime: outputs of up to"):
        conversion(two_files, opened).converted(copy, "fp32")
    assert visible(copy.onnx.parent) == ["rtmpose.onnx"]


KILLED = """
import sys, time
from pathlib import Path
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.conversion import Conversion

def make(files, precision, parts):
    parts[0].write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(600)

Conversion("ncnn", (".toy.a", ".toy.b"), "toy 1", make).converted(ModelFiles(Path(sys.argv[1])), "fp32")
"""


def test_a_killed_conversion_is_begun_again(copy: ModelFiles) -> None:
    folder = copy.onnx.parent
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(copy.onnx)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [name for name in visible(folder) if not name.startswith(".")] == ["rtmpose.onnx"]
    conversion(two_files).converted(copy, "fp32")
    assert visible(folder) == ["rtmpose.ncnn.json", "rtmpose.onnx", "rtmpose.toy.a", "rtmpose.toy.b"]


FULL = """
import resource, signal, sys
from pathlib import Path
from rtmpose.deploy.runtimes.base import ModelFiles, NotPossible
from rtmpose.deploy.runtimes.session import convert_model
from rtmpose.files import UserError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    convert_model(sys.argv[3], ModelFiles(Path(sys.argv[1]), Path(sys.argv[2])), "fp32")
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("runtime", ["ncnn", "mnn"])
def test_a_full_disk_leaves_nothing(copy: ModelFiles, files: ModelFiles, runtime: RuntimeName) -> None:
    """Files beyond 1 MB are refused, as a full disk refuses them, to the converter too."""
    command = [sys.executable, "-c", FULL, str(copy.onnx), str(files.weights), runtime]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]  # MNN prints, too
    assert "cannot be written" in said or "not converted" in said
    assert visible(copy.onnx.parent) == ["rtmpose.onnx"]


def test_mnn_converts_without_its_tools(copy: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MNN.tools` runs pip on import, and reports conversions to a server."""
    from rtmpose.deploy.runtimes import mnn

    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "stopped here")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(NotPossible, match="mnnconvert ended with status 1: stopped here"):
        mnn.convert(copy, "fp32")
    assert len(commands) == 1 and not any("MNN.tools" in word for word in commands[0])
    assert not [name for name in sys.modules if name.startswith("MNN.tools")]


def test_mnn_does_not_take_fp32_for_fp16(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtmpose.deploy.runtimes.mnn.cpu_flags_for_fp16", frozenset)
    with pytest.raises(NotPossible, match=r"MNN computes fp16 on ARMv8\.2 only"):
        open_session("mnn", files, "fp16")


@pytest.mark.parametrize("runtime", ["ncnn", "coreml"])
def test_a_traced_network_needs_its_weights(copy: ModelFiles, runtime: str) -> None:
    with pytest.raises(UserError, match=r"not converted: .* give the weights"):
        convert_model(runtime, copy, "fp32")


def test_coreml_converts_here_and_predicts_on_macos(files: ModelFiles, tmp_path: Path) -> None:
    pytest.importorskip("coremltools", reason="coremltools is the extra `coreml`")
    os.link(files.onnx, tmp_path / "rtmpose.onnx")
    copy = ModelFiles(tmp_path / "rtmpose.onnx", files.weights)
    (package,) = convert_model("coreml", copy, "fp16")
    assert package.name == "rtmpose.fp16.mlpackage" and (package / "Manifest.json").is_file()
    if platform.system() != "Darwin":
        with pytest.raises(NotPossible, match="not run here: CoreML predicts on macOS only"):
            open_session("coreml", copy, "fp16")


@pytest.mark.parametrize(("device", "units"), [("cpu", "ALL"), ("gpu", "CPU_AND_GPU")])
def test_coreml_uses_what_its_target_promises(
    files: ModelFiles, device: DeviceKind, units: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rtmpose.deploy.runtimes import coreml

    tools = MagicMock(__version__="9.0")
    tools.ComputeUnit = {name: name for name in ("ALL", "CPU_AND_GPU", "CPU_ONLY")}
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(coreml, "_coremltools", lambda: tools)
    monkeypatch.setattr(coreml, "convert", lambda *_: (Path("m.mlpackage"),))
    session = coreml.load(files, "fp16", Placement(device, 1), 1)
    tools.models.MLModel.assert_called_once_with("m.mlpackage", compute_units=units)
    assert session.device == units


@pytest.mark.parametrize("runtime", ENVIRONMENTS)
def test_an_environment_that_is_not_there_is_named_with_its_command(
    files: ModelFiles, runtime: RuntimeName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    precision: Precision = "fp16" if runtime == "rknn" else "fp32"
    said = rf"GB.*not set up; `rtmpose setup-runtime {runtime}`"
    with pytest.raises(UserError, match=said):
        convert_model(runtime, files, precision)
    if runtime != "rknn":  # which runs on its board alone
        with pytest.raises(NotPossible, match=said):
            open_session(runtime, files, precision, Placement())


RUNS = """
import sys
from pathlib import Path
import numpy as np
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.deploy.runtimes.session import open_session

open_session("ncnn", ModelFiles(Path(sys.argv[1]), Path(sys.argv[2])))
print("torch" in sys.modules)
"""


def test_a_converted_network_runs_without_pytorch(copy: ModelFiles, files: ModelFiles) -> None:
    """Which would be in its memory and its start-up."""
    convert_model("ncnn", ModelFiles(copy.onnx, files.weights), "fp32")
    command = [sys.executable, "-c", RUNS, str(copy.onnx), str(files.weights)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False"], done.stderr


def test_a_set_up_cut_short_or_of_other_versions_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    steps: list[tuple[str, ...]] = []

    def broken(python: Path, step: tuple[str, ...]) -> None:
        raise UserError("no network")

    monkeypatch.setattr(venv, "create", lambda folder, **_: folder.mkdir(exist_ok=True))
    monkeypatch.setattr(environments, "_install", broken)
    with pytest.raises(UserError, match="no network"):
        set_up("litert")
    assert environment_python("litert") is None
    monkeypatch.setattr(environments, "_install", lambda python, step: steps.append(step))
    assert set_up("litert") == environment_python("litert") == tmp_path / ".runtimes/litert/bin/python"
    set_up("litert")
    assert steps == list(ENVIRONMENTS["litert"].steps)
    (tmp_path / ".runtimes/litert/finished").write_text("litert-torch==0.0.1")
    assert environment_python("litert") is None
    with pytest.raises(UserError, match="abacus: has no environment of its own"):
        set_up("abacus")


def test_the_command_converts(copy: ModelFiles) -> None:
    done = CliRunner().invoke(app, ["convert-runtime", str(copy.onnx), "--runtime", "mnn"])
    assert done.exit_code == 0, done.exception
    assert done.stdout.splitlines()[-1] == str(copy.onnx.with_suffix(".mnn"))  # MNN prints, too
    assert copy.onnx.with_suffix(".mnn").is_file()
    done = CliRunner().invoke(app, ["convert-runtime", str(copy.onnx), "--runtime", "openvino"])
    assert isinstance(done.exception, UserError) and "'openvino' is none of ncnn" in str(done.exception)


def test_unknown_names_are_one_line(files: ModelFiles) -> None:
    with pytest.raises(UserError, match="--runtime: 'openvino' is none of ncnn"):
        convert_model("openvino", files, "fp32")
    with pytest.raises(UserError, match="--precision: 'fp8' is none of fp32"):
        convert_model("ncnn", files, "fp8")
