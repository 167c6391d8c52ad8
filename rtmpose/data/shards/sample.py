"""One sample of a shard as it is stored: its row in the index, its bytes, and its JPEG.

Beside each tar lies an `.idx` file with one row per sample, so any sample is one read away and none is found
by search. The JPEG of a crop is a plain one to any reader, but divided into tiles: `encode_jpeg` writes down
how long each tile is, and `decode_part` decodes only the tiles that the augmentation shows.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.files import UserError
from rtmpose.geometry import Floats

# One row of an `.idx` file: where the image and the JSON of a sample lie in the tar, its key's hash, and the
# row's checksum.
INDEX = np.dtype(
    [
        ("image", "<u8"),
        ("image_bytes", "<u4"),
        ("json", "<u8"),
        ("json_bytes", "<u4"),
        ("key", "<u8"),
        ("crc", "<u4"),
    ]
)


CUT_AGAIN = "cut or fetch this shard again (stage shard)"
MOST_SAMPLE_BYTES = 1 << 30  # bytes of a sample; a damaged index may ask for exabytes
MCU = 8  # px, the side of a JPEG's smallest unit at full chroma resolution
TILES = b"TILES\0"  # begins the segment that follows a stored crop's first two bytes
TILE_COLUMNS = (7, 6, 8, 5, 9)  # widths of a tile in MCUs, the best first


class DamagedSample(UserError):
    """A sample whose bytes are not those that were written; the text names the shard and the offset."""


def span(row: Any) -> tuple[int, int]:
    """The first byte of a sample in its tar, and the byte after its last."""
    image, size, text, length, *_ = row.item()
    return min(image, text), max(image + size, text + length)


def read_row(shard: Path, number: int) -> Any:
    """Row `number` of a tar's `.idx`; DamagedSample where it ends before."""
    content = _read(shard.with_suffix(".idx"), number * INDEX.itemsize, INDEX.itemsize)
    if len(content) < INDEX.itemsize:
        raise DamagedSample(
            f"{shard.with_suffix('.idx')} at byte {number * INDEX.itemsize}: cut off; {CUT_AGAIN}"
        )
    return np.frombuffer(content, INDEX)[0]


def read_sample(shard: Path, row: Any, name: str | None = None) -> tuple[dict[str, Any], memoryview]:
    """One sample's JSON fields and the bytes of its image file.

    Raises DamagedSample with `name` (the shard's, where it is a copy) and offset where the bytes are not
    those written.
    """
    first, end = span(row)
    image, size, text, length, *_ = row.item()
    content = _read(shard, first, end - first) if end - first <= MOST_SAMPLE_BYTES else b""
    if checksum(row, content) != row["crc"]:
        what = "cut off" if len(content) < end - first else "damaged"
        raise DamagedSample(f"{name or shard} at byte {first}: sample {what}; {CUT_AGAIN}")
    fields = json.loads(content[text - first : text - first + length])
    return fields, memoryview(content)[image - first : image - first + size]


def checksum(row: Any, content: bytes | memoryview) -> int:
    """CRC-32 of a row's fields but the last, and then of the sample's bytes, from the first of its two
    members to the end of the other. A row of zeros, or one with a flipped bit, fits no bytes.
    """
    return zlib.crc32(content, zlib.crc32(row.tobytes()[: -INDEX["crc"].itemsize]))


def tileable(width: int) -> int:
    """The next width from `width` px on that divides into tiles of a few MCUs."""
    columns = math.ceil(width / MCU)
    even = next(n for n in itertools.count(columns) if _tile_columns(n))
    return width if even == columns else even * MCU


def _tile_columns(columns: int) -> int:
    """How many of an image's MCU columns make a tile: a divisor, so that each row of MCUs is a row of whole
    tiles; 0 where there is none.
    """
    return columns if columns <= max(TILE_COLUMNS) else next((n for n in TILE_COLUMNS if columns % n == 0), 0)


