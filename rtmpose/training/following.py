"""A run as people see it: one line while it runs, curves as CSV when it is done. Both come from its log."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtmpose.files import write_csv
from rtmpose.training.checkpoint import LOG, WARNINGS, read_log


def status_line(stage: str, line: dict[str, Any]) -> str:
    """One line for people: position, loss, the best AP so far, rates, memory, time left, and what
    went wrong.
    """
    if "AP" in line:
        error = (
            f", error {line['error']:.3f} (mean pose {line['mean_pose_error']:.3f})"
            if "error" in line
            else ""
        )
        ap = f"AP {line['AP']:.3f} on the tuning split (best {line['best_AP']:.3f})"
        return f"{stage:9} step {line['step']:6d}  {ap}{error}"
    minutes, seconds = divmod(int(line["seconds_left"]), 60)
    best = f"AP {line['best_AP']:.3f}" if line["best_AP"] >= 0 else "AP -"
    cuda = f" + CUDA {line['cuda_gb']:.1f}" if "cuda_gb" in line else ""
    wrong = "".join(
        f"  {line[key]} {key.replace('_', ' ')}"
        for key in ("damaged_samples", "skipped_updates")
        if line[key]
    )
    return (
        f"{stage:9} step {line['step']:6d}/{line['steps']}  epoch {line['epoch']:.2f}  loss "
        f"{line['loss']:.5f}  {best}  "
        f"lr {line['lr']:.2e}  grad {line['grad_norm']:.2g}  {line['samples_per_s']:.0f} samples/s  "
        f"data-wait {line['data_wait']:.0%}  {line['memory_gb']:.1f}{cuda} GB  {minutes}m{seconds:02d}s "
        f"left{wrong}"
    )


@contextmanager
def following(folder: Path, stage: str, every: float = 10.0) -> Iterator[None]:
    """Print the store's log while the block runs: one rewritten line on a terminal, a line every `every`
    seconds else.
    """
    done = threading.Event()
    thread = threading.Thread(target=_follow, args=(folder, stage, every, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class _Tail:
    """What a file gains from now on, in whole lines."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, path.stat().st_size if path.exists() else 0

    def lines(self) -> list[str]:
        gained = self.path.read_bytes()[self.offset :] if self.path.exists() else b""
        whole = gained[: gained.rfind(b"\n") + 1]  # the writer may be inside a line
        self.offset += len(whole)
        return whole.decode().splitlines()


def _follow(folder: Path, stage: str, every: float, done: threading.Event) -> None:
    terminal = sys.stdout.isatty()
    before, after = ("\r\x1b[K", "") if terminal else ("", "\n")
    log, warnings = _Tail(folder / LOG), _Tail(folder / WARNINGS)
    ended = False
    while not ended:
        ended = done.wait(0.5 if terminal else every)
        for text in warnings.lines():
            print(f"{before}warning: {text}", flush=True)
        lines = [json.loads(line) for line in log.lines() if line.endswith("}")]
        for line in lines[:-1]:
            if "AP" in line:
                print(before + status_line(stage, line), flush=True)
        if lines:
            print(
                before + status_line(stage, lines[-1]), end="\n" if "AP" in lines[-1] else after, flush=True
            )


def write_curves(receipt: dict[str, Any], curve: Path, ap_curve: Path | None = None) -> None:
    """The run's log as CSV for `dvc plots`: loss, rate and learning rate by step; AP by step."""
    log = read_log(Path(receipt["store"])) if receipt["store"] else []
    write_csv(
        curve,
        ["step", "loss", "lr", "grad_norm", "samples_per_s", "data_wait"],
        [line for line in log if "loss" in line],
    )
    if ap_curve is not None:
        write_csv(
            ap_curve,
            ["step", "AP", "AP50", "AP75", "AR", "error", "mean_pose_error"],
            [line for line in log if "AP" in line],
        )
