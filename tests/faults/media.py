"""Damaged and hostile pictures and videos through the pipeline, as a user's come.

    python -m tests.faults.media [--seed 1] [--count 1000] [--workers 2] [--kind NAME] [--show]

The last line is one JSON object, as of `tests.faults.fuzz`: `clear` is a refusal in one line that names the
file; `fine` is a picture or video that was read, in full or as far as it went, with finite times and pixels
within the limits.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtmpose.config import MOST_PIXELS
from rtmpose.files import UserError
from rtmpose.inference.inputs import inputs_of
from rtmpose.inference.photo import read_photo
from rtmpose.inference.video import Video, VideoWriter
from tests.faults import fuzz as fuzzer
from tests.faults.kind import Kind, Rng
from tests.faults.mutations import damaged

SIZE = (48, 64)  # (h, w)
ENDINGS = (".mp4", ".mkv", ".ts", ".avi", ".gif")


def media_kinds(folder: Path) -> list[Kind]:
    """Every kind of picture and video, its files below `folder`."""
    return [*picture_kinds(folder), *video_kinds(folder)]


def noise(rng: Rng) -> np.ndarray:
    return cv2.GaussianBlur(rng.integers(0, 256, (*SIZE, 3), np.uint8), (0, 0), 1.5)


def picture_kinds(folder: Path) -> Iterator[Kind]:
    pixels = noise(np.random.default_rng(1))
    for ending in (".jpg", ".png", ".webp", ".bmp", ".gif", ".tiff"):
        content = cv2.imencode(ending, pixels)[1].tobytes()
        path = folder / f"picture{ending}"
        yield Kind(f"picture {ending}", _spoils(path, content), partial(_read_picture, path))
    deep = cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes()
    yield Kind(
        "picture 16-bit", _spoils(folder / "deep.png", deep), lambda: _read_picture(folder / "deep.png")
    )
    huge = folder / "huge.png"
    yield Kind("picture huge", _claims(huge), lambda: _read_picture(huge), 0.3)


def video_kinds(folder: Path) -> Iterator[Kind]:
    rng = np.random.default_rng(2)
    frames = [noise(rng) for _ in range(6)]
    for ending in ENDINGS:
        content = encoded(folder / f"whole{ending}", frames)
        path = folder / f"video{ending}"
        yield Kind(f"video {ending}", _spoils(path, content), partial(_read_video, path), 1.5)


def encoded(path: Path, frames: list[np.ndarray]) -> bytes:
    """The frames as a video file's bytes."""
    if path.suffix in (".mp4", ".mkv"):
        writer = VideoWriter(path)
        for number, pixels in enumerate(frames):
            writer.write(pixels, number / 25)
        writer.close()
        return path.read_bytes()
    import av

    codec, form = {".ts": ("mpeg2video", "yuv420p"), ".avi": ("mjpeg", "yuvj420p"), ".gif": ("gif", "rgb8")}[
        path.suffix
    ]
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], form
        for pixels in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
    return path.read_bytes()


def _spoils(path: Path, content: bytes) -> Callable[[Rng], Path]:
    """Sometimes the whole file, sometimes nothing or a beginning; else damage."""

    def spoil(rng: Rng) -> Path:
        match int(rng.integers(10)):
            case 0:
                spoiled = content
            case 1:
                spoiled = content[: int(rng.integers(len(content)))]
            case _:
                spoiled = damaged(content, rng)
        path.write_bytes(spoiled)
        return path

    return spoil


def _claims(path: Path) -> Callable[[Rng], Path]:
    """A whole PNG header that claims more pixels than anybody has."""

    def spoil(rng: Rng) -> Path:
        sides = rng.integers(20_000, 2**31, 2).tolist()
        header = b"IHDR" + struct.pack(">IIBBBBB", *sides, 8, 2, 0, 0, 0)
        crc = struct.pack(">I", zlib.crc32(header))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc + rng.bytes(99))
        return path

    return spoil


def _read_picture(path: Path) -> bool:
    (one,) = inputs_of([str(path)])
    if one.kind == "video":
        return _read_video(path)
    pixels = read_photo(path)
    return pixels.dtype == np.uint8 and pixels.ndim == 3 and 0 < pixels.size <= 3 * MOST_PIXELS


def _read_video(path: Path) -> bool:
    if inputs_of([str(path)])[0].kind == "picture" and path.suffix != ".gif":
        raise UserError(f"{path}: is taken for a picture")
    last, fine = -np.inf, True
    with Video(path) as video:
        for one in video:
            fine &= bool(np.isfinite(one.time)) and one.time > last
            last = one.time
            fine &= one.pixels is None or 0 < one.pixels.size <= 3 * MOST_PIXELS
        remark = video.remark()
    return fine and (remark is None or "\n" not in remark)


def try_media(seed: int, count: int, workers: int = 2, only: str = "") -> tuple[dict[str, int], list[str]]:
    """Try `count` damaged files -> the line, and what went wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzzer, "kinds", media_kinds)
        return fuzzer.fuzz(seed, count, workers, only)


if __name__ == "__main__":
    fuzzer.main(__doc__, try_media)