def encode_jpeg(pixels: NDArray[np.uint8], quality: int, bgr: bool = False) -> bytes:
    """RGB or BGR (H, W, 3) -> JPEG at full chroma resolution (4:4:4): halved chroma costs more than it saves
    once it is warped.

    A plain JPEG to any reader, of which `decode_part` decodes a part: the scan restarts at every tile of some
    MCUs, and an application segment says how long each tile is.
    """
    columns = math.ceil(pixels.shape[1] / MCU)
    tile = _tile_columns(columns) or columns
    parameters = [
        cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_RST_INTERVAL, tile,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # fmt: skip
    done, encoded = cv2.imencode(
        ".jpg", pixels if bgr else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), parameters
    )
    assert done
    content = encoded.data.cast("B")
    frame, scan = _segments(content)
    marks = np.flatnonzero(encoded[scan:-1] == 0xFF) + scan
    ends = marks[encoded[marks + 1] != 0] + 2  # of a restart, or of the image; a zero is stuffing
    lengths = ends.copy()
    lengths[1:] -= ends[:-1]
    lengths[0] -= scan
    segment = TILES + np.array([tile, frame, scan], "<u2").tobytes() + lengths.astype("<u2").tobytes()
    if lengths.max() >= 1 << 16 or len(segment) + 2 >= 1 << 16:
        return bytes(content)  # decoded whole
    return b"".join((content[:2], b"\xff\xe9", (len(segment) + 2).to_bytes(2, "big"), segment, content[2:]))


def _segments(content: memoryview) -> tuple[int, int]:
    """Where a JPEG's frame header begins, and where its scan's data do."""
    at = frame = 2
    while True:
        kind, end = content[at + 1], at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if kind == 0xC0:
            frame = at
        if kind == 0xDA:
            return frame, end
        at = end


def decode_part(content: memoryview, low: Floats, high: Floats) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The pixels (H, W, 3) RGB of a crop at least between the corners `low` and `high` (x, y) px, as far as
    it goes, and where they begin (x, y).

    Decodes only the tiles that `encode_jpeg` has marked: they are spliced into a smaller JPEG whose pixels
    are those of the whole one. Any other image is decoded whole.
    """
    if content[6 : 6 + len(TILES)] != TILES:
        return _decoded(content), (0, 0)
    header = 4 + int.from_bytes(content[4:6], "big")  # where the JPEG without our segment goes on
    tile, frame, scan = np.frombuffer(content, "<u2", 3, 6 + len(TILES)).tolist()
    lengths = np.frombuffer(content, "<u2", (header - 12 - len(TILES)) // 2, 12 + len(TILES))
    height, width = struct.unpack_from(">HH", content, header + frame + 3)
    side = tile * MCU
    rows = lengths.reshape(-(-height // MCU), -1)
    left, right = max(int(low[0]) // side, 0), min(int(high[0]) // side + 1, rows.shape[1])
    top, bottom = max(int(low[1]) // MCU, 0), min(int(high[1]) // MCU + 1, len(rows))
    if left >= right or top >= bottom:
        return np.zeros((1, 1, 3), np.uint8), (0, 0)
    ends = header + scan - 2 + np.cumsum(lengths, dtype=np.int64).reshape(rows.shape)[top:bottom]
    begins = ends[:, left] - rows[top:bottom, left]
    chosen = rows[top:bottom, left:right]
    parts = [
        content[begin:end] for begin, end in zip(begins.tolist(), ends[:, right - 1].tolist(), strict=True)
    ]
    start = bytearray(content[:2]) + content[header : header + scan - 2]
    struct.pack_into(
        ">HH", start, frame + 5, min(height, bottom * MCU) - top * MCU, min(width, right * side) - left * side
    )
    spliced = np.frombuffer(bytearray().join([start, *parts]), np.uint8)
    restarts = len(start) + np.cumsum(chosen, dtype=np.int64) - 1
    spliced[restarts] = np.arange(len(restarts)) % 8 + 0xD0
    spliced[-1] = 0xD9
    return _decoded(spliced), (left * side, top * MCU)


def _decoded(content: memoryview | NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None, "the bytes are those that were written"
    return pixels


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DamagedSample(
            f"{path} at byte {offset}: cannot be read ({error.strerror}); {CUT_AGAIN}"
        ) from error
    try:
        return os.pread(file, count, offset) if offset < 1 << 62 else b""
    finally:
        os.close(file)
