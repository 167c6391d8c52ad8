"""Freed memory is kept for the next tensors; in a process of its own, since it cannot be undone."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from rtmpose.training.malloc import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)  # 40 MB: above 32 MiB glibc always asks the system
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory(torch.device("cuda"))
plain = faults()
keep_freed_memory(torch.device("cpu"))
kept = [faults() for _ in range(4)][-1]  # the heap grows at first
print(plain, kept)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_is_kept_on_a_cpu_alone() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    plain, kept = map(int, done.stdout.split())
    assert plain > 1000 and kept < plain / 20
