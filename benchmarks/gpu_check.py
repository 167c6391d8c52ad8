"""All that needs an NVIDIA GPU, in one command of at most ten minutes: `make gpu-check`.

    python benchmarks/gpu_check.py [--out benchmarks/gpu_check.json] [--only NAME ...] [--rows 256]

What is checked: batch norm synchronised between processes against one process with the whole batch; training
steps of RTMPose-m in bf16, eager and compiled, beside the usual way in fp16 with a loss scaler; how much of
the time updates wait for data; the exported file in ONNX Runtime on CUDA and in TensorRT, beside PyTorch.
PyTorch (2.11 or later) is enough for the first two; a check that needs a package which is not there is left
out, and says so. Without a GPU one line says that nothing was checked, and the exit code is 0; it is 1 where
a check failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

try:
    import torch
except ModuleNotFoundError:
    print("gpu-check: this Python has no PyTorch; pip install torch, 2.11 or later, or run `make venv` first")
    sys.exit(2)

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # nothing needs to be installed

from gpu.batch_norm import sync_bn  # noqa: E402
from gpu.exported import onnxruntime_cuda, tensorrt  # noqa: E402
from gpu.scale import LeftOut, Result, Scale  # noqa: E402
from gpu.training import data_wait, train_step  # noqa: E402

from rtmpose.files import write_atomic  # noqa: E402

SECONDS = 480.0  # no check begins later; the longest takes two minutes
OURS = ("rtmpose", "gpu", "peers")


CHECKS: dict[str, Callable[[torch.device, Scale], Result]] = {
    check.__name__: check for check in (sync_bn, train_step, data_wait, onnxruntime_cuda, tensorrt)
}


def checked(name: str, device: torch.device, scale: Scale, left: float) -> Result:
    """What a check found, or why it was left out, or how it failed."""
    if left <= 0:
        return {"left_out": "the time was up"}
    began = time.perf_counter()
    try:
        found = CHECKS[name](device, scale)
    except LeftOut as reason:
        return {"left_out": " ".join(str(reason).split())}
    except Exception as error:  # the others are still to be made
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in OURS:
            return {"left_out": str(error)}
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:1000]}"}
    return found | {"seconds": round(time.perf_counter() - began, 1)}


def report(names: Iterable[str], device: torch.device, scale: Scale) -> Result:
    """All checks, printed as they end."""
    began, checks = time.perf_counter(), {}
    for name in names:
        print(name, flush=True)
        checks[name] = checked(name, device, scale, SECONDS - (time.perf_counter() - began))
        print(f"  {json.dumps(checks[name])}", flush=True)
    took = round(time.perf_counter() - began, 1)
    return {"name": "gpu_check", "device": about(device), "scale": asdict(scale), "seconds": took, **checks}


def about(device: torch.device) -> Result:
    facts: Result = {"torch": torch.__version__, "type": device.type}
    if device.type != "cuda":
        return facts
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return facts | {
        "name": torch.cuda.get_device_name(device),
        "count": torch.cuda.device_count(),
        "capability": capability,
        "cuda": torch.version.cuda,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu_check.json")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--rows", type=int, default=Scale.rows, help="samples of a training batch")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu-check: this machine has no NVIDIA GPU that PyTorch sees; nothing was checked")
        return 0
    found = report(options.only, torch.device("cuda"), Scale(rows=options.rows))
    write_atomic(options.out, json.dumps(found, indent=2) + "\n")
    print(f"{options.out}\n{json.dumps(found)}")
    return int(any("failed" in found[name] for name in options.only))


if __name__ == "__main__":
    sys.exit(main())
