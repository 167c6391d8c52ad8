"""A photograph as it is read: its bytes, whether they are whole, and which way up its pixels are.

**One rule for which way up.** A camera that was held sideways stores its pixels as they came from the sensor
and notes a turn in EXIF. Two frames of coordinates follow from that, and every reader of this package says
which it wants:

- `stored`: the pixels as they lie in the file. COCO's annotations refer to it, and so does a data set unless
  its
  descriptor says otherwise. The turn is ignored.
- `display`: the picture as browsers and viewers show it. Annotation tools that run in a browser refer to it;
  their
  descriptors say `exif: display`. `rtmpose predict` uses it, since nobody has annotated its photograph:
  people look at it, give their boxes in it, and expect persons upright.

Training shards, evaluation and checks read a data set in the frame of its descriptor; where the sizes in an
annotation file fit the other frame alone, the message names the turn and the key.
"""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.exif import TIFF, TURNS, Pixels, orientation, upright, without_turn
from rtmpose.data.raw.fields import shown
from rtmpose.data.raw.limits import too_many_pixels, unread_kind
from rtmpose.data.raw.records import Fault, RawImage
from rtmpose.data.raw.stacks.metaimage import open_stack
from rtmpose.descriptors import Frame
from rtmpose.files import UserError

LONGEST = 255  # bytes of a file's name, without its folders
OUTSIDE = "path outside the raw folder"
FAST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class PhotographError(UserError):
    """A photograph that cannot be used; `reason` is the short one that persons are skipped for."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason

    def __reduce__(self) -> tuple[type[PhotographError], tuple[str, str]]:
        return type(self), (self.reason, str(self))


def read_photograph(raw: RawImage, bgr: bool = False) -> tuple[bytes, Pixels]:
    """The file's bytes, and its pixels (H, W, 3) RGB or BGR in the frame `raw.exif`; of one image of a stack
    the bytes of a PNG of it, without its padding.

    Raises PhotographError naming the file where it is missing, cut, damaged, or of another size than its
    annotations say.
    """
    if raw.fault is not None:
        raise PhotographError(*raw.fault)
    if raw.page is not None:
        return _read_page(raw, raw.page, bgr)
    try:
        content = raw.path.read_bytes()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise PhotographError(
            "missing image", f"{raw.path}: cannot be read ({reason}): unpack the images again"
        ) from error
    pixels = decode_photograph(content, raw.path, raw.exif, bgr)
    if raw.width is not None and raw.height is not None:
        _compare_size(raw, (raw.width, raw.height), pixels, content)
    return content, pixels


def _read_page(raw: RawImage, page: int, bgr: bool) -> tuple[bytes, Pixels]:
    try:
        pixels = open_stack(raw.path).page(page)[: raw.height, : raw.width]
    except UserError as error:
        raise PhotographError("corrupt image", str(error)) from error
    # Most are grey, in three equal channels: a third of the bytes says as much.
    grey = (pixels == pixels[..., :1]).all()
    done, content = cv2.imencode(".png", pixels[..., 0] if grey else pixels[..., ::-1], FAST_PNG)
    assert done
    channels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return content.tobytes(), np.ascontiguousarray(channels[..., ::-1] if bgr else channels)


def decode_photograph(content: bytes, path: Path, frame: Frame, bgr: bool = False) -> Pixels:
    """A file's bytes -> pixels (H, W, 3) in `frame`; PhotographError naming `path` where it is cut or no
    image.
    """
    if content.startswith(b"\xff\xd8") and not is_whole_jpeg(content):
        raise PhotographError(
            "corrupt image",
            f"{path}: the JPEG is cut off ({len(content)} bytes, no end marker): download it again",
        )
    if (claim := too_many_pixels(content)) is not None:
        raise PhotographError("too many pixels", f"{path}: {claim}")
    pixels = decode(content, bgr)
    if pixels is None:
        kind = unread_kind(content)
        fix = f"is {kind}, which is not read: convert it to JPEG or PNG"
        problem = fix if kind else "not an image that can be decoded: download it again"
        raise PhotographError("corrupt image", f"{path}: {problem}")
    return pixels if frame == "stored" else upright(pixels, orientation(content))


def locate(root: Path, images: Path, name: str, where: str) -> tuple[Path, Fault | None]:
    """The file that an annotation file calls `name`, in the folder `images` of a raw folder `root`, and why
    it is not to be opened, if so. `where` names the annotation file and the image.

    Backslashes of Windows part folders where no file has them in its name. A name must not lead out of the
    raw folder.
    """
    path = images / name
    if "\0" in name or any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        problem = f"is no name of a file: it holds a NUL, or is longer than {LONGEST} bytes"
        return path, ("missing image", f"{where}: file_name {shown(name)} {problem}; correct it")
    drive = PureWindowsPath(name).drive
    if ("\\" in name or drive) and not is_file(path):
        windows = PureWindowsPath(name)
        says = f"{where}: file_name {name!r} is a Windows path"
        if drive or windows.root:
            return path, (
                "missing image",
                f"{says} of another machine; write file names relative to {images}",
            )
        path = images / windows.as_posix()
        if not _leads_out(path, root, images) and not is_file(path):
            return path, ("missing image", f"{says}, and there is no {path}; unpack the images again")
    if _leads_out(path, root, images):
        problem = f"{where}: file_name {name!r} leads out of {root}"
        return path, (OUTSIDE, f"{problem}; write file names relative to {images}")
    return path, None


def _leads_out(path: Path, root: Path, images: Path) -> bool:
    """Whether a path lies neither below `root` nor below `images`; links are not followed, they are the
    user's.
    """
    found = os.path.abspath(path)
    return not any(os.path.commonpath([found, top]) == top for top in map(os.path.abspath, (root, images)))


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is no error."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or with a NUL in it
        return False


def _compare_size(raw: RawImage, said: tuple[int, int], pixels: Pixels, content: bytes) -> None:
    """PhotographError where the pixels have not the size (w, h) that the annotations say."""
    found = pixels.shape[1], pixels.shape[0]
    if found == said:
        return
    turn, other = orientation(content), "display" if raw.exif == "stored" else "stored"
    size, says = f"{found[0]}x{found[1]} px", f"its annotations say {said[0]}x{said[1]}"
    if turn >= 5 and said == found[::-1]:
        done = "as stored" if raw.exif == "stored" else "as displayed"
        turned = f"its EXIF says that it is to be {TURNS[turn]} (orientation {turn})"
        raise PhotographError(
            "EXIF turn",
            f"{raw.path}: {turned}: it is {size} {done}, {says}, which is the other frame; set "
            f"`exif: {other}` in the descriptor, or save the photographs without a turn",
        )
    raise PhotographError("wrong size", f"{raw.path}: is {size}, {says}: wrong image")


def is_whole_jpeg(content: bytes) -> bool:
    """Whether a JPEG's picture ends; what follows its end, such as the film of a motion photo, does not
    matter.

    The decoder fills what a cut file lacks with grey and says nothing.
    """
    # Where the file's last end marker comes after its last scan, no bytes need to be walked. Scan data stuff
    # every 0xFF, so neither marker can occur inside; a thumbnail in the header ends before the last scan
    # starts.
    end = content.rfind(b"\xff\xd9")
    if 0 <= content.find(b"\xff\xda") < end and content.find(b"\xff\xda", end) < 0:
        return True
    return end >= 0 and _reaches_end(content)


def _reaches_end(content: bytes) -> bool:
    """Whether a walk from segment to segment meets the end of the image (EOI) within the bytes."""
    at, scanned = 2, False
    while True:
        at = content.find(b"\xff", at)
        if at < 0 or at + 1 >= len(content):
            return False
        marker = content[at + 1]
        if marker == 0xD9:
            return scanned
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0 or 0xD0 <= marker <= 0xD7:  # stuffing, or a restart inside a scan
            at += 2
        else:
            scanned |= marker == 0xDA
            at += 2 + max(int.from_bytes(content[at + 2 : at + 4], "big"), 2)


def decode(content: bytes | memoryview | NDArray[np.uint8], bgr: bool = False) -> NDArray[np.uint8] | None:
    """Image bytes -> uint8 (H, W, 3) RGB (or BGR, which OpenCV encodes from), None where they are no image. A
    turn noted in EXIF is ignored here: see `upright`.
    """
    flags = (cv2.IMREAD_COLOR_BGR if bgr else cv2.IMREAD_COLOR_RGB) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        if not len(content) or too_many_pixels(bytes(content)) is not None:
            return None
        if bytes(content[:4]) in TIFF:
            content = without_turn(bytes(content))
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # more pixels than it takes for an image
        return None
