"""simplejpeg and xxHash on a folder of JPEG files, timed: runs in `.peers/simplejpeg`, started by
`data_path.py`.

    python jpeg_decode.py FOLDER

Greets with the CRC-32 of every file's decoded RGB pixels; then answers each line with ms of processor time
per file: of decoding, and of xxh3_64 over the file's bytes.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import simplejpeg  # type: ignore[import-not-found]
import xxhash  # type: ignore[import-not-found]


def milliseconds(call: Callable[[bytes], object], contents: list[bytes]) -> float:
    start = time.process_time()
    for content in contents:
        call(content)
    return 1000 * (time.process_time() - start) / len(contents)


def decode(content: bytes) -> object:
    return simplejpeg.decode_jpeg(content, colorspace="RGB")


def main() -> None:
    contents = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
    pixels = [zlib.crc32(simplejpeg.decode_jpeg(content, colorspace="RGB")) for content in contents]
    print(json.dumps({"pixels": pixels}), flush=True)
    for _ in sys.stdin:
        found = {
            "decode": milliseconds(decode, contents),
            "xxh3_64": milliseconds(xxhash.xxh3_64_intdigest, contents),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
