"""One head in profile, facing right: landmarks and outlines in mm, sella at (0, 0), y downwards.

The places are those of an average adult (the sella-nasion line is 70 mm long, the occlusal plane some 75 mm
below it). Every head is that one, bent by a smooth field, its lower jaw turned about the condyle and made
longer or shorter, and each landmark moved a little by itself. Outlines pass through the landmarks, so that
every landmark can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Place = tuple[float, float]  # mm

#: The 38 landmarks. The first 19 are those of the ISBI 2014 and 2015 challenges in their order. The names of
#: the other 19, and their order, are our own: the challenge's files number theirs.
LANDMARKS: dict[str, Place] = {
    "sella": (0, 0), "nasion": (70, -8), "orbitale": (55, 22), "porion": (-20, 20), "a_point": (68, 53),
    "b_point": (62, 96), "pogonion": (63, 110), "menton": (53, 119), "gnathion": (60, 117),
    "gonion": (-8, 86), "lower_incisor": (72, 74), "upper_incisor": (76, 76), "upper_lip": (91, 63),
    "lower_lip": (88, 79), "subnasale": (84, 50), "soft_pogonion": (77, 109), "pns": (21, 46),
    "ans": (74, 46), "articulare": (-13, 36), "soft_glabella": (79, -26), "soft_nasion": (77, -7),
    "pronasale": (101, 35), "stomion": (83, 71), "soft_b_point": (76, 93), "soft_menton": (58, 130),
    "cervical": (22, 130), "upper_apex": (63, 55), "lower_apex": (59, 93), "upper_molar": (41, 75),
    "lower_molar": (44, 76), "condylion": (-11, 23), "coronoid": (14, 40), "basion": (-24, 46),
    "antegonial": (12, 103), "ramus_front": (18, 68), "dorsum_sellae": (-6, -7), "hyoid": (21, 119),
    "third_vertebra": (-22, 92),
}  # fmt: skip

#: Of these the lower jaw consists, with what lies over it.
JAW = frozenset({
    "b_point", "pogonion", "menton", "gnathion", "gonion", "lower_incisor", "lower_lip", "soft_pogonion",
    "soft_b_point", "soft_menton", "lower_apex", "lower_molar", "condylion", "coronoid", "antegonial",
    "ramus_front",
})  # fmt: skip


@dataclass(frozen=True)
class Outline:
    """A curve through landmarks (their names) and further places (mm): what it is drawn as, and whether it is
    closed and of the lower jaw.
    """

    through: Sequence[str | Place]
    fill: float = 0.0  # how much it weakens the rays within
    edge: float = 0.0  # and along its border
    width: float = 1.0  # of the border, mm
    closed: bool = True
    jaw: bool = False
    smooth: bool = True


OUTLINES: Mapping[str, Outline] = {
    "skin": Outline(
        [
            (-60, 190), (-66, 120), (-95, 60), (-105, -10), (-80, -70), (-10, -95), (55, -75),
            "soft_glabella", "soft_nasion", (88, 14), "pronasale", (95, 45), "subnasale", "upper_lip",
            "stomion", "lower_lip", "soft_b_point", "soft_pogonion", "soft_menton", (40, 131), "cervical",
            (14, 160), (14, 190),
        ],
        fill=0.0, edge=0.05, width=1.2,
    ),
    "vault": Outline(
        ["nasion", (73, -24), (60, -64), (-5, -86), (-72, -64), (-95, -8), (-84, 40), (-50, 55), "basion",
         (-16, 20), "dorsum_sellae", (-3, 1), "sella", (4, 0), (8, -7), (34, -10), (52, -14)],
        fill=0.1, edge=0.3, width=2.6,
    ),
    "inner_table": Outline(
        [(66, -24), (54, -58), (-5, -79), (-66, -58), (-88, -8), (-78, 34)], edge=0.16, width=1.2,
        closed=False,
    ),
    "base": Outline(["basion", (-34, 34), (-46, 26), (-28, 12), (-14, 12)], fill=0.12, edge=0.16, width=1.4),
    "ear": Outline([(-20, 30), (-25, 25), "porion", (-15, 25)], fill=-0.14, edge=0.12, width=1.0),
    "orbit": Outline(
        [(66, -4), (54, -12), (40, -4), (38, 10), "orbitale", (64, 14)], fill=-0.05, edge=0.18, width=1.4,
    ),
    "maxilla": Outline(
        ["nasion", (67, 16), (63, 34), "ans", "a_point", (72, 62), (52, 62), (32, 62), (24, 56), "pns",
         (26, 34), (40, 28), "orbitale", (60, 8)],
        fill=0.12, edge=0.13, width=1.3,
    ),
    "palate": Outline(["pns", (40, 44), (58, 44), "ans"], edge=0.2, width=1.5, closed=False),
    "mandible": Outline(
        ["condylion", (-6, 26), (2, 40), (8, 46), "coronoid", (17, 52), "ramus_front", (26, 84), (46, 86),
         (66, 84), "b_point", "pogonion", "gnathion", "menton", (34, 112), "antegonial", (0, 96), "gonion",
         (-12, 66), "articulare", (-16, 28)],
        fill=0.15, edge=0.2, width=1.8, jaw=True,
    ),
    "upper_tooth": Outline(
        ["upper_apex", (70, 60), (77, 69), "upper_incisor", (71, 72), (66, 64)], fill=0.22, edge=0.1,
        width=0.8, smooth=False,
    ),
    "lower_tooth": Outline(
        ["lower_apex", (62, 84), (68, 77), "lower_incisor", (73, 79), (66, 88)], fill=0.22, edge=0.1,
        width=0.8, jaw=True, smooth=False,
    ),
    "upper_molars": Outline(
        [(28, 60), (56, 60), (56, 73), (49, 71), (45, 74), "upper_molar", (36, 72), (30, 74)], fill=0.2,
        edge=0.12, width=0.9, smooth=False,
    ),
    "lower_molars": Outline(
        [(30, 92), (58, 92), (56, 76), (50, 78), "lower_molar", (40, 79), (33, 77)], fill=0.2, edge=0.12,
        width=0.9, jaw=True, smooth=False,
    ),
    "hyoid": Outline(["hyoid", (16, 117), (4, 112), (5, 116), (15, 122)], fill=0.14, edge=0.12, width=0.9),
    "airway": Outline([(12, 48), (20, 52), (12, 80), (8, 110), (2, 112), (-2, 80), (0, 56)], fill=-0.12),
    "second_vertebra": Outline(
        [(-34, 42), (-26, 44), (-24, 62), (-20, 84), (-38, 86), (-42, 64)], fill=0.1, edge=0.13, width=1.2,
    ),
    "vertebra": Outline(
        ["third_vertebra", (-21, 104), (-40, 106), (-42, 93)], fill=0.11, edge=0.15, width=1.2, smooth=False,
    ),
    "fourth_vertebra": Outline(
        [(-22, 110), (-21, 123), (-41, 126), (-42, 112)], fill=0.1, edge=0.13, width=1.2,
    ),
}  # fmt: skip

BUMPS, BUMP_WIDTH, BUMP_SIZE = 14, 26.0, 3.0  # of the smooth field: how many, mm, mm
JAW_TURN, JAW_GROWTH = math.radians(3.0), 0.05  # standard deviations
OWN = 0.7  # mm, of a landmark's own displacement
STEPS = 12  # points of a curve between two of its places


@dataclass(frozen=True, eq=False)
class Head:
    """One head in mm: landmarks (38, 2) in the order of LANDMARKS, and the curve (n, 2) of each outline."""

    landmarks: Floats
    curves: Mapping[str, Floats]


def draw_head(rng: np.random.Generator) -> Head:
    """A head like no other, the same for the same generator's state."""
    bend = _Field(rng)
    own = dict(zip(LANDMARKS, rng.normal(0, OWN, (len(LANDMARKS), 2)), strict=True))
    turn, growth = rng.normal(0, JAW_TURN), 1 + rng.normal(0, JAW_GROWTH)
    pivot = np.array(LANDMARKS["condylion"])
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) * growth

    def placed(place: str | Place, jaw: bool) -> Floats:
        name = place if isinstance(place, str) else None
        at = np.array(LANDMARKS[place] if isinstance(place, str) else place, np.float64)
        if jaw if name is None else name in JAW:
            at = pivot + rotation @ (at - pivot)
        return bend(at) + (0.0 if name is None else own[name])

    curves = {}
    for name, outline in OUTLINES.items():
        places = np.array([placed(place, outline.jaw) for place in outline.through])
        curves[name] = smooth_curve(places, outline.closed) if outline.smooth else places
    return Head(np.array([placed(name, False) for name in LANDMARKS]), curves)


class _Field:
    """A smooth displacement of all places: a few bumps with random centres and directions."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.centres = rng.uniform((-60, -60), (100, 140), (BUMPS, 2))
        self.pushes = rng.normal(0, BUMP_SIZE, (BUMPS, 2))

    def __call__(self, place: Floats) -> Floats:
        near = np.exp(-((place - self.centres) ** 2).sum(axis=1) / (2 * BUMP_WIDTH**2))
        moved: Floats = place + near @ self.pushes
        return moved


def smooth_curve(places: Floats, closed: bool) -> Floats:
    """The Catmull-Rom curve through places (n, 2): a cubic between each two, whose slope at each place is
    that between its neighbours -> (n * STEPS, 2), open ones end with their last place.
    """
    before, after, beyond = (np.roll(places, shift, axis=0) for shift in (1, -1, -2))
    if not closed:
        before[0], beyond[-2] = places[0], places[-1]
        before, places, after, beyond = (part[:-1] for part in (before, places, after, beyond))
    t = np.linspace(0, 1, STEPS, endpoint=False)[None, :, None]
    a, b, c, d = (part[:, None, :] for part in (before, places, after, beyond))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    points: Floats = curve.reshape(-1, 2)
    return points if closed else np.concatenate([points, after[-1:]])
