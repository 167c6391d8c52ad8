"""How a user's mistake crosses a process border: handed over as a value, and raised again on the other side.

As an exception it would arrive wrapped in the worker's traceback, and Ray would start the work again, which
mends nothing. A task returns the mistake in place of its result:

    raised(ray.get(ray.remote(as_value).remote(work, task)))

Workers of Ray Train return nothing, so their mistake goes through a file that all machines see,
`MistakeFile`. A trial of Ray Tune reports it (`search.tune.OnMistake`), and a loader's worker returns it in
place of a batch (`data.stream.loader`): they are values, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rtmpose.files import UserError, write_atomic

Result = TypeVar("Result")


def as_value(work: Callable[..., Result], *arguments: object) -> Result | UserError:
    """What `work(*arguments)` returns, or the user's mistake that it raises; for the worker's side."""
    try:
        return work(*arguments)
    except UserError as error:
        return error


def raised(ended: Result | UserError) -> Result:
    """The result of `as_value`, for the side that waits for it; raises the mistake that it may be."""
    if isinstance(ended, UserError):
        raise ended
    return ended


class MistakeFile:
    """A mistake on its way from a worker to its driver, in a folder that both see."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mistake.txt"

    def leave(self, error: UserError) -> None:
        """For the worker's side."""
        write_atomic(self.path, str(error))

    def is_left(self) -> bool:
        """Whether some worker has met a mistake: the work is then over for all of them."""
        return self.path.exists()

    def raise_left(self) -> None:
        """For the driver's side, when the workers have ended."""
        if self.is_left():
            raise UserError(self.path.read_text())

    def clear(self) -> None:
        """Before the work begins: what an earlier attempt has left, somebody may have mended since."""
        self.path.unlink(missing_ok=True)
