"""What this machine computes with: its CPU, the instruction sets that matter, and the device that trains.

Nothing here imports torch before a GPU is asked about, so that the command line stays quick.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rtmpose.files import UserError

# The instruction sets whose presence changes a measured speed, as the Linux kernel names them.
RELEVANT = (
    "amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2",
    "bf16", "i8mm", "sve", "asimd",
)  # fmt: skip
PLAIN = ("avx512f", "avx2", "sve", "asimd")  # the base of the others: named only where it is all there is
DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})  # add 8-bit products in 32 bits
BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # products of bfloat16 numbers; the last one is ARM's

# The values of ONEDNN_MAX_CPU_ISA, from the lowest, up to the last one that hides an instruction set named
# above; each hides those that come later.
CAP_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
CAPS = (
    "sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni", "avx512_core_bf16",
    "avx512_core_fp16", "avx10_1_512",
)  # fmt: skip
LEAST_CAP = {
    "avx2": "avx2",
    "avx_vnni": "avx2_vnni",
    "avx512f": "avx512_core",
    "avx512_vnni": "avx512_core_vnni",
    "avx512_bf16": "avx512_core_bf16",
}


@dataclass(frozen=True)
class Device:
    """What a worker trains on: its name, such as "AMD EPYC", what it can do that matters, such as
    "avx512_bf16, avx512_vnni" or "CUDA 9.0", and whether it has bf16 instructions of its own.
    """

    name: str
    kind: str
    bf16: bool
    emulated: str = ""  # what bf16 costs here where it is emulated, beside fp32
    on_gpu: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"


def training_device(on_gpu: bool) -> Device:
    """The device that trains on this machine: its CPU, or all of its visible GPUs taken together.

    UserError where there is no GPU.
    """
    if on_gpu:
        return _gpus()
    if bf16_instructions():
        return Device(cpu_name(), cpu_kind(), True)
    # Measured on a training step of RTMPose-t: oneDNN converts with AVX-512, and below it has reference code.
    cost = "about twice slower" if "avx512f" in usable_flags() else "about 35 times slower"
    return Device(cpu_name(), cpu_kind(), False, f"{cost} than fp32")


def _gpus() -> Device:
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "params.yaml: hardware.gpus_per_worker: this machine has no CUDA device; set it to 0 "
            "(hardware=cpu does)"
        )
    found = range(torch.cuda.device_count())
    names = sorted({torch.cuda.get_device_name(index) for index in found})
    if torch.version.hip is not None:
        return Device(" and ".join(names), f"ROCm {torch.version.hip}", True, on_gpu=True)
    lowest = min(torch.cuda.get_device_capability(index) for index in found)
    # Before Ampere (8.0) CUDA computes bf16 products as float32 with conversions around them.
    kind, native = f"CUDA {lowest[0]}.{lowest[1]}", lowest >= (8, 0)
    return Device(" and ".join(names), kind, native, "" if native else "slower than fp32", on_gpu=True)


def bf16_instructions() -> frozenset[str]:
    """Which of the bfloat16 instruction sets this CPU has and oneDNN may use."""
    return usable_flags() & BF16


def needs_reduced_range() -> bool:
    """Whether this CPU saturates sums of 8-bit products in 16 bits, so that weights of int8 files may have
    only 7: x86 without VNNI.
    """
    return platform.machine() in ("x86_64", "AMD64") and not cpu_flags() & DOT_PRODUCTS


def cpu_kind() -> str:
    """The CPU's instruction sets that a measured speed depends on, such as "avx512_bf16, avx512_vnni" or
    "avx2"; where ONEDNN_MAX_CPU_ISA hides some, it says so.
    """
    flags = usable_flags()
    special = [name for name in RELEVANT if name in flags and name not in PLAIN]
    plain = [name for name in PLAIN if name in flags]
    kind = ", ".join(special or plain[:1]) or platform.machine()
    return f"{kind}, ONEDNN_MAX_CPU_ISA={cap.upper()}" if (cap := _cap()) else kind


def cpu_line() -> str:
    """The CPU in one line, as a benchmark prints it: its name, the cores this process may use, its kind."""
    return f"{cpu_name()}, {cores()} cores, {cpu_kind()}"


def relevant_flags() -> list[str]:
    """All instruction sets of this CPU that matter here and that oneDNN may use."""
    flags = usable_flags()
    return sorted(name for name in RELEVANT if name in flags)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_flags() -> frozenset[str]:
    """The CPU's instruction sets, without those that ONEDNN_MAX_CPU_ISA keeps oneDNN from using."""
    cap = _cap()
    if cap is None:
        return cpu_flags()
    allowed = CAPS[: CAPS.index(cap) + 1]
    hidden = {flag for flag, least in LEAST_CAP.items() if least not in allowed} | {"amx_bf16", "amx_int8"}
    return cpu_flags() - hidden


def _cap() -> str | None:
    """The value of ONEDNN_MAX_CPU_ISA where it hides instruction sets of this CPU."""
    values = (os.environ.get(name, "").lower() for name in CAP_VARIABLES)
    cap = next((value for value in values if value), "")
    return cap if cap in CAPS and platform.machine() in ("x86_64", "AMD64") else None


@cache
def cpu_flags() -> frozenset[str]:
    """The instruction sets that the Linux kernel reports for this CPU; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        word for line in lines if line.startswith(("flags", "Features")) for word in line.split()[2:]
    )


@cache
def cpu_name() -> str:
    """The CPU's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
