"""The turn that a camera notes in a photograph's EXIF: found in the file's bytes, and done to its pixels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

UPRIGHT = 1  # EXIF's orientation of a picture that needs no turn
# What has to be done to the stored pixels so that they are seen as they were taken (Exif 2.32, tag 0x0112).
TURNS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored and turned by 90 degrees",
    6: "turned by 90 degrees clockwise",
    7: "mirrored and turned by 270 degrees",
    8: "turned by 270 degrees clockwise",
}
TIFF = (b"II*\0", b"MM\0*")  # how such files begin
ORIENTATION = 0x0112
SHORT = 3  # TIFF's type of two bytes


def upright(pixels: Pixels, turn: int) -> Pixels:
    """Stored pixels (H, W, 3) as displayed, by EXIF's orientation 1 to 8; from 5 on the sides swap."""
    if turn >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def orientation(content: bytes) -> int:
    """EXIF's orientation, 1 to 8, of a JPEG, PNG, WebP or TIFF file's bytes; 1 where none is noted."""
    try:
        return _tiff_orientation(_exif(content))
    except IndexError:  # the block is cut off: it says nothing
        return UPRIGHT


def _exif(content: bytes) -> bytes:
    """The EXIF block of an image file, which is a small TIFF file; empty where there is none."""
    if content[:4] in TIFF:
        return content
    if content.startswith(b"\xff\xd8"):
        return _jpeg_exif(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _chunk(content, 8, b"eXIf", b"IDAT", "big")
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _chunk(content, 12, b"EXIF", None, "little").removeprefix(b"Exif\0\0")
    return b""


def _jpeg_exif(content: bytes) -> bytes:
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at + 1] == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            return content[at + 10 : end]
        at = end
    return b""


def _chunk(
    content: bytes, at: int, wanted: bytes, last: bytes | None, order: Literal["big", "little"]
) -> bytes:
    """The content of a PNG's (length, name, data, CRC) or a RIFF's (name, length, data, padding) chunk."""
    png = order == "big"
    while at + 8 <= len(content):
        first, second = content[at : at + 4], content[at + 4 : at + 8]
        name, length = (
            (second, int.from_bytes(first, order)) if png else (first, int.from_bytes(second, order))
        )
        if name == wanted:
            return content[at + 8 : at + 8 + length]
        if name == last:
            break
        at += 8 + length + (4 if png else length % 2)
    return b""


def without_turn(content: bytes) -> bytes:
    """A TIFF file's bytes without the turn that it notes, which OpenCV does in part whatever it is told; any
    other file's as they are.
    """
    if content[:4] not in TIFF:
        return content
    try:
        found = _tiff_turn(content)
    except IndexError:
        return content
    if found is None:
        return content
    at, size, order = found
    return content[:at] + UPRIGHT.to_bytes(size, order) + content[at + size :]


def _tiff_orientation(block: bytes) -> int:
    found = _tiff_turn(block)
    if found is None:
        return UPRIGHT
    at, size, order = found
    value = int.from_bytes(block[at : at + size], order)
    return value if value in TURNS else UPRIGHT


def _tiff_turn(block: bytes) -> tuple[int, int, Literal["big", "little"]] | None:
    """Where in a TIFF block the orientation is, in how many bytes and which order; None where it notes none.
    IndexError where the block is cut off.
    """
    if block[:2] not in (b"II", b"MM"):
        return None
    order: Literal["big", "little"] = "little" if block[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        if at + size > len(block):
            raise IndexError(at)
        return int.from_bytes(block[at : at + size], order)

    directory = number(4, 4)
    for entry in range(number(directory, 2)):
        at = directory + 2 + 12 * entry
        if number(at, 2) == ORIENTATION:
            size = 2 if number(at + 2, 2) == SHORT else 4
            number(at + 8, size)
            return at + 8, size, order
    return None
