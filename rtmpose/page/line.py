"""The line before the model: one request is computed at a time, a few wait, others are told to come again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rtmpose.page.limits import Refused

Answer = TypeVar("Answer")
LOOK = 0.25  # seconds between two looks whether the other side is still there
AGAIN = 2  # seconds after which one who was turned away may come again


class Gone(Exception):
    """Whoever asked has closed the connection: nobody reads an answer."""


class Line:
    """One worker thread, and places for it and for those who wait. Its methods belong to the event loop."""

    def __init__(self, waiting: int) -> None:
        self.places = waiting + 1
        self.inside = 0
        self._pool = ThreadPoolExecutor(1, "model")
        self._stops: set[threading.Event] = set()

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the line during the block; Refused (503) where all are taken.

        It is taken before the body is read, so that what waits in memory is bounded, too.
        """
        if self.inside >= self.places:
            text = f"busy: {self.inside} requests are here already; send it again in a moment"
            raise Refused(503, text, {"Retry-After": str(AGAIN)})
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def run(
        self,
        work: Callable[[threading.Event], Answer],
        seconds: float,
        gone: Callable[[], Awaitable[bool]],
    ) -> Answer:
        """What `work(stop)` gives, computed when its turn has come.

        `stop` is set when nobody wants the answer any more; long work looks at it. Refused (504) after so
        many `seconds`; Gone where the other side has left.
        """
        stop, deadline = threading.Event(), time.monotonic() + seconds
        self._stops.add(stop)
        waited = asyncio.wrap_future(self._pool.submit(work, stop))
        done: set[asyncio.Future[Answer]] = set()
        try:
            while True:
                left = deadline - time.monotonic()
                done, _ = await asyncio.wait({waited}, timeout=min(LOOK, max(left, 0.0)))
                if done:
                    return waited.result()
                if left <= 0:
                    text = f"no answer within {seconds:.0f} s: send something smaller, or send it again later"
                    raise Refused(504, text, {"Retry-After": str(AGAIN)})
                if await gone():
                    raise Gone
        finally:
            stop.set()
            waited.cancel()
            self._stops.discard(stop)
            # A mistake knows this frame by its traceback. If the frame knew the mistake, too, what was sent
            # would stay until Python's collector comes by.
            done.clear()
            del waited

    def close(self) -> None:
        """Let what is computed stop, forget what waits, and end the thread."""
        for stop in self._stops:
            stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
