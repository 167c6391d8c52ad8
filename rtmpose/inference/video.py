"""Videos read and written by FFmpeg's libraries (PyAV), with the time stamps that frames really have."""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.config import MOST_PIXELS
from rtmpose.data.raw.limits import too_many_pixels
from rtmpose.files import (
    UserError,
    destination,
    disk_trouble,
    one_line,
    temporary_beside,
    without_secret,
    writing,
)
from rtmpose.inference.flow import Picture

Pixels = NDArray[np.uint8]
LIVE = ("rtsp:", "rtsps:", "rtmp:", "rtmps:", "udp:", "rtp:", "srt:")  # such a source cannot wait
EITHER = ("http:", "https:", "tcp:")  # a file or a stream, as the source itself says
STREAMS = (*LIVE, *EITHER)
PLAYLIST = "hls"  # its length is not that of the video
ENDLESS = "mpjpeg"  # a camera's JPEGs one after another: its end reads like an error
CAMERA = "camera:"
CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),
}
PATIENCE = 10.0  # seconds without a byte from a stream
USUAL_RATE = 25.0  # frames per second where a file does not say
HEAD = 1 << 16  # bytes that say what a file claims to be
GAP = 86400.0  # seconds; a time stamp that is further on than the last one is damage
SLACK = 0.2  # seconds that a header's duration may be too long
LEADING_ELSEWHERE = {"concat", "hls", "image2", "tty"}  # lists of other files, and text drawn as pictures
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
ENCODERS = (("libx264", {"preset": "veryfast", "crf": "20"}), ("mpeg4", {"qscale": "3"}))
TICKS = 90_000  # a second, in what is written

av.logging.set_level(None)  # what goes wrong is told in one line of ours


class Unreadable(UserError):
    """An input that cannot be read, whatever becomes of others."""


