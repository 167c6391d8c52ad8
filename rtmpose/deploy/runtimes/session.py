"""Opening a model in a runtime by name. Each runtime is imported when it is asked for."""

from __future__ import annotations

from rtmpose.deploy.runtimes.base import (
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    RuntimeName,
    Session,
)


def open_session(
    runtime: RuntimeName,
    files: ModelFiles,
    precision: Precision = "fp32",
    placement: Placement | None = None,
    batch: int = 1,
) -> Session:
    """Load the model into a runtime, by default on the CPU with one thread; `batch` is a hint, other sizes
    may be refused.

    Raises NotPossible when the runtime is not installed, cannot do this precision in this place, or ignores a
    setting.
    """
    where = placement or Placement()
    try:
        match runtime:
            case "pytorch":
                from rtmpose.deploy.runtimes import pytorch

                return pytorch.load(files, precision, where, batch)
            case "onnxruntime":
                from rtmpose.deploy.runtimes import onnxruntime

                return onnxruntime.load(files, precision, where, batch)
            case "openvino":
                from rtmpose.deploy.runtimes import openvino

                return openvino.load(files, precision, where, batch)
            case other:
                raise NotPossible(f"{other} cannot be opened here yet")
    except ImportError as error:
        raise NotPossible(f"not installed ({error})") from None
