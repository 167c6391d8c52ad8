"""The mannequin's anatomy: proportions, joint angles within limits, forward kinematics; and the camera before
it.

Lengths are metres, angles degrees. In a body frame x points to the person's left, y up and z where the person
looks. The world frame is the same with z towards the camera, so a person with yaw 0 looks into the camera and
has the left shoulder at the larger image x. All angles of a limb are those of a left limb; the right limb is
its mirror image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SIDES = ("left", "right")

# Degrees, (least, greatest). Limb angles exist once per side. Shoulder: plane of elevation (0 sideways, 90
# forward), elevation from hanging (0) to overhead, and rotation about the upper arm, as the ISB recommends
# (Wu et al. 2005).
TRUNK_LIMITS: Mapping[str, tuple[float, float]] = {
    "spine_flex": (-25.0, 75.0),
    "spine_side": (-30.0, 30.0),
    "spine_twist": (-40.0, 40.0),
    "neck_flex": (-35.0, 40.0),
    "neck_side": (-30.0, 30.0),
    "neck_twist": (-65.0, 65.0),
}
LIMB_LIMITS: Mapping[str, tuple[float, float]] = {
    "shoulder_plane": (-40.0, 125.0),
    "shoulder_elevation": (0.0, 172.0),
    "shoulder_twist": (-90.0, 80.0),
    "elbow": (0.0, 145.0),
    "forearm_twist": (-80.0, 80.0),
    "wrist_flex": (-55.0, 60.0),
    "finger_curl": (0.0, 80.0),
    "hip_flex": (-25.0, 120.0),
    "hip_abduction": (-15.0, 60.0),
    "hip_twist": (-30.0, 40.0),
    "knee": (0.0, 140.0),
    "ankle": (-20.0, 45.0),
}

# mean and standard deviation; what a family does not name keeps REST
Spread = Mapping[str, tuple[float, float]]
REST: Spread = {
    "spine_flex": (3, 6),
    "spine_side": (0, 5),
    "spine_twist": (0, 8),
    "neck_flex": (3, 9),
    "neck_side": (0, 7),
    "neck_twist": (0, 14),
    "shoulder_plane": (20, 20),
    "shoulder_elevation": (10, 6),
    "shoulder_twist": (0, 15),
    "elbow": (15, 12),
    "forearm_twist": (0, 25),
    "wrist_flex": (0, 15),
    "finger_curl": (25, 22),
    "hip_flex": (3, 6),
    "hip_abduction": (5, 4),
    "hip_twist": (6, 8),
    "knee": (5, 5),
    "ankle": (0, 5),
}
ARMS: Mapping[str, Spread] = {
    "hanging": {},
    "sideways": {"shoulder_elevation": (80, 22), "shoulder_plane": (5, 20), "elbow": (25, 25)},
    "raised": {"shoulder_elevation": (150, 14), "shoulder_plane": (20, 25), "elbow": (25, 25)},
    "waving": {
        "shoulder_elevation": (85, 18),
        "shoulder_plane": (10, 18),
        "shoulder_twist": (-75, 12),
        "elbow": (95, 22),
    },
    "akimbo": {
        "shoulder_elevation": (48, 8),
        "shoulder_plane": (-5, 12),
        "shoulder_twist": (62, 12),
        "elbow": (95, 14),
    },
    "forward": {"shoulder_elevation": (75, 20), "shoulder_plane": (80, 18), "elbow": (30, 25)},
    "folded": {
        "shoulder_elevation": (35, 12),
        "shoulder_plane": (60, 18),
        "shoulder_twist": (45, 18),
        "elbow": (105, 18),
    },
}
LEGS: Mapping[str, tuple[Spread, Spread]] = {
    "standing": ({}, {}),
    "astride": ({"hip_abduction": (24, 8)}, {"hip_abduction": (24, 8)}),
    "walking": (
        {"hip_flex": (28, 9), "knee": (15, 10), "ankle": (-5, 6)},
        {"hip_flex": (-14, 7), "knee": (22, 14), "ankle": (15, 8)},
    ),
    "running": (
        {"hip_flex": (62, 15), "knee": (75, 20), "ankle": (5, 8)},
        {"hip_flex": (-12, 8), "knee": (55, 25), "ankle": (25, 9)},
    ),
    "one leg up": ({"hip_flex": (70, 22), "hip_abduction": (22, 15), "knee": (60, 35)}, {}),
    "sitting": (
        {"hip_flex": (88, 9), "hip_abduction": (12, 9), "knee": (85, 16)},
        {"hip_flex": (88, 9), "hip_abduction": (12, 9), "knee": (85, 16)},
    ),
    "crouching": (
        {"hip_flex": (95, 14), "hip_abduction": (20, 10), "knee": (112, 15), "ankle": (-15, 5)},
        {"hip_flex": (95, 14), "hip_abduction": (20, 10), "knee": (112, 15), "ankle": (-15, 5)},
    ),
    "kneeling": (
        {"hip_flex": (85, 10), "knee": (90, 10)},
        {"hip_flex": (0, 6), "knee": (92, 8), "ankle": (40, 4)},
    ),
}
# relative frequencies of the families
ARM_SHARES: Mapping[str, Mapping[str, float]] = {
    "easy": {"hanging": 11, "sideways": 2, "raised": 2, "waving": 2, "akimbo": 3, "forward": 2, "folded": 2},
    "hard": {"hanging": 3, "sideways": 2, "raised": 2, "waving": 2, "akimbo": 2, "forward": 3, "folded": 2},
}
LEG_SHARES: Mapping[str, Mapping[str, float]] = {
    "easy": {
        "standing": 10,
        "astride": 4,
        "walking": 5,
        "running": 2,
        "one leg up": 1.5,
        "sitting": 3,
        "crouching": 0.5,
        "kneeling": 0.5,
    },
    "hard": {
        "standing": 3,
        "astride": 3,
        "walking": 4,
        "running": 4,
        "one leg up": 3,
        "sitting": 4,
        "crouching": 3,
        "kneeling": 3,
    },
}


@dataclass(frozen=True)
class Proportions:
    """Lengths as shares of the standing height, except `height` (m); `girth` scales every thickness."""

    height: float
    girth: float
    shoulders: float  # half the distance between the shoulder joints
    hips: float  # half the distance between the hip joints
    arm: float  # upper arm; the forearm is 0.9 of it
    leg: float  # thigh; the shin is as long
    trunk: float  # factor on the spine's length
    head: float  # factor on the head's size
    bust: float  # 0 flat … 1


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees: trunk by name, limbs by side and name; `family` names the legs' family."""

    trunk: Mapping[str, float]
    limbs: Mapping[str, Mapping[str, float]]
    family: str
    yaw: float
    lean: float  # whole-body pitch, 0 upright, ±90 lying
    roll: float


