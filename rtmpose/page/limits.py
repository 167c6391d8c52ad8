"""What one request may ask for, and how it is refused: a status and one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MEGA = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The most of everything. What is beyond is refused before it costs memory or time."""

    image_bytes: int = 32 * MEGA
    image_pixels: int = 50_000_000  # width times height, by the file's header
    video_bytes: int = 256 * MEGA
    video_pixels: int = 4096 * 2304  # of one frame
    video_seconds: float = 60.0
    video_frames: int = 3600
    boxes: int = 64
    waiting: int = 8  # requests beside the one that is computed
    upload: float = 60.0  # s until a request has arrived whole
    image_time: float = 60.0  # s from then to the answer, those before it in line included
    video_time: float = 600.0


@dataclass(eq=False)
class Refused(Exception):
    """A request that is not answered as it wished: an HTTP status, and one line that says what to do."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


def size_text(count: int) -> str:
    """Bytes in words, such as `32 MB`."""
    return f"{count / MEGA:.0f} MB" if count >= MEGA else f"{count} bytes"
