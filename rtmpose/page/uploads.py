"""What a request brings: one file, as its whole body or as a form's, within limits.

A picture stays in memory. A video goes into the server's temporary folder and is removed when the block ends.
A form's file is spooled by the web framework into an unnamed temporary file, which ends with the request.
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from rtmpose.files import writing
from rtmpose.page.limits import MEGA, Refused, size_text
from rtmpose.page.line import Gone

FORM, BYTES = "multipart/form-data", "application/octet-stream"
HEADERS = 16_384  # bytes that a form adds to its file


async def picture(request: Request, most: int, seconds: float) -> bytes:
    """The bytes of the picture that a request brings; see `_receive` for what is refused."""
    content = io.BytesIO()
    await _receive(request, content, most, seconds, "image")
    return content.getvalue()


@asynccontextmanager
async def video(request: Request, folder: Path, most: int, seconds: float) -> AsyncIterator[Path]:
    """The video that a request brings, as a file in `folder` during the block."""
    path = folder / uuid.uuid4().hex
    try:
        with path.open("wb") as file, writing("the temporary folder"):
            await _receive(request, file, most, seconds, "video")
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _receive(request: Request, file: BinaryIO, most: int, seconds: float, kind: str) -> None:
    """Write the request's file to `file`.

    Refused: 400 where there is none or it is empty, 408 where it comes too slowly, 413 where it has more
    than `most` bytes, 415 where its type is neither of this `kind` nor a form. Gone where it breaks off.
    """
    form = _is_form(request, kind)
    try:
        async with asyncio.timeout(seconds):
            if form:
                await _from_form(request, file, most, kind)
            else:
                await _from_body(request, file, most, kind)
    except TimeoutError:
        raise Refused(408, f"the {kind} did not arrive within {seconds:.0f} s: send it again") from None
    except ClientDisconnect:
        raise Gone from None
    if not file.tell():
        raise Refused(400, f"the {kind} has 0 bytes: send the bytes of a file")


def _is_form(request: Request, kind: str) -> bool:
    """Whether the body is a form; Refused (415) where its type can be no `kind`."""
    said = request.headers.get("content-type", BYTES).partition(";")[0].strip().lower()
    if said == FORM:
        return True
    if said not in ("", BYTES) and not said.startswith(f"{kind}/"):
        raise Refused(415, f"Content-Type {said[:80]!r} is no {kind}: send {kind}/*, {BYTES} or {FORM}")
    return False


def _too_large(kind: str, most: int) -> Refused:
    return Refused(413, f"the {kind} is larger than {size_text(most)}: send a smaller one")


def _check_length(request: Request, kind: str, most: int, more: int = 0) -> None:
    """Refused (413) where the header already says that the body is too large."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and said.isascii() and int(said[:20]) > most + more:
        raise _too_large(kind, most)


async def _from_body(request: Request, file: BinaryIO, most: int, kind: str) -> None:
    _check_length(request, kind, most)
    async for chunk in request.stream():
        if file.tell() + len(chunk) > most:
            raise _too_large(kind, most)
        file.write(chunk)


async def _from_form(request: Request, file: BinaryIO, most: int, kind: str) -> None:
    _check_length(request, kind, most, HEADERS)
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most + HEADERS:
            raise _too_large(kind, most)
        return message

    async with Request(request.scope, counted).form(max_files=1, max_fields=8) as form:
        sent = [part for part in form.values() if isinstance(part, UploadFile)]
        if not sent:
            raise Refused(400, f"the form has no file: send the {kind} in its field 'file'")
        while chunk := await sent[0].read(MEGA):
            if file.tell() + len(chunk) > most:
                raise _too_large(kind, most)
            file.write(chunk)
