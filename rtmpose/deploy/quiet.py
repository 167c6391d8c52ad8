"""Silence for libraries that narrate what they do: a stage prints one line."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet(logger: str | None = None) -> Iterator[None]:
    """Nothing goes to stdout during the block, and the logger of this name (None: the root) tells errors
    alone.
    """
    talker = logging.getLogger(logger)
    before = talker.level
    talker.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        talker.setLevel(before)
