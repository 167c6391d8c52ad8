"""One file from another place into a part of this one: over HTTP, resumed where a connection broke, or from a
folder. Its SHA-256 is taken while it is read.

Beside the part `X.part` lies `X.part.json`, which says what it is a part of. It is continued only where the
server still has the same file (RFC 9110, sections 13.1.5 and 14.2: `If-Range` and `Range`), else begun anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urljoin, urlsplit

from rtmpose.files import FIRST_PAUSE, UserError, disk_trouble, one_line, retried, write_atomic, writing

if TYPE_CHECKING:
    from requests import Response, Session

MOST = 2 << 30  # bytes of one file; the largest of the catalogue has some 400 MB
BLOCK = 1 << 20
TIMEOUTS = (10.0, 30.0)  # seconds for a connection, and between two pieces of an answer
ROUNDS = 50  # of attempts that brought something, before even those are too many
REDIRECTS = 5
PATIENCE = 30.0  # the longest pause, in seconds, that a server may ask for
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
MISSING = "no such file"
SPARE = 64 << 20  # bytes of the disk that are left alone

Tell = Callable[[int, int | None], None]  # bytes done, and of how many


class Failed(Exception):
    """Why a file is not to be had from a place; further attempts would not mend it."""


class Passing(Exception):
    """A failure that another attempt may mend."""


@dataclass(frozen=True)
class Note:
    """What a part is a part of: where it is from, by what the server knows it, how long it is in all."""

    address: str
    validator: str | None
    total: int | None


def silent(done: int, total: int | None) -> None:
    """Tells nobody."""


def fetch(
    address: str,
    part: Path,
    *,
    exactly: int | None = None,
    tell: Tell = silent,
    pause: float = FIRST_PAUSE,
) -> str:
    """Fetch `address` into `part`, or the rest of it; the hex SHA-256 of the whole.

    `exactly`: how many bytes it has to have. Five attempts in a row that bring nothing end it, the pauses
    between them growing from `pause` seconds. Raises Failed with the reason; the part then stays, if a later
    call may go on with it. UserError where the disk is full.
    """
    for _ in range(ROUNDS):
        before = _size(part)
        try:
            return retried(
                lambda: _attempt(address, part, exactly, tell),
                pause,
                is_final=lambda error: not isinstance(error, Passing),
            )
        except Passing as error:
            reason = str(error)
            if _size(part) <= before:
                break
    raise Failed(f"{reason}; tried again and again")


def copy(source: Path, part: Path, *, exactly: int | None = None, tell: Tell = silent) -> str:
    """Copy a file of this machine into `part`; the hex SHA-256. Raises Failed where it is not there, not
    readable, or not of `exactly` so many bytes.
    """
    discard(part)
    try:
        with source.open("rb") as file:
            total = source.stat().st_size
            _refuse_length(total, exactly)
            _refuse_disk(part, total)
            blocks = iter(lambda: file.read(BLOCK), b"")
            return _written(blocks, part, 0, total, tell)
    except FileNotFoundError:
        raise Failed(MISSING) from None
    except OSError as error:
        raise Failed(f"cannot be read: {disk_trouble(error)}") from None


def discard(part: Path) -> None:
    """Remove a part and what says what it is a part of."""
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _held(part: Path, address: str) -> Note | None:
    """What the part is a part of, where it can be continued from `address`; else it is removed."""
    try:
        note = Note(**json.loads(_note_of(part).read_text()))
    except (OSError, ValueError, TypeError):
        note = None
    if note is None or note.address != address or note.validator is None or not _size(part):
        discard(part)
        return None
    return note


def _attempt(address: str, part: Path, exactly: int | None, tell: Tell) -> str:
    held = _held(part, address)
    headers = {"Accept-Encoding": "identity"}
    if held is not None and held.validator is not None:
        headers |= {"Range": f"bytes={_size(part)}-", "If-Range": held.validator}
    with _answer(address, headers) as response:
        if response.status_code == 416 and held is not None:
            if _size(part) == held.total:  # killed between the last byte and the rename
                return _digest(part).hexdigest()
            discard(part)
            raise Passing("the server has no more of it than was fetched")
        start, total = _extent(response, part, held)
        _refuse_answer(response, total, exactly)
        total = exactly if total is None else total
        _refuse_disk(part, (total or 0) - start)
        if not start:  # another version of the file: its note must not stand beside old bytes
            discard(part)
        note = Note(address, _validator(response.headers), total)
        write_atomic(_note_of(part), json.dumps(asdict(note)))
        return _written(_blocks(response), part, start, total, tell)


def _extent(response: Response, part: Path, held: Note | None) -> tuple[int, int | None]:
    """From which byte on the answer goes, and how long the file is in all."""
    if response.status_code != 206:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if held is None or found is None or int(found[1]) != _size(part) or int(found[2]) != held.total:
        discard(part)
        raise Passing("answered with another part than was asked for")
    return int(found[1]), int(found[2])


def _refuse_answer(response: Response, total: int | None, exactly: int | None) -> None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise Failed(f"answered with a page ({kind}) instead of the file: a log-in, or an error")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Failed(f"answered in the encoding {response.headers['Content-Encoding'][:40]!r}")
    if total is not None:
        _refuse_length(total, exactly)


def _refuse_length(total: int, exactly: int | None) -> None:
    if exactly is not None and total != exactly:
        raise Failed(f"has {total} bytes, not the {exactly} of the released file")
    if total > MOST:
        raise Failed(f"has {total} bytes; more than {MOST} are not fetched")


def _refuse_disk(part: Path, needed: int) -> None:
    with writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(part.parent).free
    if needed + SPARE > free:
        raise UserError(
            f"{part.parent}: {needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free; free space, "
            "or set RTMPOSE_CACHE to a folder on another disk"
        )


def _written(blocks: Iterator[bytes], part: Path, start: int, total: int | None, tell: Tell) -> str:
    """Write what follows byte `start`; the SHA-256 of the whole part. Passing where it ends too early."""
    digest, done = _digest(part, start), start
    with _opened(part, start) as file:
        for block in blocks:
            done += len(block)
            if done > MOST:
                discard(part)
                raise Failed(f"goes on beyond {MOST} bytes")
            with writing(part):
                file.write(block)
                file.flush()
            digest.update(block)
            tell(done, total)
    if total is not None and done < total:
        raise Passing(f"ended after {done} of {total} bytes")
    return digest.hexdigest()


@contextmanager
def _opened(part: Path, start: int) -> Iterator[BinaryIO]:
    with writing(part):
        file = part.open("r+b" if start else "wb")
    with file:
        file.truncate(start)
        file.seek(start)
        yield file


def _digest(part: Path, end: int | None = None) -> hashlib._Hash:
    """The SHA-256 so far of the first `end` bytes (None: of all)."""
    digest, left = hashlib.sha256(), _size(part) if end is None else end
    if left:
        with part.open("rb") as file:
            while left and (block := file.read(min(BLOCK, left))):
                digest.update(block)
                left -= len(block)
    return digest


def _blocks(response: Response) -> Iterator[bytes]:
    """What comes, as it comes: to wait for whole blocks would lose the last one where a connection breaks."""
    from urllib3.exceptions import HTTPError

    try:
        while block := response.raw.read1(BLOCK):
            yield block
    except (HTTPError, OSError) as error:
        raise Passing(f"the connection broke off ({_reason(error)})") from None


def _validator(headers: Mapping[str, str]) -> str | None:
    """By what the server tells whether it still has the same file: a strong ETag, else the date."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


