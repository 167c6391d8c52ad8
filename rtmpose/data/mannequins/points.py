"""The mannequin's labelled points: COCO-WholeBody's 133, and the head's top and the neck that AI Challenger
has.

Lengths are metres, or shares of the body's height where it says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rtmpose.data.mannequins.body import SIDES, Array, Frame, Pose, Proportions, finger_joints

# Half axes of the skull (m per m of height, before `Proportions.head`) and its centre in the head frame.
SKULL = np.array([0.044, 0.064, 0.054])
SKULL_CENTER = np.array([0.0, 0.056, 0.004])


def _face_layout() -> Array:
    """(68, 3) iBUG points of a face in the skull's half axes: x to the left, y up, z height above
    the skull.
    """
    jaw = np.pi * np.arange(17) / 16
    points = [np.stack([-0.92 * np.cos(jaw), -0.05 - 0.9 * np.sin(jaw) ** 0.85, 0 * jaw], -1)]
    brow_x = np.linspace(-0.74, -0.18, 5)
    brow = np.stack([brow_x, 0.3 + 0.09 * np.sin(np.linspace(0.3, 2.8, 5)), 0 * brow_x], -1)
    points += [brow, brow[::-1] * (-1, 1, 1)]
    points.append(np.stack([np.zeros(4), np.linspace(0.1, -0.2, 4), np.linspace(0.02, 0.2, 4)], -1))
    points.append(
        np.stack([np.linspace(-0.2, 0.2, 5), -0.32 + 0 * brow_x, np.array([0.05, 0.1, 0.13, 0.1, 0.05])], -1)
    )
    corner = np.deg2rad([180, 120, 60, 0, -60, -120])
    eye = np.stack([-0.41 + 0.17 * np.cos(corner), 0.08 + 0.065 * np.sin(corner), 0 * corner], -1)
    points += [eye, eye[[3, 2, 1, 0, 5, 4]] * (-1, 1, 1)]
    outer, inner = np.deg2rad(180 - 30 * np.arange(12)), np.deg2rad(180 - 45 * np.arange(8))
    points.append(np.stack([0.36 * np.cos(outer), -0.56 + 0.12 * np.sin(outer), 0 * outer], -1))
    points.append(np.stack([0.28 * np.cos(inner), -0.56 + 0.05 * np.sin(inner), 0 * inner], -1))
    return np.concatenate(points)


FACE_LAYOUT = _face_layout()


def on_skull(layout: object) -> Array:
    """(..., 3) x, y and height above the skull in its half axes → head-frame coordinates per metre of body
    height.
    """
    p = np.asarray(layout, dtype=np.float64)
    front = np.sqrt(np.clip(1 - p[..., 0] ** 2 - p[..., 1] ** 2, 0, None)) + p[..., 2]
    return SKULL_CENTER + np.stack([p[..., 0], p[..., 1], front], -1) * SKULL


def _whole_body_radii() -> Array:
    # m per m of height: how far beneath the surface a point of that joint may lie and still count as seen
    body = (
        [0.02, 0.02, 0.02, 0.03, 0.03]
        + [0.06] * 2
        + [0.045] * 2
        + [0.035] * 2
        + [0.09] * 2
        + [0.06] * 2
        + [0.05] * 2
    )
    return np.array(body + [0.03] * 6 + [0.016] * 68 + [0.02] * 42 + [0.05, 0.06])


# of the 133 whole-body points, then the head's top and the neck
RADII = _whole_body_radii()
NUM_POINTS = len(RADII)
COCO17 = tuple(range(17))
# AI Challenger's order: right then left shoulder, elbow, wrist; right then left hip, knee, ankle; head top;
# neck
AIC14 = (6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 133, 134)


def _foot_points(foot: Frame, height: float, side: str) -> Array:
    sign = 1.0 if side == "left" else -1.0
    return foot.at(
        np.array([[-0.012 * sign, -0.03, 0.098], [0.024 * sign, -0.032, 0.082], [0.0, -0.03, -0.034]])
        * height
    )


def labelled_points(frames: Mapping[str, Frame], pose: Pose, body: Proportions) -> Array:
    """(135, 3) m in the world: COCO-WholeBody's 133 points in its order, then the head's top and the neck."""
    h, size = body.height, body.height * body.head
    head, points = frames["head"], []
    points.append(head.at(on_skull([(0, -0.2, 0.2), (0.41, 0.08, 0), (-0.41, 0.08, 0)]) * size))
    points.append(
        head.at(SKULL_CENTER * size + np.array([[1, -0.02, -0.1], [-1, -0.02, -0.1]]) * SKULL * size)
    )
    for joint in ("upper_arm", "forearm", "hand", "thigh", "shin", "foot"):
        points.append(np.stack([frames[f"{side}_{joint}"].origin for side in SIDES]))
    points += [_foot_points(frames[f"{side}_foot"], h, side) for side in SIDES]
    points.append(head.at(on_skull(FACE_LAYOUT) * size))
    for side in SIDES:
        hand = frames[f"{side}_hand"]
        points += [
            hand.origin[None],
            finger_joints(hand, pose.limbs[side]["finger_curl"], h, side).reshape(20, 3),
        ]
    top = SKULL_CENTER * size + np.array([0, 1.02, 0]) * SKULL * size
    points.append(np.stack([head.at(top), frames["neck"].origin]))
    return np.concatenate(points)
