"""The program that a runtime's own environment runs: `python -I apart_program.py RUNTIME convert|serve JSON`.

It imports nothing of `rtmpose`, which is not installed there. `convert` writes `target` from `source`.
`serve` opens `model` and, for each empty line on stdin, computes the image in the shared memory; for the
line `spent` it tells what this process has cost. Its answers are lines of JSON, of which the first names
version and device.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], list[np.ndarray]]
RKNN_PLATFORM = "rk3588"
HEAVY = ("conv", "linear", "mm", "matmul")  # operators that must not be left to slow reference kernels


def convert_litert(about: dict[str, Any]) -> None:
    import litert_torch
    import torch

    litert_torch.convert(_exported(about["source"]), (torch.zeros(about["image"]),)).export(about["target"])


def open_litert(about: dict[str, Any]) -> tuple[Run, str, str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=about["model"], num_threads=about["threads"])
    interpreter.allocate_tensors()
    names = [each["op_name"] for each in interpreter._get_ops_details()]
    if "DELEGATE" not in names:
        raise RuntimeError("LiteRT does not use its XNNPACK delegate here")
    (taken,) = interpreter.get_input_details()
    given = sorted(interpreter.get_output_details(), key=lambda each: str(each["name"]))

    def run(image: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(taken["index"], image)
        interpreter.invoke()
        return [interpreter.get_tensor(each["index"]) for each in given]

    return run, version("ai-edge-litert"), "CPU, XNNPACK"


def convert_executorch(about: dict[str, Any]) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.load(about["source"])
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    nodes = lowered.exported_program().graph.nodes
    names = [str(node.target) for node in nodes if node.op == "call_function"]
    left = sorted({name for name in names if any(part in name for part in HEAVY)})
    if left:
        raise RuntimeError(f"XNNPACK does not take {', '.join(left)}")
    with open(about["target"], "wb") as file:
        lowered.to_executorch().write_to_file(file)


def open_executorch(about: dict[str, Any]) -> tuple[Run, str, str]:
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(about["threads"])
    method = Runtime.get().load_program(about["model"]).load_method("forward")

    def run(image: np.ndarray) -> list[np.ndarray]:
        return [output.numpy() for output in method.execute([torch.from_numpy(image)])]

    return run, version("executorch"), "CPU, XNNPACK"


def convert_rknn(about: dict[str, Any]) -> None:
    if _built_rknn(about["source"], about["image"]).export_rknn(about["target"]):
        raise RuntimeError("RKNN could not write the model")


def open_rknn(about: dict[str, Any]) -> tuple[Run, str, str]:
    from rknnlite.api import RKNNLite

    opened = RKNNLite()
    if opened.load_rknn(about["model"]):
        raise RuntimeError(f"RKNN cannot read {about['model']}")
    if opened.init_runtime():  # without a target it is the NPU of this board
        raise RuntimeError("RKNN cannot use this board's NPU; it needs its driver and librknnrt.so")

    def run(image: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] | None = opened.inference([image], data_type="float32", data_format="nchw")
        if outputs is None:
            raise RuntimeError("RKNN could not run the model")
        return outputs

    return run, version("rknn-toolkit-lite2"), f"NPU of {RKNN_PLATFORM}"


def _built_rknn(source: str, image: list[int]) -> Any:
    from rknn.api import RKNN

    built = RKNN(verbose=False)
    for failed in (
        built.config(target_platform=RKNN_PLATFORM),
        built.load_onnx(model=source, inputs=["input"], input_size_list=[image]),
        built.build(do_quantization=False),
    ):
        if failed:
            raise RuntimeError(f"RKNN cannot build {source} for {RKNN_PLATFORM}")
    return built


def _exported(source: str) -> Any:
    """PyTorch's exported program as a module; converters call eval() on it, which it refuses."""
    import torch

    module = torch.export.load(source).module()
    module.train = lambda mode=True: module  # type: ignore[method-assign]
    return module


CONVERTERS = {"litert": convert_litert, "executorch": convert_executorch, "rknn": convert_rknn}
OPENERS = {"litert": open_litert, "executorch": open_executorch, "rknn": open_rknn}


def serve(runtime: str, about: dict[str, Any]) -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print; the pipe is for answers alone
    shapes = [about["image"], *about["outputs"]]
    sizes = [int(np.prod(shape)) for shape in shapes]
    memory = np.frombuffer(mmap.mmap(about["memory"], 4 * sum(sizes)), np.float32)
    arrays = np.split(memory, np.cumsum(sizes)[:-1])
    image, *outputs = [part.reshape(shape) for part, shape in zip(arrays, shapes, strict=True)]
    run, release, device = OPENERS[runtime](about)
    answers.write(json.dumps({"version": release, "device": device}) + "\n")
    for line in sys.stdin:
        answer = _spent() if line.strip() == "spent" else _computed(run, image, outputs)
        answers.write(json.dumps(answer) + "\n")


def _spent() -> dict[str, float]:
    """The most memory that this process had, MB (10^6 bytes), and its CPU time, s."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, kiB elsewhere
    peak = float(most if sys.platform == "darwin" else most * 1024)
    with suppress(OSError):  # on Linux the figure above may be of the program that started this one
        with open("/proc/self/status") as status:
            told = [line.split()[1] for line in status if line.startswith("VmHWM:")]
        peak = int(told[0]) * 1024.0 if told else peak
    return {"peak_mb": peak / 1e6, "cpu_s": time.process_time()}


def _computed(run: Run, image: np.ndarray, outputs: list[np.ndarray]) -> dict[str, str]:
    found = run(image)
    shapes, expected = ([tuple(part.shape) for part in parts] for parts in (found, outputs))
    if shapes != expected:
        return {"error": f"gave outputs {shapes}, by the model card they are {expected}"}
    for place, part in zip(outputs, found, strict=True):
        place[...] = part
    return {}


if __name__ == "__main__":
    _, name, task, text = sys.argv
    if task == "serve":
        serve(name, json.loads(text))
    else:
        CONVERTERS[name](json.loads(text))