@contextmanager
def _answer(address: str, headers: Mapping[str, str]) -> Iterator[Response]:
    """The answer to GET, behind redirections that stay with HTTP(S) and never leave HTTPS."""
    import requests

    with requests.Session() as session:
        try:
            response = _followed(session, address, headers)
        except (requests.exceptions.SSLError, requests.exceptions.InvalidSchema) as error:
            raise Failed(_reason(error)) from None
        except (requests.exceptions.InvalidURL, UnicodeError) as error:
            raise Failed(f"no address ({_reason(error)})") from None
        except requests.RequestException as error:
            raise Passing(f"not reached ({_reason(error)})") from None
        with response:
            if response.status_code in TRY_AGAIN:
                _wait(response.headers.get("Retry-After", ""))
                raise Passing(f"answered {response.status_code} {response.reason}")
            if response.status_code not in (200, 206, 416):
                raise Failed(f"answered {response.status_code} {response.reason}")
            yield response


def _followed(session: Session, address: str, headers: Mapping[str, str]) -> Response:
    for _ in range(REDIRECTS + 1):
        response = session.get(
            address, headers=dict(headers), stream=True, timeout=TIMEOUTS, allow_redirects=False
        )
        if not response.is_redirect:
            return response
        response.close()
        target = urljoin(address, response.headers["Location"])
        now, then = urlsplit(target).scheme, urlsplit(address).scheme
        if now not in ("https", then):
            raise Failed(f"leads on to an address of another kind ({now[:20]}:)")
        address = target
    raise Failed(f"leads on more than {REDIRECTS} times")


def _wait(asked: str) -> None:
    if asked.isdecimal():
        time.sleep(min(float(asked), PATIENCE))


def _reason(error: Exception) -> str:
    """The innermost cause, in one short line: requests and urllib3 wrap it several times."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return one_line(cause)[:160]
