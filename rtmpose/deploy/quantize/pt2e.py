"""Int8 for ExecuTorch (.pte) and LiteRT (.tflite), made by a process in their own environments."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rtmpose.deploy.quantize.graph import HEAD
from rtmpose.files import UserError, destination, temporary_beside, writing

Apart = Literal["executorch", "litert"]
PROGRAM = Path(__file__).with_name("pt2e_program.py")


def quantize_apart(
    runtime: Apart,
    python: Path,
    network: nn.Module,
    inputs: NDArray[np.float32],
    path: Path,
    kept_float: Sequence[str] = (HEAD,),
) -> Path:
    """Write a network in int8 as `path`, which appears when it is complete.

    `python`: the interpreter of the runtime's environment; inputs: normalised float32 (N, 3, H, W) to
    calibrate on; `kept_float`: modules that stay in float. UserError with the process's last words.
    """
    target = destination(path)
    temporary = temporary_beside(target)
    with writing(path), tempfile.TemporaryDirectory(prefix="rtmpose-pt2e-") as folder:
        source, images = Path(folder, "network.pt2"), Path(folder, "inputs.npy")
        torch.export.save(torch.export.export(network.eval(), (torch.from_numpy(inputs[:1]),)), source)
        np.save(images, inputs)
        about = {"source": str(source), "inputs": str(images), "target": str(temporary.resolve())}
        command = [
            str(python),
            "-I",
            str(PROGRAM),
            runtime,
            json.dumps(about | {"kept_float": [*kept_float]}),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                words = next(iter(reversed(done.stderr.strip().splitlines())), "no reason given")
                raise UserError(f"{path}: {runtime} cannot quantise it (status {done.returncode}): {words}")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return path
