"""The published figures of every recipe that has some, by size and input.

Shares and NME are in points of 100, EPE in px, MRE in mm, by the names that the page and
`metrics/evaluate.json` have for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PAPER = "RTMPose, arXiv 2303.07399v2, and the model zoo of its reference implementation (MMPose 1.3.2)"
ZOO = "the model zoo of the reference implementation (MMPose 1.3.2, configs/*/rtmpose)"
BASELINE = "github.com/szuboy/CL-Detection2023-MMPose, README, commit 99fb7bd"

#: (size, width x height) -> figures.
Rows = dict[tuple[str, tuple[int, int]], dict[str, float]]
BODY, LARGER, SQUARE = (192, 256), (288, 384), (256, 256)
RTMPOSE: dict[str, Any] = {
    "backbone": "cspnext", "neck": None, "head": "simcc", "kernel": 7, "gau": True, "activation": "silu",
}  # fmt: skip
HRNET: dict[str, Any] = {"backbone": "hrnet_w32", "neck": None, "head": "heatmap"}
DETECTOR = "boxes of the person detector of 56.4 AP"
COCO, ANNOTATED = f"COCO val2017, {DETECTOR}", "annotated boxes"


@dataclass(frozen=True)
class Recipe:
    """What was published of a recipe: what it trains on and how often an epoch shows it, for how long, which
    network, and its figures.

    `boxes` says what AP was measured on: a detector's boxes, unless `detector` is false. `others` says it of
    the figures besides AP and AR.
    """

    name: str
    sets: Mapping[str, int]  # descriptor: repeats
    evaluated: str  # descriptor of the first set that is evaluated
    epochs: int
    rows: Rows
    boxes: str = ""
    others: str = ""
    points: str = ""  # the skeleton; where empty it is that of `evaluated`
    pretrain_epochs: int = 210
    flip: str = "with flip test"
    detector: bool = True
    source: str = ZOO
    network: Mapping[str, Any] = field(default_factory=lambda: RTMPOSE)


def _ap(size: tuple[int, int] = BODY, **by_size: float) -> Rows:
    """Rows of AP alone, by the model's size."""
    return {(name, size): {"AP": value} for name, value in by_size.items()}


def _of_points(ap: float | None, at_tenth: float, auc: float, epe: float | None = None) -> dict[str, float]:
    """A row of Body8."""
    found = {"AP": ap, "PCK@0.1": at_tenth, "AUC": auc, "EPE": epe}
    return {name: value for name, value in found.items() if value is not None}


def _face(name: str, descriptor: str, epochs: int, nme: float, points: str = "") -> Recipe:
    """A recipe of one set of faces."""
    rows: Rows = {("m", SQUARE): {"NME": nme}}
    return Recipe(name, {descriptor: 1}, descriptor, epochs, rows, others=ANNOTATED, points=points)


_BODY7 = dict.fromkeys(("coco17", "aic", "crowdpose", "mpii", "jhmdb", "halpe26", "posetrack18"), 1)
_HALPE7 = {("coco_wholebody" if name == "coco17" else name): 1 for name in _BODY7}
_HAND5 = dict.fromkeys(("coco_wholebody_hand", "onehand10k", "freihand", "rhd", "halpe_hand"), 1)
_FACE6 = dict.fromkeys(("lapa106", "coco_wholebody_face", "wflw", "face300w", "cofw", "halpe_face"), 1)
_BODY8 = f"the eight sets of Body8 together, {ANNOTATED}"

