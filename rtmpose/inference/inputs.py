"""What a user gives to look at: pictures, folders and patterns of them, videos, streams and cameras."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rtmpose.data.raw.limits import claimed_size, unread_kind
from rtmpose.files import UserError, is_there
from rtmpose.inference.video import CAMERA, STREAMS, is_animated_webp

PICTURES = {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".jp2", ".ppm"}
FILM = "a film"
PATTERN = re.compile(r"[*?\[]")
HEAD = 64  # bytes that tell a picture from a video


@dataclass(frozen=True)
class Input:
    """One picture or video: a path, a URL, or `camera:` and a number."""

    kind: Literal["picture", "video"]
    name: str


def inputs_of(given: Sequence[str], *, video: bool = False) -> list[Input]:
    """Everything that is to be looked at, in order; with `video` each file is taken for one, animations too.

    A folder stands for the pictures in it, a pattern (`*`, `?`, `[…]`) for what it matches, both sorted; a
    number for a camera. UserError for what is not there, and for a folder or pattern without anything.
    """
    found: list[Input] = []
    for text in given:
        found += _expanded(text, video)
    return found


def _expanded(text: str, video: bool) -> list[Input]:
    if text.startswith((*STREAMS, CAMERA)):
        return [Input("video", text)]
    if is_there(Path(text)):
        return [_file(text, video)]
    if text.isdecimal() and text.isascii():
        return [Input("video", f"{CAMERA}{int(text)}")]
    if _is_folder(text):
        names = sorted(str(path) for path in Path(text).iterdir() if path.suffix.lower() in PICTURES)
        if not names:
            raise UserError(f"{text}: a folder without pictures; name its videos themselves")
        return [_file(name, video) for name in names]
    if PATTERN.search(text):
        names = sorted(name for name in glob.glob(text, recursive=True) if is_there(Path(name)))
        if not names:
            raise UserError(f"{text}: matches no file; correct the pattern")
        return [_file(name, video) for name in names]
    raise UserError(f"{text!r}: no such file; give a picture, a video, a folder, a URL or a camera's number")


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _file(name: str, video: bool) -> Input:
    """A file by what it holds; by its name where that says nothing."""
    if video:
        return Input("video", name)
    try:
        with Path(name).open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from None
    known = head.startswith((b"\xff\xd8", b"BM")) or claimed_size(head) is not None
    other = unread_kind(head)
    if known or (other is not None and other != FILM):
        return Input("picture", name)
    if other != FILM and (Path(name).suffix.lower() in PICTURES):
        return Input("picture", name)
    return Input("video", name)


def is_animated(content: bytes) -> bool:
    """Whether a GIF, PNG or WebP file holds more than one picture."""
    if content.startswith((b"GIF87a", b"GIF89a")):
        return content.count(b"\x21\xf9\x04") > 1
    if content.startswith(b"\x89PNG"):
        return 0 <= content.find(b"acTL") < content.find(b"IDAT")
    return is_animated_webp(content)
