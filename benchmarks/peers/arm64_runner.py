"""Runs exported files one image at a time, with numpy and ONNX Runtime alone: started by `arm64_parity.py`,
here and in an emulated process.

    python arm64_runner.py INPUTS OUTPUTS FILE.onnx [FILE.onnx ...]

INPUTS holds `<name of a file's input>.npy`, images in its first axis; OUTPUTS/<file's name>.npz gets the
outputs by their names. Prints what computed, and the seconds of one inference of each file, as one JSON
object.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

PROVIDER = "CPUExecutionProvider"


def run(path: Path, inputs: Path, outputs: Path) -> dict[str, Any]:
    """One file on all of its images; the providers in use and the mean seconds of an inference."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors alone
    session = ort.InferenceSession(str(path), options, providers=[PROVIDER])
    names = [value.name for value in session.get_outputs()]
    key = session.get_inputs()[0].name
    images = np.load(inputs / f"{key}.npy")
    began = time.perf_counter()
    found = [session.run(names, {key: image[None]}) for image in images]
    seconds = (time.perf_counter() - began) / len(images)
    values = [np.concatenate(rows) for rows in zip(*found, strict=True)]
    np.savez(outputs / f"{path.name}.npz", **dict(zip(names, values, strict=True)))
    return {"providers": session.get_providers(), "seconds": round(seconds, 4)}


def main() -> None:
    inputs, outputs, *files = map(Path, sys.argv[1:])
    said = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
        "files": {path.name: run(path, inputs, outputs) for path in files},
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