RECIPES = (
    Recipe(
        "COCO and AI Challenger", {"coco17": 3, "aic": 1}, "coco17", 420,
        _ap(t=68.5, s=72.2, m=75.8, l=76.5) | _ap(LARGER, m=77.0, l=77.3), COCO, source=PAPER,
    ),
    Recipe(
        "COCO alone", {"coco17": 1}, "coco17", 420, _ap(t=68.2, s=71.6, m=74.6, l=75.8), COCO, source=PAPER,
    ),
    Recipe(
        "COCO-WholeBody", {"coco_wholebody": 1}, "coco_wholebody", 270,
        {("m", BODY): {"AP": 58.2, "AR": 67.4}, ("l", BODY): {"AP": 61.1, "AR": 70.0},
         ("l", LARGER): {"AP": 64.8, "AR": 73.0}, ("x", LARGER): {"AP": 65.3, "AR": 73.3}},
        f"COCO-WholeBody val, {DETECTOR}", source=PAPER,
    ),
    Recipe(
        "Body8", _BODY7, "coco17", 420,
        {("t", BODY): _of_points(65.9, 91.44, 63.18, 19.45),
         ("s", BODY): _of_points(69.7, 92.45, 65.15, 17.85),
         ("m", BODY): _of_points(74.9, 94.25, 68.59, 15.12),
         ("l", BODY): _of_points(76.7, 95.08, 70.14, 13.79),
         ("m", LARGER): _of_points(76.6, 94.64, 70.38, 13.98),
         ("l", LARGER): _of_points(78.3, 95.36, 71.58, 13.08)},
        COCO, _BODY8,
    ),
    Recipe(
        "Body8", _BODY7, "coco17", 700, _ap(LARGER, x=78.8), COCO,
        flip="it is not said whether with flip test", source=PAPER,
    ),
    Recipe(
        "Body8 with Halpe's 26 points", _HALPE7, "halpe26", 700,
        {("t", BODY): _of_points(None, 91.89, 66.35), ("s", BODY): _of_points(None, 93.01, 68.62),
         ("m", BODY): _of_points(None, 94.75, 71.91), ("l", BODY): _of_points(None, 95.37, 73.19),
         ("m", LARGER): _of_points(None, 95.15, 73.56), ("l", LARGER): _of_points(None, 95.56, 74.38),
         ("x", LARGER): _of_points(None, 95.74, 74.82)},
        others=_BODY8,
    ),
    Recipe(
        "CrowdPose", {"crowdpose": 1}, "crowdpose", 210,
        {("m", BODY): {"AP": 70.6, "AP easy": 79.9, "AP medium": 71.9, "AP hard": 58.2}},
        "CrowdPose test, boxes of its YOLOv3 detector", "the same boxes",
    ),
    Recipe(
        "MPII", {"mpii": 1}, "mpii", 210, {("m", SQUARE): {"PCKh@0.5": 90.7, "PCKh@0.1": 34.8}},
        others=ANNOTATED,
    ),
    Recipe(
        "Human-Art and COCO", {"humanart": 1, "coco17": 1}, "humanart", 420,
        _ap(t=24.9, s=31.1, m=35.5, l=37.8), f"Human-Art val, {DETECTOR}", points="coco17",
    ),
    Recipe(
        "Hand5", _HAND5, "coco_wholebody_hand", 210,
        {("m", SQUARE): {"PCK@0.2": 96.4, "AUC": 83.9, "EPE": 5.06}},
        others=f"the five sets of Hand5 together, {ANNOTATED}",
    ),
    Recipe(
        "the hands of COCO-WholeBody", {"coco_wholebody_hand": 1}, "coco_wholebody_hand", 210,
        {("m", SQUARE): {"PCK@0.2": 83.7, "AUC": 81.5, "EPE": 4.51}}, others=ANNOTATED,
    ),
    Recipe(
        "Face6", _FACE6, "lapa106", 120,
        {(size, SQUARE): {"NME": nme} for size, nme in (("t", 1.67), ("s", 1.59), ("m", 1.44))},
        others=f"the six sets of Face6 together, {ANNOTATED}",
    ),
    _face("WFLW", "wflw", 60, 4.01),
    _face("LaPa", "lapa106_train", 120, 1.29, points="lapa106"),
    _face("the faces of COCO-WholeBody", "coco_wholebody_face", 60, 4.66),
    Recipe(
        "AP-10K", {"ap10k": 1}, "ap10k", 210, _ap(SQUARE, m=72.2), f"AP-10K val, {ANNOTATED}", detector=False,
    ),
    *(
        Recipe(
            "the heatmap baseline of CL-Detection 2023", {descriptor: 1}, descriptor, 250,
            {("m", (512, 512)): {"MRE": 2.199, "SDR at 2mm": 65.5, "SDR at 2.5mm": 75.6, "SDR at 3mm": 82.3,
                                 "SDR at 4mm": 90.9}},
            others="50 images that its authors drew, which are not those of this split",
            points="cephalometric38", pretrain_epochs=0, source=BASELINE, network=HRNET,
        )
        for descriptor in ("cephalometric38_stack", "cephalometric38")
    ),
)  # fmt: skip
