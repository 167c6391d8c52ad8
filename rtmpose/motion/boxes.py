"""Boxes from points: how the frames between two detections get theirs (RTMPose, arXiv 2303.07399,
section 3.5). All boxes are x1, y1, x2, y2 px.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_MARGIN = 0.02  # of the extent, on each side
MOST_MARGIN = 0.3
MARGIN_GAIN = 0.5  # how much of a new detection's margins is taken over


def extents(points: Floats, seen: Bools) -> Floats:
    """The smallest box (N, 4) around each person's points (N, K, 2) that are `seen` (N, K); NaN where fewer
    than two are, for one point has no extent.
    """
    out = np.where(seen, 0.0, np.inf)[..., None]
    extent = np.concatenate([(points + out).min(1), (points - out).max(1)], 1)
    extent[seen.sum(1) < 2] = np.nan
    return extent


def sides_of(boxes: Floats) -> Floats:
    """Width and height (..., 2) px, at least 1 px each: what margins and sizes are measured in."""
    return np.maximum(boxes[..., 2:] - boxes[..., :2], 1.0)


def sizes(boxes: Floats) -> Floats:
    """A person's size in px: the square root of the area of the box (N, 4)."""
    sides = sides_of(boxes)
    return np.sqrt(sides[..., 0] * sides[..., 1])


def margins_of(extent: Floats, boxes: Floats) -> Floats:
    """How far boxes (N, 4) reach beyond the extent of the points (N, 4): left, top, right, bottom as shares
    of the extent's sides, from 0.02 to 0.3 each. So a box from points frames the person as the detector did.
    """
    outward = np.concatenate([extent[:, :2] - boxes[:, :2], boxes[:, 2:] - extent[:, 2:]], 1)
    return np.clip(outward / sides_of(extent)[:, [0, 1, 0, 1]], LEAST_MARGIN, MOST_MARGIN)


def with_margins(extent: Floats, margins: Floats) -> Floats:
    """The extent (N, 4) widened by `margins` (N, 4): always around all points of the extent."""
    outward = margins * sides_of(extent)[:, [0, 1, 0, 1]]
    return np.concatenate([extent[:, :2] - outward[:, :2], extent[:, 2:] + outward[:, 2:]], 1)


def moved(boxes: Floats, by: Floats) -> Floats:
    """Boxes (N, 4) moved by (N, 2) px."""
    return boxes + by[..., [0, 1, 0, 1]]


def clipped(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Boxes (N, 4) cut to the frame of `size` (w, h); one outside gets no area."""
    return np.clip(boxes, 0.0, np.tile(np.asarray(size, np.float64), 2))


def areas(boxes: Floats) -> Floats:
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def overlaps(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every pair of boxes, (N, 4) and (M, 4): (N, M)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.maximum(high - low, 0.0)
    common = both[..., 0] * both[..., 1]
    union = areas(first)[:, None] + areas(second) - common
    return np.asarray(common / np.maximum(union, np.spacing(1.0)))


def meeting(boxes: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pairs (a, b), a < b, of boxes (N, 4) that have some area in common."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    a, b = np.nonzero((high > low).all(-1))
    once = a < b
    return a[once], b[once]
