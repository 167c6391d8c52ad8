"""ncnn on the CPU: from the traced network through pnnx, not through ONNX, whose ReduceMax ncnn does not
know.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import ncnn
import numpy as np

from rtmpose.deploy.runtimes.base import (
    Infer,
    ModelFiles,
    NotPossible,
    Placement,
    Precision,
    Session,
    image_by_image,
    require_cpu,
    require_precision,
)
from rtmpose.deploy.runtimes.conversion import Conversion, Parts
from rtmpose.deploy.runtimes.onnxruntime import read_card

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def load(files: ModelFiles, precision: Precision, placement: Placement, batch: int) -> Session:
    """Open the converted network; fp16 is how weights and activations are stored, where the CPU can convert
    them, and x86 CPUs compute with them in fp32.
    """
    require_cpu("ncnn", placement)
    parts = convert(files, precision)
    infer = _open(parts, precision, placement.threads)
    device = "CPU" if precision == "fp32" else f"CPU, fp16 storage, {_arithmetic()}"
    return Session(lambda images: image_by_image(infer, images), ncnn.__version__, device)


def convert(files: ModelFiles, precision: Precision) -> Parts:
    """`*.ncnn.param` and `*.ncnn.bin`, made where they are missing or of another model."""
    require_precision("ncnn", precision, PRECISIONS)
    width, height = read_card(files.onnx).input_size

    def make(files: ModelFiles, precision: Precision, parts: Parts) -> None:
        _run_pnnx(files, precision, parts, (height, width))

    return Conversion(
        "ncnn",
        (".ncnn.param", ".ncnn.bin"),
        f"pnnx {ncnn.__version__}",
        make,
        lambda parts: _open(parts, precision, 1),
    ).converted(files, precision)


def _run_pnnx(files: ModelFiles, precision: Precision, parts: Parts, sides: tuple[int, int]) -> None:
    # Here, not above: both import torch, which the process that runs a converted network need not have.
    import pnnx

    from rtmpose.deploy.runtimes.torchscript import save_traced

    param, weights = parts
    program = param.with_name("network.pt")
    save_traced(files, "ncnn", program)
    settings = {
        "inputshape": f"[1,3,{sides[0]},{sides[1]}]f32",
        "fp16": str(int(precision == "fp16")),
        "ncnnparam": param.name,
        "ncnnbin": weights.name,
    }
    # What else it writes goes by the program's name, into the folder that is deleted afterwards.
    command = [pnnx.EXEC_PATH, program.name, *(f"{key}={value}" for key, value in settings.items())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=param.parent, check=False)
    if done.returncode:
        raise RuntimeError(f"pnnx ended with status {done.returncode}: {done.stderr.strip()[-200:]}")


def _open(parts: Parts, precision: Precision, threads: int) -> Infer:
    param, weights = parts
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, precision == "fp16")
    for option in ("use_bf16_packed", "use_bf16_storage"):
        setattr(net.opt, option, False)
    _load(net, param, weights)
    inputs, outputs = net.input_names(), net.output_names()
    if len(inputs) != 1:
        raise NotPossible(f"{param}: has {len(inputs)} inputs, the network has one")

    def infer(images: np.ndarray) -> tuple[np.ndarray, ...]:
        extractor = net.create_extractor()
        extractor.input(inputs[0], ncnn.Mat(np.ascontiguousarray(images[0])))
        found = []
        for name in outputs:
            status, output = extractor.extract(name)
            if status:
                raise RuntimeError(f"ncnn gave no {name} (status {status})")
            found.append(np.array(output)[None])
        return tuple(found)

    return infer


def _load(net: ncnn.Net, param: Path, weights: Path) -> None:
    for read, path in ((net.load_param, param), (net.load_model, weights)):
        if read(str(path)):
            raise NotPossible(f"{path}: ncnn cannot read it; it may lack one of the layers")


def _arithmetic() -> str:
    return "fp16 arithmetic" if ncnn.cpu_support_arm_asimdhp() else "fp32 arithmetic"
