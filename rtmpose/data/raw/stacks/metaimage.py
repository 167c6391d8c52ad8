"""MetaImage files (`.mha`) that hold a stack of 8-bit images: a text header, then the pixels, raw or by zlib.

Any page is one read away in a raw stack. A compressed one has to be read from its start; while that happens,
the state at each page's beginning is kept (some 40 kB a page), so that a process decompresses each byte once,
and any page again at the price of that page alone.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.config import MOST_PIXELS
from rtmpose.files import UserError, temporary_beside, writing

Pixels = NDArray[np.uint8]

HEADER_BYTES = 1 << 16  # a header that has not ended by then is none
MOST_PAGES = 100_000
CHUNK = 1 << 20  # bytes that are read of a compressed stack at a time
LAST_KEY = "ElementDataFile"  # what follows its line are the pixels
SIZE_DIGITS = 16  # of CompressedDataSize, which is known only when all is written
FETCH = "fetch the file again"
CONVERT = "write it again as 3-D unsigned char (MET_UCHAR) with 1 or 3 channels"


@dataclass(frozen=True)
class Header:
    """What a stack's header says: `pages` images of (height, width, channels), and that their bytes begin at
    `begin` and take `length` bytes of the file.
    """

    width: int
    height: int
    pages: int
    channels: int
    compressed: bool
    begin: int
    length: int

    @property
    def page_bytes(self) -> int:
        return self.width * self.height * self.channels

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


def read_header(path: Path) -> Header:
    """The header of the stack at `path`.

    Raises UserError, one line with file, key and fix: no MetaImage; another number of dimensions than 3;
    another pixel type than 8-bit; pixels in another file; more pixels or pages than are read; a file that
    ends before its pixels do.
    """
    try:
        with path.open("rb") as file:
            start = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {FETCH}") from error
    said, begin = _keys(path, start)
    width, height, pages = _sides(path, said)
    channels = _whole(path, said, "ElementNumberOfChannels", "1")
    _refuse_kind(path, said, channels)
    if width * height > MOST_PIXELS or pages > MOST_PAGES:
        raise UserError(
            f"{path}: DimSize {said['DimSize']}: more than {MOST_PIXELS / 1e6:.0f} million px an image, or "
            f"than {MOST_PAGES} images; {FETCH}, or split it"
        )
    compressed = said.get("CompressedData", "False").lower() == "true"
    wanted = pages * width * height * channels
    if compressed:  # zlib makes nothing more than a thousand times smaller
        wanted = _whole(path, said, "CompressedDataSize", str(wanted // 2000))
    if size - begin < wanted:
        raise UserError(
            f"{path}: cut off: {size - begin} bytes of pixels, its header wants {wanted} for {pages} images; "
            f"{FETCH}"
        )
    return Header(width, height, pages, channels, compressed, begin, size - begin)


def _keys(path: Path, start: bytes) -> tuple[dict[str, str], int]:
    """The header's lines `Key = value`, and where the pixels begin."""
    said: dict[str, str] = {}
    at = 0
    while LAST_KEY not in said:
        end = start.find(b"\n", at)
        key, equals, value = start[at : max(end, at)].partition(b"=")
        if end < 0 or not equals or not key.isascii():
            raise UserError(f"{path}: no MetaImage file: its header does not end by {LAST_KEY}; {FETCH}")
        said[key.strip().decode()] = value.strip().decode("ascii", "replace")
        at = end + 1
    return said, at


def _sides(path: Path, said: dict[str, str]) -> tuple[int, int, int]:
    """Width, height and number of images."""
    sides = said.get("DimSize", "").split()
    if said.get("NDims") != "3" or len(sides) != 3:
        raise UserError(
            f"{path}: NDims {said.get('NDims', 'missing')}, DimSize {said.get('DimSize', 'missing')!r}: not "
            f"a stack of images (3 dimensions: width, height, images); {CONVERT}"
        )
    if not all(side.isascii() and side.isdigit() and 0 < int(side) < 1 << 31 for side in sides):
        raise UserError(f"{path}: DimSize {said['DimSize']!r}: not three whole numbers above 0; {FETCH}")
    width, height, pages = map(int, sides)
    return width, height, pages


def _whole(path: Path, said: dict[str, str], key: str, default: str) -> int:
    value = said.get(key, default)
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise UserError(f"{path}: {key} {value!r}: not a whole number; {FETCH}")
    return int(value)


def _refuse_kind(path: Path, said: dict[str, str], channels: int) -> None:
    """UserError for pixels that are of another kind, or lie elsewhere."""
    kind = said.get("ElementType", "missing")
    if kind not in ("MET_UCHAR", "MET_UCHAR_ARRAY") or channels not in (1, 3):
        raise UserError(f"{path}: ElementType {kind} with {channels} channels is not read; {CONVERT}")
    if said.get("BinaryData", "True").lower() != "true" or said.get("HeaderSize", "0") != "0":
        raise UserError(f"{path}: pixels as text, or behind a foreign header, are not read; {CONVERT}")
    if said[LAST_KEY] != "LOCAL":
        raise UserError(
            f"{path}: {LAST_KEY} {said[LAST_KEY]!r}: its pixels lie in another file; write it as one .mha"
        )


