"""CoreML: converted anywhere from the traced network, run on macOS alone."""

from __future__ import annotations

import contextlib
import io
import logging
import platform
from typing import Any

import numpy as np

from rtmpose.deploy.runtimes.base import (
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    image_by_image,
    require_precision,
)
from rtmpose.deploy.runtimes.conversion import Conversion, Parts
from rtmpose.deploy.runtimes.onnxruntime import read_card

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Open the converted package. CoreML divides it among the CPU, the GPU and the Neural Engine as it sees
    fit, with `gpu` among the first two; on how many threads is its own choice.
    """
    require_precision("CoreML", precision, PRECISIONS)
    if platform.system() != "Darwin":
        raise NotPossible(
            f"not run here: CoreML predicts on macOS only, this is {platform.system()}; "
            f"`rtmpose convert-runtime {files.onnx} --runtime coreml --precision {precision} --weights "
            f"{files.weights or 'FILE'}` writes the package here"
        )
    coremltools = _coremltools()
    (package,) = convert(files, precision)
    units = "ALL" if placement.device == "cpu" else "CPU_AND_GPU"
    model = coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit[units])
    outputs = read_card(files.onnx).outputs

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        found = model.predict({"input": images})
        return tuple(np.asarray(found[name], np.float32) for name in outputs)

    return Session(
        lambda images: image_by_image(infer, images),
        f"{coremltools.__version__}, macOS {platform.mac_ver()[0]}",
        units,
    )


def convert(files: ModelFiles, precision: Precision) -> Parts:
    """`*.mlpackage`, an ML program for iOS 16 and macOS 13 or newer, made where it is missing or of another
    model.
    """
    require_precision("CoreML", precision, PRECISIONS)
    version = _coremltools().__version__
    return Conversion("coreml", (".mlpackage",), f"coremltools {version}", _make).converted(files, precision)


def _make(files: ModelFiles, precision: Precision, parts: Parts) -> None:
    from rtmpose.deploy.runtimes.torchscript import traced

    coremltools = _coremltools()
    card = read_card(files.onnx)
    width, height = card.input_size
    kind = coremltools.precision.FLOAT16 if precision == "fp16" else coremltools.precision.FLOAT32
    with contextlib.redirect_stderr(io.StringIO()):  # bars of progress
        model = coremltools.convert(
            traced(files, "CoreML"),
            inputs=[coremltools.TensorType("input", (1, 3, height, width), dtype=np.float32)],
            outputs=[coremltools.TensorType(name, dtype=np.float32) for name in card.outputs],
            convert_to="mlprogram",
            compute_precision=kind,
            minimum_deployment_target=coremltools.target.iOS16,
        )
    model.user_defined_metadata.update(card.properties())
    _refuse_unlike(model, files)
    model.save(str(parts[0]))


def _refuse_unlike(model: Any, files: ModelFiles) -> None:
    """UserError where the package's names or sizes are not those of the card."""
    description = model.get_spec().description
    shapes = {
        value.name: list(value.type.multiArrayType.shape)
        for value in (*description.input, *description.output)
    }
    read_card(files.onnx).refuse_unlike(shapes, files.onnx)


def _coremltools() -> Any:
    """The package, without what it says on import: which other packages it was not tested with."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):
        import coremltools

    return coremltools
