"""How a command ends: with its result, or with one line on stderr for a mistake, for what the machine refused
and for a signal. Only a defect of ours ends in a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from rtmpose.config import setup_environment
from rtmpose.files import FIXES, UserError, disk_trouble


class Signalled(BaseException):
    """A signal that asks for an end. Like KeyboardInterrupt it passes every `except Exception`, so that only
    `finally` blocks see it: they end Ray and remove temporary files.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run_command(main: Callable[[], object]) -> None:
    """Run a command to its end: exit code 2 for a mistake and for a disk that is full or not ours to write
    to, 128 + n for signal n.
    """
    setup_environment()
    signal.signal(signal.SIGTERM, _raise)
    try:
        main()
    except (UserError, OSError) as error:
        line = line_of(error)
        if line is None or os.environ.get("RTMPOSE_TRACEBACK"):
            raise
        _say(line)
        sys.exit(2)
    except KeyboardInterrupt:
        _say("interrupted (SIGINT); nothing half-written is left: run the same command again")
        sys.exit(128 + signal.SIGINT)
    except Signalled as ended:
        _say(f"ended from outside ({ended}); nothing half-written is left: run the same command again")
        sys.exit(128 + ended.number)


def line_of(error: BaseException) -> str | None:
    """The one line for a user that an error comes down to; None for a defect."""
    if isinstance(error, UserError):
        return " ".join(str(error).splitlines())
    if isinstance(error, OSError) and error.errno in FIXES:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{disk_trouble(error)}"
    return None


def _say(line: str) -> None:
    print(f"error: {line}", file=sys.stderr, flush=True)


def _raise(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: a second one would cut the clearing away short
    raise Signalled(number)
