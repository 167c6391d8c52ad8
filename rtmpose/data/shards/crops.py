"""One crop per person: everything the strongest augmentation can show of the photograph, and not a pixel more
than it needs.

A crop stands for its photograph: `origin` and `scale` lead from its pixels back to the image's, so
augmentation is computed in image px as if the whole photograph were there, and only the pixels come from the
crop.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rtmpose.data.raw.annotations import Person, RawImage
from rtmpose.data.shards.index import MCU, TILES
from rtmpose.files import UserError
from rtmpose.geometry import HALF_BODY_PADDING, PADDING, Floats, decode, fix_aspect, half_body, pad_box
from rtmpose.skeleton import Skeleton

QUALITY = 88  # chosen with FINER by `benchmarks/crop_quality.py`
FINER = 1.5  # crop px per input px in the closest look at a full box
TILE_COLUMNS = (7, 6, 8, 5, 9)  # widths of a tile in MCUs, the best first


@dataclass(frozen=True)
class CutFor:
    """What the crops are large and sharp enough for: the largest input (w, h) px, and the strongest box
    jitter: shift as a share of the padded box, scale as a share of 1, rotation in degrees, with the padding
    of the box (RTMPose's strong stage).
    """

    input_size: tuple[int, int]
    shift: float = 0.16
    scale: float = 0.4
    rotate: float = 80.0
    padding: float = PADDING
    half_body_padding: float = HALF_BODY_PADDING

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Crop:
    """An image region (left, top, right, bottom) px and its pixels reduced by `scale` (x, y), crop px per
    image px (<= 1).
    """

    pixels: NDArray[np.uint8]
    origin: tuple[int, int]
    scale: tuple[float, float]

    def to_crop(self, points: ArrayLike) -> Floats:
        """Image px (..., 2) -> crop px; pixel centres map to pixel centres, as area resampling has them."""
        return (np.asarray(points, np.float64) - self.origin + 0.5) * self.scale - 0.5


def clip_box(box: ArrayLike, width: int, height: int) -> tuple[float, float, float, float]:
    """An xywh box px cut to [0, width-1] x [0, height-1]; a side of a box outside the image comes out
    negative or 0.
    """
    x, y, w, h = map(float, np.asarray(box))
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + w, width - 1.0) - left, min(y + h, height - 1.0) - top


def crop_region(
    person: Person, skeleton: Skeleton, cut_for: CutFor, width: int, height: int
) -> tuple[tuple[int, int, int, int], float]:
    """The (left, top, right, bottom) px that any allowed augmentation of the person can reach, and the
    reduction (<= 1).

    The region is the union over the full box and both half bodies. The reduction keeps FINER crop px per
    input px where the full box is shown largest, at scale 1 - `cut_for.scale`; a half body is a closer look
    at the same pixels and gets no finer ones. The region begins at multiples of 8 px, where the photograph's
    own JPEG blocks begin.
    """
    aspect = cut_for.input_size[0] / cut_for.input_size[1]
    center, scale = pad_box(clip_box(person.box, width, height), cut_for.padding)
    views = [(center, scale)]
    seen = (person.visible > 0).tolist()
    for half in (skeleton.upper, skeleton.lower):
        if sum([seen[k] for k in half]) >= 2:
            views.append(half_body(person.keypoints, person.visible, half))
    # Plain numbers from here on: for one person, array operations cost more than they compute.
    scales = [s.tolist() for _, s in views]
    sides = fix_aspect(scales, aspect).tolist()
    edges = [
        _edges(c.tolist(), s, side, cut_for) for (c, _), s, side in zip(views, scales, sides, strict=True)
    ]
    left, top = (max(math.floor(min(edge[i] for edge in edges)), 0) // MCU * MCU for i in (0, 1))
    right = min(max(math.ceil(max(edge[2] for edge in edges) + 1), 1), width)
    bottom = min(max(math.ceil(max(edge[3] for edge in edges) + 1), 1), height)
    reduction = min(1.0, FINER * cut_for.input_size[0] / (sides[0][0] * (1 - cut_for.scale)))
    if reduction == 1:
        right = min(left + tileable(right - left), width)
    return (left, top, right, bottom), reduction


def _edges(
    center: list[float], scale: list[float], side: list[float], cut_for: CutFor
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) px of all that a crop of sides `scale`, lengthened to `side`, can show, at
    the worst shift, scale and rotation.
    """
    w, h = (length / 2 * (1 + cut_for.scale) for length in side)
    # Of the corner's turn by any angle up to `rotate`, the extent is largest where the half diagonal lies on
    # the axis.
    most = math.radians(cut_for.rotate)
    across, along = min(most, math.atan2(h, w)), min(most, math.atan2(w, h))
    dx = w * math.cos(across) + h * math.sin(across) + cut_for.shift * scale[0]
    dy = h * math.cos(along) + w * math.sin(along) + cut_for.shift * scale[1]
    return center[0] - dx, center[1] - dy, center[0] + dx, center[1] + dy


def cut_crop(image: NDArray[np.uint8], region: tuple[int, int, int, int], reduction: float) -> Crop:
    """Cut `region` out of an image (H, W, 3) and reduce it; never enlarges.

    Cubic, without a low-pass before: augmentation warps the photograph by bilinear sampling alone, and this
    comes closest.
    """
    left, top, right, bottom = region
    pixels = image[top:bottom, left:right]
    height, width = pixels.shape[:2]
    if reduction < 1:
        # Rounded up: the crop must not become coarser than the input needs.
        size = (min(tileable(math.ceil(width * reduction)), width), math.ceil(height * reduction))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    return Crop(pixels, (left, top), (pixels.shape[1] / width, pixels.shape[0] / height))


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
