"""Who comes back: people out of sight, known again by place and size, without their looks."""

from __future__ import annotations

import numpy as np

from rtmpose.motion.boxes import Floats, cut_sides, middles, sides_of, sizes, squared_length
from rtmpose.motion.identity.likeness import Moment
from rtmpose.motion.observed import Observed
from rtmpose.motion.tracks import Tracks

TURNED = 0.5  # worth of a place where somebody was last seen, beside one further on the way
FAR = 0.5  # sizes of the way from which that holds in full
AWAY = 0.6  # sizes beside the expected way where somebody who returns is half as likely
AWAY_RATE = 0.4  # the same, more per second out of sight
GROWTH = 0.35  # log of the ratio of sizes at which somebody who returns is a third as likely


def return_similarity(
    last: Floats, onward: Floats, places: Floats, growth: Floats, elapsed: Floats
) -> Floats:
    """How likely M new people are N that were out of sight, (N, M) in [0, 1], by place and size.

    Who was hidden may have stood still or gone on: what counts is the distance to the way from where
    somebody was last seen to where an unchanged speed leads. To have gone on is the more likely.

    Args:
        last, onward: (N, 1, 2), the ends of the way, in sizes of the person. places: (N, M, 2), of the
        new people. growth: (N, M), the new size by the old one. elapsed: (N,) s out of sight.
    """
    way = onward - last
    length = np.maximum(squared_length(way), np.spacing(1.0))
    along = np.clip(((places - last) * way).sum(-1) / length, 0.0, 1.0)
    beside = squared_length(places - last - along[..., None] * way)
    reach = AWAY + AWAY_RATE * elapsed[:, None]
    behind = (1 - along) * np.minimum(np.sqrt(length) / FAR, 1.0)
    near = np.exp(-np.log(2) * beside / reach**2 - (np.log(growth) / GROWTH) ** 2)
    return near * (1 - (1 - TURNED) * behind)


def growths(before: Floats, size: Floats, after: Floats, picture: tuple[int, int]) -> Floats:
    """By how much M people are larger than N were, (N, M), by the sides that the picture's border does not
    cut: of somebody who comes in or goes out by the side the height alone tells. 1 where both are cut.

    Args:
        before: (N, 4) px, the boxes in which people were last seen, of `size` (N,) px. after: (M, 4) px.
        picture: width and height, px.
    """
    narrowed, shortened = (
        first[:, None] | second
        for first, second in zip(cut_sides(before, picture), cut_sides(after, picture), strict=True)
    )
    sides = sides_of(after)[None] / sides_of(before)[:, None]
    whole = sizes(after)[None] / size[:, None]
    partly = np.where(narrowed, np.where(shortened, 1.0, sides[..., 1]), sides[..., 0])
    return np.where(narrowed | shortened, partly, whole)


def returns(known: Tracks, found: Observed, now: Moment) -> Floats:
    """How likely each found person is one that was out of sight, (N, M), by the boxes. Who went out of the
    picture is expected where that was, at its border.
    """
    elapsed = now.time - known.seen
    size = known.size[:, None]
    last = middles(known.box)
    onward = np.clip(last + known.body * elapsed[:, None], 0.0, now.size)
    growth = growths(known.box, known.size, found.box, now.size)
    places = middles(found.box)[None] / size[:, None]
    return return_similarity((last / size)[:, None], (onward / size)[:, None], places, growth, elapsed)
