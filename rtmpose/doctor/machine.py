"""What this machine is: CPU, memory, disk, GPU, and whether the packages are those that are pinned."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rtmpose.checkout import code_root
from rtmpose.doctor.child import ERROR
from rtmpose.doctor.finding import Finding, lack, note
from rtmpose.machine import bf16_instructions, cores, cpu_kind, cpu_name

PIN = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?==([\w.+!-]+)")
OLDEST = (3, 11)
FEW_GB = 2.0  # of free memory: a stage with PyTorch and Ray needs about that
SHOWN = 3  # differing packages that are named


def python_and_packages() -> Iterator[Finding]:
    """The interpreter, and whether what is installed is what pyproject.toml pins."""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < OLDEST:
        yield lack("Python", f"{found} is too old", "install Python 3.11 or newer, then `make venv`")
    else:
        yield Finding("Python", found)
    root = code_root()
    if root is None:
        return
    pinned, wrong = pins(root / "pyproject.toml"), []
    for name, wanted in pinned.items():
        try:
            if (held := version(name).partition("+")[0]) != wanted:
                wrong.append(f"{name} {held} instead of {wanted}")
        except PackageNotFoundError:
            yield lack("packages", f"{name}=={wanted} is not installed", "make venv")
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        yield note("packages", f"other versions than pinned: {', '.join(wrong[:SHOWN])}{more}", "make venv")
    else:
        yield Finding("packages", f"{len(pinned)} pinned")


def pins(pyproject: Path) -> dict[str, str]:
    """The packages that a pyproject.toml pins for everybody, with their versions."""
    listed = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    return {match[1]: match[2] for text in listed if (match := PIN.match(text))}


def cpu() -> Iterator[Finding]:
    """The CPU, the cores this process may use, and what its instruction sets mean for training."""
    precision = "trains in bf16" if bf16_instructions() else "trains in float32"
    yield Finding("CPU", f"{cpu_name()}, {cores()} cores, {cpu_kind()}: {precision}")


def memory() -> Iterator[Finding]:
    """Memory that is there and that is free, in GB; of a container its own limit."""
    import psutil

    held = psutil.virtual_memory()
    total, free = held.total / 1e9, held.available / 1e9
    limit = container_limit()
    inside = f", of which this container may take {limit:.1f} GB" if limit and limit < total else ""
    found = f"{total:.1f} GB, {free:.1f} GB free{inside}"
    if min(free, limit or free) < FEW_GB:
        yield note(
            "memory", found, "end what holds it, or lower hardware.workers and hardware.loader_workers"
        )
    else:
        yield Finding("memory", found)


def container_limit(path: Path = Path("/sys/fs/cgroup/memory.max")) -> float | None:
    """The memory limit of the control group that this process is in, in GB; None without one."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) / 1e9 if text.isdecimal() else None


def disk(folder: Path) -> Iterator[Finding]:
    """Room on the disk of a folder, in GB."""
    yield Finding("disk", f"{free_gb(folder):.1f} GB free at {folder}")


def free_gb(folder: Path) -> float:
    """Free room where a folder is or will be, in GB."""
    return shutil.disk_usage(existing(folder)).free / 1e9


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    absolute = path.absolute()
    return next(each for each in (absolute, *absolute.parents) if each.exists())


def gpu(answer: Mapping[str, Any]) -> Iterator[Finding]:
    """PyTorch and the GPUs that it sees, from the answer of the probe `torch`."""
    if ERROR in answer:
        yield lack("PyTorch", f"cannot be used: {answer[ERROR]}", "make venv")
        return
    built = f"built for {answer['build']}" if answer["build"] else "built for the CPU alone"
    yield Finding("PyTorch", f"{answer['version']}, {built}")
    if not answer["gpus"]:
        yield note("GPU", f"none{': ' + answer['why'] if answer['why'] else ''}")
    for each in answer["gpus"]:
        yield Finding(
            "GPU", f"{each['name']}, {each['gb']:.0f} GB, compute {each['kind']}, driver {answer['driver']}"
        )
