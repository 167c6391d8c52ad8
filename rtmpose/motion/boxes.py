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
    shown = seen[..., None]
    low = np.where(shown, points, np.inf).min(1)
    high = np.where(shown, points, -np.inf).max(1)
    return np.where(seen.sum(1)[:, None] >= 2, np.concatenate([low, high], 1), np.nan)


def sides_of(boxes: Floats) -> Floats:
    """Width and height (..., 2) px, at least 1 px each: what margins and sizes are measured in."""
    return np.maximum(boxes[..., 2:] - boxes[..., :2], 1.0)


def sizes(boxes: Floats) -> Floats:
    """A person's size in px: the square root of the area of the box (N, 4)."""
    return np.sqrt(sides_of(boxes).prod(-1))


def margins_of(extent: Floats, boxes: Floats) -> Floats:
    """How far boxes (N, 4) reach beyond the extent of the points (N, 4): left, top, right, bottom as shares
    of the extent's sides, from 0.02 to 0.3 each. So a box from points frames the person as the detector did.
    """
    outward = np.concatenate([extent[:, :2] - boxes[:, :2], boxes[:, 2:] - extent[:, 2:]], 1)
    return np.clip(outward / np.tile(sides_of(extent), 2), LEAST_MARGIN, MOST_MARGIN)


def with_margins(extent: Floats, margins: Floats) -> Floats:
    """The extent (N, 4) widened by `margins` (N, 4): always around all points of the extent."""
    outward = margins * np.tile(sides_of(extent), 2)
    return np.concatenate([extent[:, :2] - outward[:, :2], extent[:, 2:] + outward[:, 2:]], 1)


def moved(boxes: Floats, by: Floats) -> Floats:
    """Boxes (N, 4) moved by (N, 2) px."""
    return boxes + np.tile(by, 2)


def clipped(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Boxes (N, 4) cut to the frame of `size` (w, h); one outside gets no area."""
    return np.clip(boxes, 0.0, np.tile(np.asarray(size, np.float64), 2))


def areas(boxes: Floats) -> Floats:
    return np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0).prod(-1)


def overlaps(first: Floats, second: Floats) -> Floats:
    """Intersection over union of every pair of boxes, (N, 4) and (M, 4): (N, M)."""
    a, b = first[:, None], second[None]
    both = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.maximum(both, 0.0).prod(-1)
    union = areas(first)[:, None] + areas(second)[None] - common
    return common / np.maximum(union, np.spacing(1.0))