class Stack:
    """The pages of one file, which must not change meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path, self.header = path, read_header(path)
        # Where each page begins: how the decompression stands there, and the next byte of the file.
        self._marks: list[tuple[Any, int]] = [(zlib.decompressobj(), self.header.begin)]
        self._turn = threading.Lock()

    def page(self, number: int) -> Pixels:
        """Image `number`, from 0: (height, width, channels). UserError where the file is cut or damaged."""
        header = self.header
        if not 0 <= number < header.pages:
            raise UserError(f"{self.path}: has no image {number + 1}, only {header.pages}")
        with self.path.open("rb") as file, self._turn:
            if not header.compressed:
                file.seek(header.begin + number * header.page_bytes)
                content: bytes | bytearray = file.read(header.page_bytes)
                if len(content) < header.page_bytes:
                    raise self._cut(number)
                return np.frombuffer(content, np.uint8).reshape(header.shape)
            for known in range(min(number, len(self._marks) - 1), number + 1):
                content = self._inflate(file, known)
            return np.frombuffer(content, np.uint8).reshape(header.shape)

    def _inflate(self, file: Any, number: int) -> bytearray:
        """The bytes of a page whose beginning is marked; the next one is marked after that."""
        state, at = self._marks[number]
        state, wanted, content = state.copy(), self.header.page_bytes, bytearray()
        while len(content) < wanted:
            chunk = state.unconsumed_tail
            if not chunk and not state.eof:
                file.seek(at)
                chunk = file.read(CHUNK)
                at += len(chunk)
            try:
                part = state.decompress(chunk, wanted - len(content))
            except zlib.error as error:
                why = f"damaged at image {number + 1} of {self.header.pages} ({error})"
                raise UserError(f"{self.path}: {why}; {FETCH}") from error
            if not part and not chunk:
                raise self._cut(number)
            content += part
        if len(self._marks) == number + 1:
            self._marks.append((state, at))
        return content

    def _cut(self, number: int) -> UserError:
        return UserError(f"{self.path}: cut off at image {number + 1} of {self.header.pages}; {FETCH}")

    def extents(self) -> NDArray[np.int64]:
        """Width and height (pages, 2) of what lies in each page: padding is black, right of it and below it.
        A black page has 0, 0.
        """
        found = np.zeros((self.header.pages, 2), np.int64)
        for number in range(self.header.pages):
            page = self.page(number)
            for axis, filled in enumerate((page.any(axis=(0, 2)), page.any(axis=(1, 2)))):
                found[number, axis] = np.flatnonzero(filled).max(initial=-1) + 1
        return found


def open_stack(path: Path) -> Stack:
    """The stack at `path`, which the process keeps as long as the file stays what it is."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {FETCH}") from error
    return _opened(path.absolute(), found.st_size, found.st_mtime_ns)


def extents_of(path: Path) -> NDArray[np.int64]:
    """`Stack.extents` of the file at `path`, looked for once in a process."""
    stack = open_stack(path)
    return _extents(stack)


@lru_cache(maxsize=4)
def _opened(path: Path, size: int, changed: int) -> Stack:
    return Stack(path)


@lru_cache(maxsize=4)
def _extents(stack: Stack) -> NDArray[np.int64]:
    return stack.extents()


def write_stack(path: Path, pages: Iterable[Pixels], count: int, *, compress: bool = True) -> None:
    """Write `count` pages (H, W, 3) of one size as a stack, page after page; it appears when it is complete.

    Raises UserError where the disk is full; ValueError for pages of another size, or number.
    """
    with writing(path):
        temporary = temporary_beside(path)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(temporary, pages, count, compress)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _write(path: Path, pages: Iterable[Pixels], count: int, compress: bool) -> None:
    packer = zlib.compressobj(1)
    begin = written = 0
    shape: tuple[int, ...] = ()
    with path.open("wb") as file:
        for page in pages:
            if not written:
                shape = page.shape
                file.write(_header(shape, count, 0 if compress else None))
                begin = file.tell()
            if page.shape != shape:
                raise ValueError(f"pages of {shape} and of {page.shape}")
            content = np.ascontiguousarray(page).tobytes()
            file.write(packer.compress(content) if compress else content)
            written += 1
        if written != count or not count:
            raise ValueError(f"{written} pages, {count} were announced")
        if compress:
            file.write(packer.flush())
            length = file.tell() - begin
            file.seek(0)
            file.write(_header(shape, count, length))


def _header(shape: tuple[int, ...], count: int, length: int | None) -> bytes:
    """The header of pages (H, W, C); `length` of the compressed pixels in bytes, None where they are not."""
    size = [] if length is None else [f"CompressedDataSize = {length:0{SIZE_DIGITS}d}"]
    lines = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False",
        f"CompressedData = {length is not None}", *size, "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "Offset = 0 0 0", "CenterOfRotation = 0 0 0", "ElementSpacing = 1 1 1",
        f"DimSize = {shape[1]} {shape[0]} {count}", f"ElementNumberOfChannels = {shape[2]}",
        "ElementType = MET_UCHAR", f"{LAST_KEY} = LOCAL",
    ]  # fmt: skip
    return "\n".join(lines).encode() + b"\n"
