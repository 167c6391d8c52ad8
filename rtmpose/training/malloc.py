"""How a process that trains on a CPU asks the system for memory."""

from __future__ import annotations

import ctypes

import torch

# Names and numbers of <malloc.h>; the values: tensors below 1 GiB come from the heap, which is never cut
# (-1), and a thread's part of it (64 MiB at most) is kept whole.
OPTIONS = {"M_MMAP_THRESHOLD": (-3, 1 << 30), "M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 64 << 20)}


def keep_freed_memory(device: torch.device) -> None:
    """Have glibc keep what tensors free for the next ones; without effect where `device` is no CPU or the C
    library another.

    Otherwise every update gives most of its memory back and gets it again as pages of zeros: tens of
    thousands of page faults, a tenth of its time, more with large batches. What the process holds at its peak
    grows little; it no longer shrinks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if device.type == "cpu" else None
    if mallopt is not None:
        for option, value in OPTIONS.values():
            mallopt(option, value)
