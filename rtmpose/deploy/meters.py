"""What a process of its own costs beside time: memory, and energy where the platform tells it."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
STATUS = Path("/proc/self/status")
MB = 1e6


def peak_memory_mb(status: Path = STATUS) -> float:
    """The most memory that this process ever had resident, MB, shared libraries included."""
    if status.is_file():
        lines = status.read_text().splitlines()
        found = next((line for line in lines if line.startswith("VmHWM:")), None)
        if found is not None:  # some sandboxes leave it out
            return int(found.split()[1]) * 1024 / MB
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / MB if sys.platform == "darwin" else most * 1024 / MB  # bytes on macOS, kiB elsewhere


def gpu_memory_mb() -> float | None:
    """What this process holds of the GPUs' memory now, MB, by NVML; None where that does not tell."""
    pynvml, handles = _nvml()
    found = [
        process.usedGpuMemory
        for handle in handles
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        if process.pid == os.getpid() and process.usedGpuMemory is not None
    ]
    return sum(found) / MB if found else None


@dataclass(frozen=True)
class Counter:
    """A count of joules that only grows, until it starts anew at `wraps` (None: never)."""

    name: str
    read: Callable[[], float]
    wraps: float | None = None

    def since(self, before: float) -> float:
        """Joules since it read `before`; at most one new start lies in between."""
        spent = self.read() - before
        return spent if spent >= 0 or self.wraps is None else spent + self.wraps


def energy_counters(powercap: Path = POWERCAP) -> tuple[list[Counter], str | None]:
    """The counters of this machine's processors and GPUs, and where there are none, why.

    They count the whole machine: what other programs do is in them.
    """
    packages, refused = _packages(powercap)
    counters = packages + _gpu_counters()
    if counters:
        return counters, None
    if refused:
        return [], f"{refused} can be read by root only"
    return [], f"{powercap} has no counter of a processor, and NVML names no GPU"


def _packages(powercap: Path) -> tuple[list[Counter], Path | None]:
    """Linux's counters of whole processors (RAPL); those of their parts are in them. And one that this user
    may not read.
    """
    found: list[Counter] = []
    refused = None
    for folder in sorted(powercap.glob("*-rapl:*")):
        energy, most = folder / "energy_uj", folder / "max_energy_range_uj"
        if folder.name.count(":") > 1 or not energy.is_file():
            continue
        try:
            energy.read_text()
        except OSError:
            refused = energy
            continue
        wraps = _joules(most) if most.is_file() else None
        found.append(Counter(folder.name, partial(_joules, energy), wraps))
    return found, refused


def _joules(path: Path) -> float:
    """What a file holds in microjoules."""
    return int(path.read_text()) / 1e6


def _gpu_counters() -> list[Counter]:
    """NVML's counters, in GPUs from Volta on."""
    pynvml, handles = _nvml()
    found = []
    for number, handle in enumerate(handles):
        with suppress(pynvml.NVMLError):
            _gpu_joules(pynvml, handle)
            found.append(Counter(f"gpu{number}", partial(_gpu_joules, pynvml, handle)))
    return found


def _gpu_joules(pynvml: Any, handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def _nvml() -> tuple[Any, list[Any]]:
    """NVIDIA's management library and its GPUs; none where package or driver are missing."""
    try:
        import pynvml
    except ImportError:
        return None, []
    try:
        pynvml.nvmlInit()
        return pynvml, [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
    except pynvml.NVMLError:
        return pynvml, []
