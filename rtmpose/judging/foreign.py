"""Files of models that others trained, run as they come: ONNX or TFLite, arrays in and arrays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.files import UserError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Foreign:
    """An open file with one input."""

    path: Path
    shape: tuple[int, ...]  # of the input; 0 where the file leaves it open
    dtype: np.dtype[Any]  # of the input
    run: Callable[[Array], list[Array]]

    def square(self) -> int:
        """The side px of a square picture input (1, side, side, 3); UserError where it is none."""
        if len(self.shape) != 4 or self.shape[3] != 3 or self.shape[1] != self.shape[2] or not self.shape[1]:
            raise UserError(
                f"{self.path}: its input is {self.shape}, not a square picture (1, side, side, 3); "
                "give the model's own file"
            )
        return self.shape[1]


def open_foreign(path: Path, threads: int = 1) -> Foreign:
    """Open an `.onnx` or `.tflite` file.

    UserError where it is not there, is neither, does not open, or has not exactly one input.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a model's ONNX or TFLite file")
    if path.suffix == ".onnx":
        return _onnx(path, threads)
    if path.suffix == ".tflite":
        return _tflite(path, threads)
    raise UserError(f"{path}: is neither .onnx nor .tflite; convert it to one of them")


def _onnx(path: Path, threads: int) -> Foreign:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each cause
        raise UserError(f"{path}: ONNX Runtime cannot open it: {str(error).splitlines()[0]}") from error
    inputs = session.get_inputs()
    _one_input(path, [given.name for given in inputs])
    given = inputs[0]
    shape = tuple(side if isinstance(side, int) else 0 for side in given.shape)
    kinds = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8}
    if given.type not in kinds:
        raise UserError(f"{path}: its input is {given.type}; a picture is float, int32 or uint8")
    return Foreign(
        path, shape, np.dtype(kinds[given.type]), lambda array: list(session.run(None, {given.name: array}))
    )


def _tflite(path: Path, threads: int) -> Foreign:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(
            f"{path}: TFLite files need LiteRT; pip install ai-edge-litert, or give an ONNX file"
        ) from None
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: LiteRT cannot open it: {str(error).splitlines()[0]}") from error
    inputs = interpreter.get_input_details()
    _one_input(path, [each["name"] for each in inputs])

    def run(array: Array) -> list[Array]:
        interpreter.set_tensor(inputs[0]["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]

    shape = tuple(int(side) for side in inputs[0]["shape"])
    return Foreign(path, shape, np.dtype(inputs[0]["dtype"]), run)


def _one_input(path: Path, names: list[str]) -> None:
    if len(names) != 1:
        raise UserError(
            f"{path}: has {len(names)} inputs ({', '.join(names)}); a pose model has one, the picture"
        )
