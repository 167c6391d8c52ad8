"""Photographs as they were downloaded: read, checked and decoded."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.annotations import RawImage
from rtmpose.files import UserError


def read_photograph(raw: RawImage, bgr: bool = False) -> tuple[bytes, NDArray[np.uint8]]:
    """The file's bytes and its pixels (H, W, 3), RGB or BGR; UserError naming the file where it is missing,
    cut, damaged or of another size.
    """
    try:
        content = raw.path.read_bytes()
    except OSError as error:
        raise UserError(f"{raw.path}: cannot be read ({error.strerror}): unpack the images again") from error
    if content.startswith(b"\xff\xd8") and not is_whole_jpeg(content):
        raise UserError(
            f"{raw.path}: the JPEG is cut off ({len(content)} bytes, no end marker): download it again"
        )
    pixels = decode(content, bgr)
    if pixels is None:
        raise UserError(f"{raw.path}: not an image that can be decoded: download it again")
    height, width = pixels.shape[:2]
    if raw.width is not None and (raw.width, raw.height) != (width, height):
        raise UserError(
            f"{raw.path}: is {width}x{height} px, its annotations say {raw.width}x{raw.height}: wrong image"
        )
    return content, pixels


def is_whole_jpeg(content: bytes) -> bool:
    """Whether the last scan of a JPEG ends. The decoder fills what a cut file lacks with grey and says
    nothing.

    Scan data stuff every 0xFF, so neither marker can occur inside it; a thumbnail in the header ends before
    the last scan starts, and padding after the end does no harm.
    """
    # The last end is sought first: in a whole file it is a few bytes away.
    end = content.rfind(b"\xff\xd9")
    return 0 <= content.find(b"\xff\xda") < end and content.find(b"\xff\xda", end) < 0


def decode(content: bytes | memoryview | NDArray[np.uint8], bgr: bool = False) -> NDArray[np.uint8] | None:
    """Image bytes -> uint8 (H, W, 3) RGB (or BGR, which OpenCV encodes from), None where they are no image. A
    turn noted in EXIF is ignored: annotations are.
    """
    flags = (cv2.IMREAD_COLOR_BGR if bgr else cv2.IMREAD_COLOR_RGB) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags) if len(content) else None
    except cv2.error:  # more pixels than it takes for an image
        return None
