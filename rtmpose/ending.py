"""How a command ends: with its result, or with one line on stderr for a mistake, for what the machine refused
and for a signal. Only a defect of ours ends in a traceback.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from rtmpose.config import setup_environment
from rtmpose.files import FIXES, UserError, disk_trouble, unbroken

MOMENT = 0.05  # seconds
UNREAD = 128 + signal.SIGPIPE  # the exit code where nobody reads on, as the shell has it of other tools


class Signalled(BaseException):
    """A signal that asks for an end. Like KeyboardInterrupt it passes every `except Exception`, so that only
    `finally` blocks see it: they end Ray and remove temporary files.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run_command(main: Callable[[], object]) -> None:
    """Run a command to its end: exit code 2 for a mistake and for a disk that is full or not ours to write
    to, 128 + n for signal n. Where nobody reads on what it prints (`| head`), it ends like any tool, without
    a word and as if by SIGPIPE.
    """
    setup_environment()
    _import_quickly()
    signal.signal(signal.SIGTERM, _raise)
    sys.unraisablehook = _once_more
    try:
        _told(main)
        _flush()
    except BrokenPipeError:
        if not _silence_unread():
            raise
        sys.exit(UNREAD)
    except SystemExit as ended:
        try:
            _flush()
            unread = ended.code == 1  # so ends the command line's own package where it met a closed pipe
        except BrokenPipeError:
            unread = True
        if unread and _silence_unread() and ended.code in (None, 0, 1):
            sys.exit(UNREAD)
        raise


def _import_quickly() -> None:
    """Let Python's collector look through all objects a twentieth as often, for the whole command: importing
    PyTorch and MLflow spends a sixth of its time on it, and next to nothing is found. A program that imports
    the library keeps its own threshold.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, max(old, 200))


def _told(main: Callable[[], object]) -> None:
    """Run `main`; where it ends early, one line says why."""
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


@contextmanager
def signals_later() -> Iterator[None]:
    """What signals ask for during the block happens at its end: an import that is cut in two leaves modules
    half made, and they complain.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    known = {
        number: signal.signal(number, lambda given, _: came.append(given))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, answer in known.items():
            signal.signal(number, answer)
        if came:
            signal.raise_signal(came[0])


def line_of(error: BaseException) -> str | None:
    """The one line for a user that an error comes down to; None for a defect."""
    if isinstance(error, UserError):
        return unbroken(str(error))
    if isinstance(error, OSError) and error.errno in FIXES:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{disk_trouble(error)}"
    return None


def _flush() -> None:
    if sys.stdout is not None:  # closed by the shell (>&-)
        sys.stdout.flush()


def _silence_unread() -> bool:
    """Whether the reader of stdout or stderr has gone; what is still to be flushed then goes nowhere."""
    found = False
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            found = True
    return found


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # the exit code still says it
        print(f"error: {line}", file=sys.stderr, flush=True)


def _once_more(dropped: sys.UnraisableHookArgs) -> None:
    """Python drops exceptions in callbacks, such as those around a fork. A signal that met one is raised
    again a moment later, where it can be seen.
    """
    error = dropped.exc_value
    # SystemExit is what Ray answers to SIGTERM while it starts.
    if isinstance(error, Signalled) or (isinstance(error, SystemExit) and error.code == signal.SIGTERM):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, lambda *_: _raise(signal.SIGTERM, None))
    elif isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
    else:
        sys.__unraisablehook__(dropped)
        return
    signal.setitimer(signal.ITIMER_REAL, MOMENT)


def _raise(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: a second one would cut the clearing away short
    raise Signalled(number)
