"""Which machine a figure was measured on, and with which versions."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rtmpose.machine import cores, cpu_kind, cpu_name, relevant_flags

PACKAGES = (
    "torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "ncnn", "MNN", "onnx",
    "numpy",
)  # fmt: skip


def gpu_name() -> str:
    """Of the GPU that a target with `device: gpu` computes on, as PyTorch names it; empty without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def machine() -> dict[str, Any]:
    """The CPU, its kind, architecture, cores and relevant instruction sets, the system, and the versions
    measured.
    """
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "cpu": cpu_name(),
        "kind": cpu_kind(),
        "architecture": platform.machine(),
        "cores": cores(),
        "cores_online": os.cpu_count(),
        "flags": relevant_flags(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }
