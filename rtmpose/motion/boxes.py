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
BORDER = 0.01  # of the picture's sides, within which an edge lies on its border


def squared_length(vectors: Floats) -> Floats:
    """Of each vector (..., 2). By columns: a sum over an axis of two costs numpy many times as much."""
    return np.asarray(vectors[..., 0] ** 2 + vectors[..., 1] ** 2)


def extents(points: Floats, seen: Bools) -> Floats:
    """The smallest box (N, 4) around each person's points (N, K, 2) that are `seen` (N, K); NaN where fewer
    than two are, for one point has no extent.
    """
    out = np.where(seen, 0.0, np.inf)
    x, y = points[..., 0], points[..., 1]
    edges = ((x + out).min(1), (y + out).min(1), (x - out).max(1), (y - out).max(1))
    extent = np.stack(edges, 1)
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


def middles(boxes: Floats) -> Floats:
    """The middle (N, 2) of each box (N, 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def at_border(boxes: Floats, picture: tuple[int, int]) -> Bools:
    """Which edges (N, 4) of boxes (N, 4) lie on the border of the picture of that width and height, px."""
    sides = np.asarray(picture, np.float64)
    near = BORDER * sides
    return np.concatenate([boxes[:, :2] <= near, boxes[:, 2:] >= sides - near], 1)


def cut_sides(boxes: Floats, picture: tuple[int, int]) -> tuple[Bools, Bools]:
    """Whether the picture's border cuts boxes (N, 4) in their width (N,), and in their height (N,)."""
    cut = at_border(boxes, picture)
    either = cut[:, :2] | cut[:, 2:]
    return either[:, 0], either[:, 1]


def carried(boxes: Floats, by: Floats, picture: tuple[int, int]) -> Floats:
    """Where a detector would see boxes (N, 4) that moved by (N, 2) px: an edge on the picture's border stays
    there, whether the person comes in or goes out, and what is outside is cut.
    """
    gone = moved(boxes, by)
    return clipped(np.where(at_border(boxes, picture), boxes, gone), picture)


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


def near(first: Floats, reach: Floats, second: Floats) -> Bools:
    """Which of the boxes (N, 4), widened by `reach` (N,) px, meet which others (M, 4): (N, M)."""
    wide = reach[:, None]
    low, high = (first[:, :2] - wide)[:, None], (first[:, 2:] + wide)[:, None]
    meet = (low < second[:, 2:]) & (high > second[:, :2])
    return np.asarray(meet[..., 0] & meet[..., 1])


def paired_overlaps(first: Floats, second: Floats) -> Floats:
    """Intersection over union (N,) of each box of `first` (N, 4) with the same of `second` (N, 4)."""
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    both = np.maximum(sides[:, 0], 0.0) * np.maximum(sides[:, 1], 0.0)
    return np.asarray(both / np.maximum(areas(first) + areas(second) - both, np.spacing(1.0)))


def meeting(boxes: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pairs (a, b), a < b, of boxes (N, 4) that have some area in common."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    a, b = np.nonzero((high[..., 0] > low[..., 0]) & (high[..., 1] > low[..., 1]))
    once = a < b
    return a[once], b[once]
