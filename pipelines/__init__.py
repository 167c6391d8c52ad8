"""One short module per DVC stage: read parameters, one library call, write outputs and metrics."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rtmpose.ending import run_command


def stage(main: Callable[[list[str]], None]) -> None:
    """Run a stage's `main(argv)`; what goes wrong ends as `run_command` says."""
    run_command(lambda: main(sys.argv[1:]))
