"""A detector's graph in a runtime, with a number of CPU threads that is set on purpose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rtmpose.detection.graph import Graph
from rtmpose.files import UserError, one_line

RuntimeName = Literal["onnxruntime", "openvino"]
#: The input (1, 3, h, w) float32 → the outputs, in the file's order.
Run = Callable[[NDArray[np.float32]], list[NDArray[Any]]]
FIX = "fetch or export it"


def open_graph(graph: Graph, size: tuple[int, int], runtime: str, threads: int) -> Run:
    """The graph, ready to run on images of `size` (w, h) px.

    Raises UserError for a runtime that is none of `RuntimeName`, a number of threads below 1, and a file that
    the runtime does not take.
    """
    if threads < 1:
        raise UserError(f"detector threads {threads}: give 1 or more")
    match runtime:
        case "onnxruntime":
            run = _onnxruntime(graph, threads)
        case "openvino":
            run = _openvino(graph, size, threads)
        case _:
            raise UserError(f"detector runtime {runtime!r}: give one of {', '.join(get_args(RuntimeName))}")

    def safely(images: NDArray[np.float32]) -> list[NDArray[Any]]:
        try:
            return run(images.astype(np.float16) if graph.half else images)
        except Exception as error:  # each runtime's classes of its own
            width, height = size
            raise UserError(
                f"{graph.path}: {runtime} cannot run it at {width}x{height} px; {FIX} again "
                f"({one_line(error)[:200]})"
            ) from None

    return safely


def _onnxruntime(graph: Graph, threads: int) -> Run:
    from rtmpose.deploy.runtimes.onnxruntime import open_file

    session = open_file(graph.path, threads, FIX, spinning=False)  # poses are computed meanwhile

    def run(images: NDArray[Any]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = session.run(graph.outputs, {graph.input: images})
        return found

    return run


def _openvino(graph: Graph, size: tuple[int, int], threads: int) -> Run:
    import openvino as ov

    core = ov.Core()
    # Set on purpose: on some CPUs OpenVINO would choose another precision by itself.
    wanted: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": ov.Type.f32,
    }
    try:
        model = core.read_model(str(graph.path))
        model.reshape({graph.input: [1, 3, size[1], size[0]]})
        compiled = core.compile_model(model, "CPU", wanted)
        outputs = [compiled.output(name) for name in graph.outputs]
    except RuntimeError as error:
        raise UserError(
            f"{graph.path}: OpenVINO cannot open it; take onnxruntime, or {FIX} again "
            f"({one_line(error)[:200]})"
        ) from None
    request, alone = compiled.create_infer_request(), threading.Lock()

    def run(images: NDArray[Any]) -> list[NDArray[Any]]:
        with alone:  # a request computes one image at a time, into buffers that it keeps
            found = request.infer({graph.input: images}, share_inputs=True)
            return [np.array(found[output]) for output in outputs]

    return run