class Video:
    """The pictures of a video file, a stream's URL or a camera (`camera:0`), upright, in RGB.

    Iterate once. Times count from the first picture. What cannot be decoded is passed on without pixels; of a
    file or stream that breaks off, what was read stands, and `remark` says so. Pictures of more than
    `most_pixels` are not decoded. `Unreadable` where nothing can be read.

    `live` says whether the source cannot wait. None: cameras and streams cannot, files can; what comes over
    HTTP or TCP is a stream where it says neither how long nor how large it is.
    """

    def __init__(
        self, source: str | Path, most_pixels: int = MOST_PIXELS, *, live: bool | None = None
    ) -> None:
        self._place = str(source)
        self._far = self._place.startswith((*STREAMS, CAMERA))  # and no file of this machine
        self.name = without_secret(self._place) if self._place.startswith(STREAMS) else self._place
        self.most_pixels = most_pixels
        self.dropped = 0
        self.read = self.damaged = 0  # pictures with pixels; places where something was missing
        self._ended, self._broken = False, ""  # whether all was read; why no more came
        self._packets, self._turned = 0, False
        self._turn: float | None = None  # degrees, of the frames that have this matrix:
        self._matrix = (1.0, 0.0, 0.0, 1.0)
        self._origin: float | None = None  # s, the first picture's own time stamp
        self._last = -np.inf
        self._container = _opened(self._place, self.name)
        self.live = self._is_live() if live is None else live
        try:
            self._stream = self._choose()
        except BaseException:
            self.close()
            raise
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
        self.rate = rate if 0 < rate < 1000 else USUAL_RATE  # pictures per second, about
        self.expected = None if self.live else self._stream.frames or None  # pictures, by the file's header
        alone = not self.live and len(self._container.streams) == 1  # sound may go on after the pictures
        self._length = _length(self._container) if alone else 0.0

    @property
    def aspect(self) -> Fraction | None:
        """A pixel's width over its height in the pictures read so far; None where it is 1."""
        noted = self._stream.sample_aspect_ratio
        if not noted or noted == 1:
            return None
        return Fraction(1 / noted) if self._turned else Fraction(noted)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height px of a picture before any turn, by the file's header; zeros where it has none."""
        return int(self._stream.width or 0), int(self._stream.height or 0)

    def _is_live(self) -> bool:
        """Whether the source cannot wait, by what it is and says."""
        if not self._place.startswith(EITHER):
            return self._place.startswith((*LIVE, CAMERA))
        container = self._container
        finite = container.size > 0 and PLAYLIST not in container.format.name.split(",")
        return container.duration is None and not finite

    def _choose(self) -> Any:
        """The stream of moving pictures; a song's cover is none."""
        covers = av.stream.Disposition.attached_pic
        streams = [one for one in self._container.streams.video if not one.disposition & covers]
        if not streams:
            cut = "" if self._container.streams else ", or is cut off before its index; fetch it again"
            raise Unreadable(f"{self.name}: has no video stream{cut or '; give a video'}")
        chosen = streams[0]
        if chosen.codec_context is None:
            raise Unreadable(f"{self.name}: its video stream is of a kind that cannot be decoded; convert it")
        chosen.thread_type = "SLICE" if self.live else "AUTO"
        chosen.codec_context.options = {"max_pixels": str(self.most_pixels)}
        return chosen

    def __iter__(self) -> Iterator[Picture]:
        for index, frame in enumerate(self._frames()):
            if frame is None:
                self.damaged += 1
                yield Picture(index, self._time(None), None)
            else:
                self.read += 1
                yield Picture(index, self._time(frame.time), self._pixels(frame))
        self._ended = True
        if not self.read and self._broken and self._far:
            raise Unreadable(f"{self.name}: broke off before its first picture: {self._broken}")
        if not self.read:
            reason = f" ({self._broken})" if self._broken else ""
            raise Unreadable(f"{self.name}: no picture in it can be decoded{reason}; fetch it again")

    def _frames(self) -> Iterator[Any]:
        """Decoded frames; None for a packet that could not be decoded."""
        try:
            for packet in self._container.demux(self._stream):
                self._packets += packet.size > 0
                try:
                    frames = packet.decode()
                except (av.FFmpegError, ValueError):
                    frames = [None]
                yield from frames
        except (av.FFmpegError, ValueError) as error:
            ends = isinstance(error, OSError) and error.errno == errno.EIO
            if not (ends and self._container.format.name == ENDLESS):
                self._broken = _reason(error)

    def _time(self, noted: float | None) -> float:
        """Seconds after the first picture: by the frame's own time stamp, unless it is damaged."""
        if self._origin is None and noted is not None and np.isfinite(noted):
            self._origin = noted - max(self._last, 0.0)  # pictures without a stamp may come before
        since = None if noted is None or self._origin is None else noted - self._origin
        if self._last == -np.inf:
            self._last = 0.0
        elif since is not None and self._last < since < self._last + GAP:
            self._last = since
        else:
            self._last += 1 / self.rate
        return self._last

    def _pixels(self, frame: Any) -> Pixels:
        # Asked for its side data, a frame stays until Python's collector comes by: 500 MB of them at 1080p.
        if frame.rotation != self._turn:
            self._turn, self._matrix = frame.rotation, _matrix(frame)
        a, b, c, d = self._matrix
        self._turned = max(abs(b), abs(c)) > max(abs(a), abs(d))
        return displayed(frame.to_ndarray(format="rgb24"), a, b, c, d)

    def remark(self) -> str | None:
        """What a user has to know of what was read, in one line; None where all is well."""
        dropped = f"{self.dropped} of {self.read} pictures were dropped to keep up" if self.dropped else ""
        if self._broken and self._far:
            kept = f"broke off after {self.read} pictures, which are kept: {self._broken}"
            return f"{self.name}: {kept}{'; ' if dropped else ''}{dropped}"
        if dropped:
            return f"{self.name}: {dropped}"
        missing = self._ended and self.expected is not None and self._packets < self.expected
        short = self._ended and self._last + 2 / self.rate + SLACK < self._length
        if not (missing or short or self.damaged or self._broken):
            return None
        total = f"{self.read} of {self.expected} frames" if missing else f"{self.read} frames"
        return f"{self.name}: is cut off or damaged: {total} could be read, and are kept"

    def close(self) -> None:
        """Close the file. No other thread may be reading from it."""
        self._container.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def displayed(pixels: Pixels, a: float, b: float, c: float, d: float) -> Pixels:
    """Pixels (H, W, 3) as a display matrix shows them: (x, y) goes to (a x + c y, b x + d y), and back into
    the picture; the nearest of the four turns and their mirror images is taken.
    """
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _matrix(frame: Any) -> tuple[float, float, float, float]:
    """The upper left part of a frame's display matrix, by rows; without one that of no turn."""
    try:
        found = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # side data of a kind that the binding does not know: the turn alone is told
        turn = np.deg2rad(-frame.rotation)
        return float(np.cos(turn)), float(np.sin(turn)), float(-np.sin(turn)), float(np.cos(turn))
    if found is None:
        return 1.0, 0.0, 0.0, 1.0
    a, b, _, c, d, *_ = struct.unpack("<9i" if sys.byteorder == "little" else ">9i", bytes(found))
    return a, b, c, d


def _opened(source: str, name: str) -> Any:
    """A container that is open for reading; `Unreadable` with `name` and the reason where it cannot be."""
    place, form, options = source, None, {}
    if source.startswith(CAMERA):
        if sys.platform not in CAMERAS:
            raise Unreadable(f"{name}: cameras are not known on {sys.platform}; give a stream's URL")
        form, pattern = CAMERAS[sys.platform]
        place = pattern.format(source.removeprefix(CAMERA))
    elif source.startswith(STREAMS):
        options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
    else:
        _refuse_unfit(Path(source))
        place, options = f"file:{source}", {"protocol_whitelist": "file"}
    timeout = PATIENCE if source.startswith((*STREAMS, CAMERA)) else None
    try:
        container = av.open(place, format=form, options=options, timeout=timeout, metadata_errors="ignore")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = _reason(error).replace(source, name)
        raise Unreadable(f"{name}: cannot be read as a video: {reason}") from None
    if place.startswith("file:") and container.format.name in LEADING_ELSEWHERE:
        container.close()
        raise Unreadable(f"{name}: is text, or a list of other files, and no video; give the video itself")
    return container


