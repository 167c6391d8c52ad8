"""One short module per DVC stage: read parameters, one library call, write outputs and metrics."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from rtmpose.config import setup_environment
from rtmpose.files import UserError


def stage(main: Callable[[list[str]], None]) -> None:
    """Run a stage's `main(argv)`: a user's mistake becomes one line on stderr and exit code 2, a defect a
    traceback.
    """
    setup_environment()
    try:
        main(sys.argv[1:])
    except UserError as error:
        if os.environ.get("RTMPOSE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