@dataclass(frozen=True)
class Frame:
    """A bone's frame in the world: rotation (3,3), columns are its x, y, z axes, and origin (3,)
    in metres.
    """

    rotation: Array
    origin: Array

    def at(self, points: object) -> Array:
        """Points (..., 3) of this frame in the world."""
        return np.asarray(points, dtype=np.float64) @ self.rotation.T + self.origin

    def child(self, offset: object, rotation: Array) -> Frame:
        return Frame(self.rotation @ rotation, self.at(offset))


def turn(axis: str, degrees: float) -> Array:
    """Right-handed rotation matrix (3,3) about a coordinate axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def mirrored(rotation: Array, side: str) -> Array:
    """A left limb's rotation (3,3), or its mirror image in the sagittal plane."""
    flip = np.diag([-1.0, 1.0, 1.0])
    return rotation if side == "left" else flip @ rotation @ flip


def _draw(
    rng: np.random.Generator, limits: Mapping[str, tuple[float, float]], spread: Spread
) -> dict[str, float]:
    angles = {}
    for name, (least, greatest) in limits.items():
        mean, deviation = spread.get(name, REST[name])
        angles[name] = float(np.clip(rng.normal(mean, deviation), least, greatest))
    return angles


def _pick(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    weights = np.array(list(shares.values()))
    return str(rng.choice(list(shares), p=weights / weights.sum()))


def random_pose(rng: np.random.Generator, level: str, yaw: float) -> Pose:
    """A pose within TRUNK_LIMITS and LIMB_LIMITS: each arm and the pair of legs from families of
    their own.
    """
    family = _pick(rng, LEG_SHARES[level])
    legs = LEGS[family] if rng.random() < 0.5 else LEGS[family][::-1]
    arms = [_pick(rng, ARM_SHARES[level]) for _ in SIDES]
    if rng.random() < 0.35:
        arms[1] = arms[0]
    limbs = {
        side: _draw(rng, LIMB_LIMITS, {**ARMS[arm], **leg})
        for side, arm, leg in zip(SIDES, arms, legs, strict=True)
    }
    trunk_spread: dict[str, tuple[float, float]] = {}
    lean, roll = rng.normal(0, 3), rng.normal(0, 3)
    if family in ("crouching", "running"):
        trunk_spread["spine_flex"] = (22, 10)
    if level == "hard":
        trunk_spread.update(spine_side=(0, 12), spine_twist=(0, 18), neck_twist=(0, 30))
        chance = rng.random()
        if chance < 0.2:
            trunk_spread["spine_flex"] = (50, 15)
        elif chance < 0.32:
            lean, roll = rng.choice([-88.0, 88.0]) + rng.normal(0, 6), rng.normal(0, 10)
    return Pose(_draw(rng, TRUNK_LIMITS, trunk_spread), limbs, family, yaw, float(lean), float(roll))


def random_proportions(rng: np.random.Generator) -> Proportions:
    """An adult, or with probability 0.2 a child (smaller, larger head, shorter limbs)."""
    child = rng.random() < 0.2
    bust = float(rng.choice([0.0, rng.uniform(0.2, 0.7)]))
    return Proportions(
        height=float(rng.uniform(1.05, 1.45) if child else rng.uniform(1.52, 1.92)),
        girth=float(rng.uniform(1.15, 1.45)),
        shoulders=float(rng.uniform(0.098, 0.118) - 0.006 * (bust > 0)),
        hips=float(rng.uniform(0.05, 0.06) + 0.003 * (bust > 0)),
        arm=float(rng.uniform(0.162, 0.182) * (0.95 if child else 1.0)),
        leg=float(rng.uniform(0.233, 0.255) * (0.94 if child else 1.0)),
        trunk=float(rng.uniform(0.95, 1.06)),
        head=float(rng.uniform(1.3, 1.45) if child else rng.uniform(1.12, 1.26)),
        bust=0.0 if child else bust,
    )


def _trunk_frames(pose: Pose, body: Proportions) -> dict[str, Frame]:
    t, h = pose.trunk, body.height
    root = turn("y", pose.yaw) @ turn("x", pose.lean) @ turn("z", pose.roll)
    bend = turn("x", t["spine_flex"] / 2) @ turn("z", t["spine_side"] / 2) @ turn("y", t["spine_twist"] / 2)
    nod = turn("x", t["neck_flex"] / 2) @ turn("z", t["neck_side"] / 2) @ turn("y", t["neck_twist"] / 2)
    rise = h * body.trunk
    pelvis = Frame(root, np.zeros(3))
    abdomen = pelvis.child((0, 0.06 * rise, 0), bend)
    chest = abdomen.child((0, 0.085 * rise, 0), bend)
    neck = chest.child((0, 0.142 * rise, -0.006 * h), nod)
    head = neck.child((0, 0.05 * h, 0.008 * h), nod)
    return {"pelvis": pelvis, "abdomen": abdomen, "chest": chest, "neck": neck, "head": head}


def _limb_frames(
    trunk: Mapping[str, Frame], a: Mapping[str, float], body: Proportions, side: str
) -> dict[str, Frame]:
    h, sign = body.height, 1.0 if side == "left" else -1.0
    # overhead the shoulder blade lifts the joint and brings it inwards
    lift = max(0.0, a["shoulder_elevation"] - 50) / 120
    plane = a["shoulder_plane"]
    arm = turn("y", -plane) @ turn("z", a["shoulder_elevation"]) @ turn("y", plane + a["shoulder_twist"])
    shoulder = np.array([sign * (body.shoulders - 0.012 * lift), 0.132 * body.trunk + 0.03 * lift, 0.0]) * h
    upper = trunk["chest"].child(shoulder, mirrored(arm, side))
    bend = turn("x", -a["elbow"]) @ turn("y", a["forearm_twist"] / 2)
    fore = upper.child((0, -body.arm * h, 0), mirrored(bend, side))
    hand = fore.child(
        (0, -0.9 * body.arm * h, 0),
        mirrored(turn("y", a["forearm_twist"] / 2) @ turn("z", -a["wrist_flex"]), side),
    )
    hip = turn("x", -a["hip_flex"]) @ turn("z", a["hip_abduction"]) @ turn("y", a["hip_twist"])
    thigh = trunk["pelvis"].child((sign * body.hips * h, 0, 0), mirrored(hip, side))
    shin = thigh.child((0, -body.leg * h, 0), turn("x", a["knee"]))
    foot = shin.child((0, -body.leg * h, 0), turn("x", a["ankle"]))
    frames = {"upper_arm": upper, "forearm": fore, "hand": hand, "thigh": thigh, "shin": shin, "foot": foot}
    return {f"{side}_{name}": frame for name, frame in frames.items()}


def solve(pose: Pose, body: Proportions) -> dict[str, Frame]:
    """Forward kinematics: bone frames in the world, hips at the origin."""
    frames = _trunk_frames(pose, body)
    for side in SIDES:
        frames.update(_limb_frames(frames, pose.limbs[side], body, side))
    return frames


def moved(frames: Mapping[str, Frame], offset: Array) -> dict[str, Frame]:
    return {name: Frame(frame.rotation, frame.origin + offset) for name, frame in frames.items()}


def finger_joints(hand: Frame, curl: float, height: float, side: str) -> Array:
    """(5, 4, 3) m in the world: thumb, index, middle, ring, little finger, from the knuckle to the tip.

    In a left hand's frame the fingers hang along -y, the palm looks to -x and the thumb is at +z.
    """
    base_z = np.array([0.019, 0.006, -0.007, -0.019])
    lengths = np.array([0.043, 0.048, 0.044, 0.034])
    joints = np.zeros((5, 4, 3))
    joints[0] = np.array(
        [[-0.004, -0.014, 0.018], [-0.01, -0.028, 0.031], [-0.013, -0.042, 0.04], [-0.015, -0.054, 0.046]]
    )
    for finger, (z, length) in enumerate(zip(base_z, lengths, strict=True), start=1):
        point = np.array([0.0, -0.054 + 0.12 * abs(z), z])
        joints[finger, 0] = point
        for phalanx, share in enumerate((0.45, 0.3, 0.25)):
            angle = np.deg2rad(curl * (0.6 + 0.6 * phalanx))
            point = point + length * share * np.array([-np.sin(angle), -np.cos(angle), z * 3.0])
            joints[finger, phalanx + 1] = point
    joints[..., 0] *= 1.0 if side == "left" else -1.0
    return hand.at(joints * height)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at `eye` (m) looking along -z of the world, pitched down by `pitch` degrees; px of the
    image.

    A pixel's centre has integer coordinates.
    """

    eye: Array
    pitch: float
    focal: float
    size: tuple[int, int]  # w, h

    @property
    def rotation(self) -> Array:
        """World → camera (x right, y down, z forward), (3,3)."""
        return np.diag([1.0, -1.0, -1.0]) @ turn("x", self.pitch)

    @property
    def view(self) -> Array:
        """World → camera, (4,4)."""
        view = np.eye(4)
        view[:3, :3], view[:3, 3] = self.rotation, -self.rotation @ self.eye
        return view

    @property
    def center(self) -> tuple[float, float]:
        return (self.size[0] - 1) / 2, (self.size[1] - 1) / 2

    def project(self, points: Array) -> Array:
        """(..., 3) m in the world → (..., 3): x, y px and depth in m."""
        p = (points - self.eye) @ self.rotation.T
        depth = np.maximum(p[..., 2], 1e-3)
        return np.stack(
            [
                p[..., 0] / depth * self.focal + self.center[0],
                p[..., 1] / depth * self.focal + self.center[1],
                p[..., 2],
            ],
            -1,
        )
