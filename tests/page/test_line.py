"""The line before the model: one at a time, a few wait, nobody for ever."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from rtmpose.page import line as lines
from rtmpose.page import uploads
from rtmpose.page.limits import Refused
from rtmpose.page.line import Gone, Line


async def there() -> bool:
    return False


async def away() -> bool:
    return True


def ended(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def test_who_finds_no_place_is_told_to_come_again() -> None:
    line = Line(waiting=1)
    with ExitStack() as inside:
        for _ in range(2):
            inside.enter_context(line.place())
        with pytest.raises(Refused) as refused, line.place():
            pass
        assert refused.value.status == 503 and refused.value.headers["Retry-After"]
    assert line.inside == 0
    line.close()


def test_one_at_a_time_and_in_order() -> None:
    line, at_once, order = Line(waiting=3), threading.Lock(), []

    def work(number: int) -> int:
        assert at_once.acquire(blocking=False)
        order.append(number)
        at_once.release()
        return number

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(line.run(lambda _, n=n: work(n), 30, there) for n in range(4)))  # type: ignore[misc]

    assert ended(all_of_them()) == order == [0, 1, 2, 3]
    line.close()


@pytest.mark.parametrize(("seconds", "gone", "error"), [(0.01, there, Refused), (30.0, away, Gone)])
def test_work_is_told_to_stop_when_nobody_waits(
    seconds: float, gone: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LOOK", 0.01)
    line, stopped = Line(waiting=0), threading.Event()

    def work(stop: threading.Event) -> None:
        if stop.wait(30):
            stopped.set()

    with pytest.raises(error) as raised:
        ended(line.run(work, seconds, gone))
    assert stopped.wait(30)
    assert error is Gone or raised.value.status == 504  # type: ignore[attr-defined]
    line.close()


def test_the_end_stops_what_is_computed() -> None:
    line, begun = Line(waiting=0), threading.Event()

    def work(stop: threading.Event) -> bool:
        begun.set()
        return stop.wait(30)

    async def closed() -> bool:
        running = asyncio.create_task(line.run(work, 30, there))
        await asyncio.to_thread(begun.wait)
        await asyncio.to_thread(line.close)
        return await running

    assert ended(closed())


class Slow:
    """A request whose body stops after its first bytes: for ever, or since the other side is gone."""

    def __init__(self, then: str) -> None:
        self.then, self.asked = then, 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        if self.asked == 1:
            return {"type": "http.request", "body": b"abc", "more_body": True}
        if self.then == "gone":
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


@pytest.mark.parametrize(("then", "error"), [("silent", Refused), ("gone", Gone)])
def test_bodies_that_never_end_leave_nothing(tmp_path: Path, then: str, error: type[Exception]) -> None:
    async def received() -> None:
        request = Request({"type": "http", "headers": [], "method": "POST"}, Slow(then))
        async with uploads.video(request, tmp_path, most=100, seconds=0.05):
            raise AssertionError("it never arrived whole")

    with pytest.raises(error) as raised:
        ended(received())
    assert error is Gone or raised.value.status == 408  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_a_refused_request_leaves_memory_at_once() -> None:
    """Not when Python's collector comes by: until then, a hundred requests' bytes could wait."""

    class Body:
        pass

    async def refused() -> weakref.ref[Body]:
        body = Body()

        def work(_: threading.Event, body: Body = body) -> None:
            raise Refused(400, f"{body}: no picture")

        try:
            await line.run(work, 30, there)
        except Refused:
            return weakref.ref(body)
        raise AssertionError("it was answered")

    line = Line(waiting=0)
    gc.collect()
    gc.disable()
    try:
        assert ended(refused())() is None
    finally:
        gc.enable()
        line.close()