def _length(container: Any) -> float:
    """Seconds from the first picture to the end, by the header; some formats count them from time zero."""
    start, duration = ((value or 0) / av.time_base for value in (container.start_time, container.duration))
    return duration - start if 0 < start < duration else duration


def _refuse_unfit(path: Path) -> None:
    """`Unreadable` for a file that is empty, claims too many pixels, or has a form that is not decoded."""
    try:
        folder = path.is_dir()
        if not folder:
            with path.open("rb") as file:
                head = file.read(HEAD)
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file; give the path of a video, or a stream's URL") from None
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {disk_trouble(error)}") from None
    except ValueError as error:  # a NUL in the name
        raise Unreadable(f"{str(path)!r}: no name of a file ({error})") from None
    if folder:
        raise Unreadable(f"{path}: is a folder; give a video file")
    if not head:
        raise Unreadable(f"{path}: has 0 bytes; fetch it again")
    if (claim := too_many_pixels(head)) is not None:
        raise Unreadable(f"{path}: {claim}")
    if is_animated_webp(head):
        raise Unreadable(f"{path}: is an animated WebP, which cannot be decoded; convert it to GIF or MP4")


def _reason(error: BaseException) -> str:
    if isinstance(error, av.error.InvalidDataError):
        return "it is none, or is cut off before its index; fetch it again"
    late = isinstance(error, OSError) and error.errno == errno.ETIMEDOUT
    if late or isinstance(error, av.error.ExitError):  # PyAV ends what waits too long
        return f"nothing came for {PATIENCE:.0f} s"
    return one_line(error)[:200]


def is_animated_webp(head: bytes) -> bool:
    """Whether a file that begins so is a WebP of more than one picture."""
    return head.startswith(b"RIFF") and head[12:16] == b"VP8X" and len(head) > 20 and bool(head[20] & 2)


class VideoWriter:
    """A video of RGB pictures at their own times, in H.264 where the libraries have it, else in MPEG-4.

    It is written under a temporary name beside `path`; `close` puts it in its place, playable, and `discard`
    leaves nothing. The first picture sets the size, made even; others are fitted into it. UserError for an
    ending that is none of .mp4, .mov and .mkv, and where the disk does not take it.
    """

    def __init__(self, path: Path, rate: float = USUAL_RATE) -> None:
        """`rate` is that of the pictures, per second, about."""
        self.path, self.rate = path, rate
        self.aspect: Fraction | None = None  # a pixel's width over its height, as the first picture finds it
        self.form = CONTAINERS.get(path.suffix.lower())
        if self.form is None:
            raise UserError(f"{path}: cannot be written: end its name in {', '.join(CONTAINERS)}")
        self.target = destination(path)
        self.temporary = temporary_beside(self.target)
        self.fitted = False  # whether a picture had another size than the first
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def write(self, pixels: Pixels, time: float) -> None:
        """Add a picture (H, W, 3) at `time` s, later than the one before."""
        height, width = pixels.shape[:2]
        with self._told():
            if self._container is None:
                self._open((width + width % 2, height + height % 2))
            size = self._stream.width, self._stream.height
            if (width, height) != size:
                self.fitted |= (width + width % 2, height + height % 2) != size
                pixels = _fitted(pixels, size)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = self._last = max(round(time * TICKS), self._last + 1)
            frame.time_base = Fraction(1, TICKS)
            self._container.mux(self._stream.encode(frame))

    def _open(self, size: tuple[int, int]) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self.temporary), "w", format=self.form)
        name, options = next(one for one in ENCODERS if one[0] in av.codecs_available)
        rate = Fraction(self.rate).limit_denominator(1001)
        self._stream = self._container.add_stream(name, rate=rate, options=options)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        if self.aspect is not None:
            self._stream.codec_context.sample_aspect_ratio = self.aspect

    def close(self) -> bool:
        """Finish the file and put it in its place; whether there is one: without a picture there is none."""
        if self._container is None:
            return False
        with self._told():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            os.replace(self.temporary, self.target)
        return True

    def discard(self) -> None:
        """Leave nothing of it."""
        container, self._container = self._container, None
        with suppress(av.FFmpegError, OSError):  # the first error is the one to be told
            if container is not None:
                container.close()
        with suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    def _told(self) -> Any:
        return writing(self.path)


def _fitted(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """A picture scaled into `size` (w, h), its aspect ratio kept; an odd side gets its last line twice."""
    height, width = pixels.shape[:2]
    zoom = min(size[0] / width, size[1] / height)
    if zoom < 1 or max(size[0] - width, size[1] - height) > 1:
        inner = max(1, min(size[0], round(width * zoom))), max(1, min(size[1], round(height * zoom)))
        pixels = np.asarray(cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA), np.uint8)
        height, width = pixels.shape[:2]
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        sides = top, size[1] - height - top, left, size[0] - width - left
        return np.asarray(cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT), np.uint8)
    last = cv2.copyMakeBorder(pixels, 0, size[1] - height, 0, size[0] - width, cv2.BORDER_REPLICATE)
    return np.asarray(last, np.uint8)
