"""LiteRT, ExecuTorch and RKNN: converted and run by a process in an environment of their own.

Images and outputs lie in memory that both processes see; a line through a pipe says that they are there.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from rtmpose.deploy.environments import ENVIRONMENTS, environment_python
from rtmpose.deploy.runtimes.base import (
    Loader,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    Spent,
    image_by_image,
    require_cpu,
    require_precision,
)
from rtmpose.deploy.runtimes.conversion import Conversion, Parts
from rtmpose.deploy.runtimes.onnx_form import onnx_form
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.targets import board_name

ApartName = Literal["litert", "executorch", "rknn"]
PROGRAM = Path(__file__).with_name("apart_program.py")
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Kind:
    """How one of these runtimes is handled."""

    name: str
    ending: str
    precisions: tuple[Precision, ...]
    from_onnx: bool = False  # else from the exported program of PyTorch
    compared: bool = True  # whether a conversion is compared with the exported file before it is kept
    board: str | None = None  # the one that it runs on, by its device tree


KINDS: dict[ApartName, Kind] = {
    "litert": Kind("LiteRT", ".tflite", ("fp32", "int8")),
    "executorch": Kind("ExecuTorch", ".pte", ("fp32", "int8")),
    # What runs beside its converter is a simulator, which is off by more than fp16 explains.
    "rknn": Kind("RKNN", ".rknn", ("fp16",), from_onnx=True, compared=False, board="rk3588"),
}


def loader(runtime: ApartName) -> Loader:
    """The function that opens a model in this runtime."""
    return partial(load, runtime)


def load(
    runtime: ApartName, files: ModelFiles, precision: Precision, placement: Placement, batch: int
) -> Session:
    """Open the converted network in a process of its own; it computes one image at a time.

    NotPossible for RKNN on any machine but the board it is for: its simulator's figures are not the board's.
    """
    kind = KINDS[runtime]
    require_cpu(kind.name, placement)
    require_precision(kind.name, precision, kind.precisions)
    if kind.board is not None:
        _require_board(runtime, kind.board, files, precision)
    parts = convert(runtime, files, precision)
    opened = Apart(runtime, parts[0], read_card(files.onnx).shapes(batch=1), placement.threads)
    return Session(opened.infer, opened.version, opened.device, opened.spent)


def _require_board(runtime: ApartName, board: str, files: ModelFiles, precision: Precision) -> None:
    if platform.machine() != "aarch64" or board not in (here := board_name()).lower():
        raise NotPossible(
            f"not run here: {KINDS[runtime].name} needs an {board.upper()}, this machine is "
            f"{platform.machine() if platform.machine() != 'aarch64' else here or 'no board'}; `rtmpose "
            f"convert-runtime {files.onnx} --runtime {runtime} --precision {precision}` writes the file here"
        )


def convert(runtime: ApartName, files: ModelFiles, precision: Precision) -> Parts:
    """`*.tflite`, `*.pte` or `*.rknn`, made where it is missing or of another model. An int8 file must be
    there: to make it takes images to calibrate on.
    """
    kind = KINDS[runtime]
    require_precision(kind.name, precision, kind.precisions)
    if precision == "int8":
        kept = _conversion(runtime).kept(files, precision)
        if kept is None:
            quantised = files.form(precision, kind.ending)
            raise NotPossible(
                f"{quantised}: no such file of this model; `rtmpose quantize --also {runtime}` writes it"
            )
        return kept
    python_of(runtime)
    steps = " ".join(" ".join(step) for step in ENVIRONMENTS[runtime].steps)

    def opened(parts: Parts) -> Any:
        return Apart(runtime, parts[0], read_card(files.onnx).shapes(batch=1), 1).infer

    return replace(_conversion(runtime), version=steps, open=opened if kind.compared else None).converted(
        files, precision
    )


def remove_others(files: ModelFiles) -> None:
    """Remove int8 files of these runtimes, and their receipts, that lie there of another model."""
    for runtime, kind in KINDS.items():
        conversion = _conversion(runtime)
        if "int8" in kind.precisions and conversion.kept(files, "int8") is None:
            for path in (files.form("int8", kind.ending), conversion.receipt(files, "int8")):
                path.unlink(missing_ok=True)


def _conversion(runtime: ApartName) -> Conversion:
    return Conversion(runtime, (KINDS[runtime].ending,), "", partial(_make, runtime))


class Apart:
    """A process that has a model open; it ends with this object, or with this process."""

    def __init__(
        self,
        runtime: ApartName,
        model: Path,
        shapes: tuple[tuple[int, ...], tuple[tuple[int, ...], ...]],
        threads: int,
    ) -> None:
        self._name = KINDS[runtime].name
        image, outputs = shapes
        sizes = [int(np.prod(shape)) for shape in (image, *outputs)]
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # read when the process has died
        with tempfile.TemporaryFile(dir=MEMORY if MEMORY.is_dir() else None) as shared:
            shared.truncate(4 * sum(sizes))
            memory = np.frombuffer(mmap.mmap(shared.fileno(), 4 * sum(sizes)), np.float32)
            arrays = np.split(memory, np.cumsum(sizes)[:-1])
            self._image = arrays[0].reshape(image)
            self._outputs = [part.reshape(shape) for part, shape in zip(arrays[1:], outputs, strict=True)]
            about = {
                "model": str(model.resolve()),
                "memory": shared.fileno(),
                "threads": threads,
                "image": image,
                "outputs": outputs,
            }
            self._process = subprocess.Popen(
                [*_command(runtime), "serve", json.dumps(about)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=(shared.fileno(),),
                env=_environment(threads),
            )
        weakref.finalize(self, _end, self._process)
        greeting = self._answer()
        self.version, self.device = str(greeting["version"]), str(greeting["device"])

    def infer(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Outputs for a batch, image by image."""
        return image_by_image(self._one, images)

    def _one(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        self._image[...] = image
        self._ask(b"\n")
        return tuple(self._outputs)

    def spent(self) -> Spent:
        """What the process has cost so far."""
        return Spent(**self._ask(b"spent\n"))

    def _ask(self, line: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the answer below says how the process ended
            self._process.stdin.write(line)
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise NotPossible(f"{self._name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return f"its process ended with status {status}: {next(filter(None, reversed(lines)), '')[:300]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.kill()
    process.wait()


def _make(runtime: ApartName, files: ModelFiles, precision: Precision, parts: Parts) -> None:
    source = _source(runtime, files, precision, parts[0])
    width, height = read_card(files.onnx).input_size
    about = {
        "source": str(source.resolve()),
        "target": str(parts[0].resolve()),
        "image": [1, 3, height, width],
    }
    done = subprocess.run(
        [*_command(runtime), "convert", json.dumps(about)],
        capture_output=True,
        text=True,
        cwd=parts[0].parent,
        env=_environment(1),
        check=False,
    )
    if done.returncode:
        lines: Sequence[str] = done.stderr.strip().splitlines() or ["no reason given"]
        raise RuntimeError(f"its process ended with status {done.returncode}: {lines[-1]}")


def _source(runtime: ApartName, files: ModelFiles, precision: Precision, target: Path) -> Path:
    """What the converter reads: the ONNX file, or the network as PyTorch exports it, beside `target`."""
    if KINDS[runtime].from_onnx:
        return onnx_form(files, "fp32")
    from rtmpose.deploy.runtimes.torchscript import save_exported

    program = target.with_name("network.pt2")
    save_exported(files, KINDS[runtime].name, program)
    return program


def python_of(runtime: ApartName) -> Path:
    """The interpreter of the runtime's environment; NotPossible where it is not set up."""
    python = environment_python(runtime)
    if python is None:
        room = ENVIRONMENTS[runtime].gigabytes
        raise NotPossible(
            f"{KINDS[runtime].name} needs an environment of its own ({room:g} GB), which is not set up; "
            f"`rtmpose setup-runtime {runtime}` does that"
        )
    return python


def _command(runtime: ApartName) -> list[str]:
    """Isolated: of this environment's packages, and of the modules beside the program, that one sees none."""
    return [str(python_of(runtime)), "-I", str(PROGRAM), runtime]


def _environment(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(threads)) | {"TF_CPP_MIN_LOG_LEVEL": "3"}
