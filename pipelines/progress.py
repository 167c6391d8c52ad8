"""The one progress line of a stage: written over itself on a terminal, every ten seconds into a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

LOG_EVERY = 10.0  # seconds


def progress_line(label: str, unit: str) -> Callable[[int, int], None]:
    """A callback (done, total) that says how far `label` is, at what rate, and how long it still takes."""
    start = shown = time.perf_counter()

    def show(done: int, total: int) -> None:
        nonlocal shown
        now, terminal = time.perf_counter(), sys.stdout.isatty()
        if not terminal and now - shown < LOG_EVERY:
            return
        shown = now
        rate = done / max(now - start, 1e-6)
        left = (total - done) / max(rate, 1e-6)
        text = f"{label} {done}/{total} {unit}, {rate:.0f} {unit}/s, {left:.0f} s left"
        print(
            f"\r\033[K{text}" if terminal else text, end="" if terminal and done < total else "\n", flush=True
        )

    return show
