"""One sample of a shard: where its bytes lie, whether they are whole, and the part of its image that is
needed.

Beside each tar lies an `.idx` file with one row per sample, so any sample is one read away and none is found
by search.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.shards.cache import RemoteFile, RemoteShard
from rtmpose.files import UserError
from rtmpose.geometry import Floats, decode

# One row of an `.idx` file: where the image and the JSON of a sample lie in the tar, its key's hash, and the
# CRC-32 of the bytes from the first of the two to the end of the other.
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


AGAIN = "cut or fetch this shard again (stage shard)"
MOST = 1 << 30  # bytes of a sample; a damaged index may ask for exabytes
MCU = 8  # px, the side of a JPEG's smallest unit at full chroma resolution
TILES = b"TILES\0"  # begins the segment that follows a stored crop's first two bytes


class DamagedSample(UserError):
    """A sample whose bytes are not those that were written; the text names the shard and the offset."""


def locate(folder: Path, manifest: dict[str, Any], number: int) -> Path | RemoteShard:
    """Where shard `number` of a manifest lies: its tar in `folder`, or what to fetch from the
    manifest's URL.
    """
    entry = manifest["shards"][number]
    if manifest["url"] is None:
        return folder / entry["name"]
    url = f"{manifest['url'].rstrip('/')}/{entry['name']}"
    index = RemoteFile(
        url.removesuffix(".tar") + ".idx", entry["samples"] * INDEX.itemsize, entry["idx_sha256"]
    )
    return RemoteShard(RemoteFile(url, entry["bytes"], entry["sha256"]), index)


def span(row: Any) -> tuple[int, int]:
    """The first byte of a sample in its tar, and the byte after its last."""
    image, size, text, length, *_ = row.item()
    return min(image, text), max(image + size, text + length)


def read_row(shard: Path, number: int) -> Any:
    """Row `number` of a tar's `.idx`; DamagedSample where it ends before."""
    content = _read(shard.with_suffix(".idx"), number * INDEX.itemsize, INDEX.itemsize)
    if len(content) < INDEX.itemsize:
        raise DamagedSample(
            f"{shard.with_suffix('.idx')} at byte {number * INDEX.itemsize}: cut off; {AGAIN}"
        )
    return np.frombuffer(content, INDEX)[0]


def read_sample(shard: Path, row: Any, name: str | None = None) -> tuple[dict[str, Any], memoryview]:
    """One sample's JSON fields and the bytes of its image file.

    Raises DamagedSample with `name` (the shard's, where it is a copy) and offset where the bytes are not
    those written.
    """
    first, end = span(row)
    image, size, text, length, _, crc = row.item()
    content = _read(shard, first, end - first) if end - first <= MOST else b""
    if zlib.crc32(content) != crc:
        what = "cut off" if len(content) < end - first else "damaged"
        raise DamagedSample(f"{name or shard} at byte {first}: sample {what}; {AGAIN}")
    fields = json.loads(content[text - first : text - first + length])
    return fields, memoryview(content)[image - first : image - first + size]


def decode_part(content: memoryview, low: Floats, high: Floats) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The pixels (H, W, 3) RGB of a crop at least between the corners `low` and `high` (x, y) px, as far as
    it goes, and where they begin (x, y).

    Decodes only the tiles that `rtmpose.data.shards.crops.encode_jpeg` has marked: they are spliced into a
    smaller JPEG whose pixels are those of the whole one. Any other image is decoded whole.
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
    pixels = decode(content)
    assert pixels is not None, "the bytes are those that were written"
    return pixels


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DamagedSample(f"{path} at byte {offset}: cannot be read ({error.strerror}); {AGAIN}") from error
    try:
        return os.pread(file, count, offset) if offset < 1 << 62 else b""
    finally:
        os.close(file)
