"""Questions asked in a process of their own: it may be slow, crash or never answer, and we go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

from rtmpose.files import unbroken

SECONDS = 45.0  # for one question: on a machine in use PyTorch alone takes ten to import
MOST_TEXT = 400  # characters of what another program says
ERROR = "error"  # the key under which an answer says why there is none


def ask(probe: str, *arguments: str, seconds: float = SECONDS) -> dict[str, Any]:
    """The answer of `rtmpose.doctor.probes` to a question; {"error": why} where there is none in time.

    The process gets no input, and is ended with all that it has started.
    """
    command = [sys.executable, "-m", "rtmpose.doctor.probes", probe, *arguments]
    # Files, not pipes: a grandchild that lives on would hold a pipe open, and reading it would not end.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return {ERROR: f"no answer within {seconds:g} s"}
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answer = _answer(_last(out), _last(err), code)
    return {key: shortened(said) if isinstance(said, str) else said for key, said in answer.items()}


def shortened(text: str) -> str:
    """A text in one line, cut where it is long: messages of other programs have no limit."""
    line = unbroken(text)
    return line if len(line) <= MOST_TEXT else f"{line[: MOST_TEXT - 1]}…"


def _last(file: Any) -> str:
    """The last line that a process has written; libraries may print before it."""
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def _answer(line: str, said: str, code: int) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if code == 0 and isinstance(answer, dict):
        return answer
    reason = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return {ERROR: unbroken(f"{reason}: {said}" if said else reason)}
