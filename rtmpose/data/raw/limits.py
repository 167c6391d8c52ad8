"""What the beginning of an image file says: how many pixels it claims, before anything is decoded, and of
which form it is where it cannot be.

Three kilobytes can claim 20,000 x 20,000 pixels, and a decoder then takes gigabytes for them. OpenCV has the
same limit set in `config.setup_environment`, for the formats whose headers are not read here.
"""

from __future__ import annotations

import struct

from rtmpose.config import MOST_PIXELS

FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # JPEG's markers of a frame header (SOF)
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # its markers without a length


def too_many_pixels(content: bytes) -> str | None:
    """What an image's header claims, if that is more than is read; None where it is not, or not known."""
    size = claimed_size(content)
    if size is None or size[0] * size[1] <= MOST_PIXELS:
        return None
    claim = f"its header claims {size[0]}x{size[1]} px, more than {MOST_PIXELS / 1e6:.0f} million"
    return f"{claim}: scale it down, or fetch it again"


def claimed_size(content: bytes) -> tuple[int, int] | None:
    """Width and height px by the header of a JPEG, PNG, GIF, BMP or WebP file; None for others."""
    try:
        if content.startswith(b"\xff\xd8"):
            return _jpeg_size(content)
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            return _pair(">II", content, 16)
        if content.startswith((b"GIF87a", b"GIF89a")):
            return _pair("<HH", content, 6)
        if content.startswith(b"BM"):
            width, height = _pair("<ii", content, 18)
            return abs(width), abs(height)  # a negative height says that rows go down
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp_size(content)
    except (IndexError, struct.error):  # cut off before the size: the decoder says so
        return None
    return None


# How files begin that hold a picture, but not in a form that is read here. Brands follow on the word `ftyp`.
BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC",
    b"msf1": "HEIC", b"avif": "AVIF", b"avis": "AVIF", b"crx ": "a camera's RAW file", b"qt  ": "a film",
    b"isom": "a film", b"iso2": "a film", b"mp41": "a film", b"mp42": "a film", b"M4V ": "a film",
}  # fmt: skip
STARTS = {
    b"%PDF": "a PDF",
    b"FUJIFILMCCD-RAW": "a camera's RAW file",
    b"IIRO": "a camera's RAW file",
    b"IIRS": "a camera's RAW file",
    b"IIU\0": "a camera's RAW file",
    b"\0MRM": "a camera's RAW file",
    b"FOVb": "a camera's RAW file",
    b"II*\0": "TIFF or a camera's RAW file",
    b"MM\0*": "TIFF or a camera's RAW file",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "a Photoshop file",
    b"<svg": "SVG",
}


def unread_kind(content: bytes) -> str | None:
    """What a file is that could not be decoded, as far as its beginning tells; None where it is not known."""
    if content[4:8] == b"ftyp":
        return BRANDS.get(content[8:12])
    return next((kind for start, kind in STARTS.items() if content.startswith(start)), None)


def _pair(form: str, content: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, content, at)
    return first, second


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    at = 2
    while True:
        at = content.find(b"\xff", at)
        if at < 0:
            return None
        marker = content[at + 1]
        if marker in FRAMES:
            height, width = _pair(">HH", content, at + 5)
            return width, height
        if marker == 0xDA:
            return None
        if marker == 0xFF:
            at += 1
        else:
            at += 2 if marker in ALONE else 2 + int.from_bytes(content[at + 2 : at + 4], "big")


def _webp_size(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = _pair("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF
