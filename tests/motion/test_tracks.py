"""What is remembered of people."""

from __future__ import annotations

import numpy as np
import pytest

from rtmpose.motion import tracks
from rtmpose.motion.tracks import Tracks


def somebody(box: tuple[float, float, float, float]) -> Tracks:
    points = np.array([[[box[0], box[1]], [box[2], box[3]]]], np.float64)
    boxes = np.array([box], np.float64)
    shown, size = np.ones((1, 2), bool), np.array([100.0])
    return tracks.begun(points, np.ones((1, 2)), shown, boxes, np.zeros((1, 4)), size, 1, 0.0)


def test_with_a_box_alone_everything_goes_along_and_no_pose_was_seen() -> None:
    before = somebody((100, 100, 200, 300))
    after = tracks.felt(before, before.box + np.array([10, -5, 10, -5]), 0.5)
    assert np.allclose(after.points - before.points, (10, -5))
    assert np.allclose(after.smooth - before.smooth, (10, -5))
    assert after.seen.tolist() == [0.5] and tracks.unposed(after, 0.5).tolist() == [0.5]


@pytest.mark.parametrize(("box", "shrinks"), [((0, 100, 20, 300), False), ((50, 100, 70, 300), True)])
def test_who_goes_out_of_the_picture_does_not_become_small(
    box: tuple[float, float, float, float], shrinks: bool
) -> None:
    known = somebody(box)
    assert (tracks.grown(known, 0.5, (1000, 600))[0] < 100) == shrinks


def test_who_comes_in_is_at_least_as_large_as_what_is_seen() -> None:
    assert tracks.grown(somebody((0, 100, 200, 300)), 0.01, (1000, 600)).tolist() == [200]
