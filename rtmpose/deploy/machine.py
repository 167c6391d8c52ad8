"""Which machine a figure was measured on, and with which versions."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rtmpose.deploy.runtimes.base import bf16_instructions, cpu_flags, cpu_name


def machine() -> dict[str, Any]:
    """The CPU, its cores and relevant instruction sets, the system, and the versions measured."""
    versions = {}
    for package in ("torch", "onnxruntime", "openvino", "onnx", "numpy"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    relevant = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "sve"} & cpu_flags()
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "cores_online": os.cpu_count(),
        "flags": sorted(relevant | bf16_instructions()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }
