"""Int8 for ExecuTorch (.pte) and LiteRT (.tflite), made by a process in their own environments."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtmpose.deploy.environments import ENVIRONMENTS
from rtmpose.deploy.quantize.graph import HEAD
from rtmpose.deploy.runtimes.apart import KINDS, python_of
from rtmpose.deploy.runtimes.base import ModelFiles, Precision
from rtmpose.deploy.runtimes.conversion import Conversion, Parts
from rtmpose.deploy.runtimes.torchscript import save_exported
from rtmpose.files import sha256_of

Apart = Literal["executorch", "litert"]
APART: tuple[Apart, ...] = ("executorch", "litert")
RECIPES: dict[Apart, str] = {
    "executorch": "PT2E post-training, per channel",
    "litert": "AI Edge Quantizer post-training, per channel",
}
PROGRAM = Path(__file__).with_name("apart_program.py")


def quantize_apart(
    runtime: Apart,
    files: ModelFiles,
    inputs: NDArray[np.float32],
    described: str,
    kept_float: Sequence[str] = (),
) -> Path:
    """Write the network in int8 beside the exported file, unless it lies there already; its head and the
    modules `kept_float`, such as `backbone.stage4.2`, stay in float.

    inputs: normalised float32 (N, 3, H, W) to calibrate on; `described`: how and on what, so that a file made
    otherwise is made anew. NotPossible without the weights or the runtime's environment, and with the
    process's last words where it fails; UserError where the disk does not take the file.
    """
    python = python_of(runtime)
    make = partial(_make, runtime, python, inputs, (HEAD, *kept_float))
    packages = " ".join(word for step in ENVIRONMENTS[runtime].steps for word in step)
    how = f"{packages}; program {sha256_of(PROGRAM)}; {described}"
    return Conversion(runtime, (KINDS[runtime].ending,), how, make).converted(files, "int8")[0]


def _make(
    runtime: Apart,
    python: Path,
    inputs: NDArray[np.float32],
    kept_float: Sequence[str],
    files: ModelFiles,
    precision: Precision,
    parts: Parts,
) -> None:
    source, images = (parts[0].with_name(name) for name in ("network.pt2", "inputs.npy"))
    save_exported(files, KINDS[runtime].name, source)
    np.save(images, inputs)
    about: dict[str, object] = {"source": str(source), "inputs": str(images), "target": str(parts[0])}
    about |= {"kept_float": [*kept_float]}
    command = [str(python), "-I", str(PROGRAM), runtime, json.dumps(about)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = next(iter(reversed(done.stderr.strip().splitlines())), "no reason given")
        raise RuntimeError(f"its process ended with status {done.returncode}: {words}")
