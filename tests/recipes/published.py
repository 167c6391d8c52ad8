"""Which reference configuration each recipe is, size by size, and where it differs on purpose.

`golden` is a key of golden/models.json. Where that has no such configuration, `golden` names a neighbour,
`from_` says where the values were read, and `values` what differs from the neighbour. `differs` holds what a
recipe has otherwise on purpose: our value, and the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MMPOSE = "MMPose's configs/"
SEED = (21, "the reference draws another seed each time; every run here has one")
OWN_BACKBONE = (
    "udp-coco_wholebody",
    "pretrains on COCO-WholeBody itself, as the reference's cspnext-m_udp_wholebody did; "
    "name the other backbone in pretrain.init to start from it",
)
BLURS = {name: (0.1, {"blur_limit": [3, 7]}) for name in ("Blur", "MedianBlur")}
SEVEN = dict.fromkeys(("coco17", "aic", "crowdpose", "mpii", "jhmdb", "halpe26", "posetrack18"), 1)
LIGHT = {"strong.scale": 0.4, "strong.rotate": 80, "weak.scale": 0.25, "weak.rotate": 60}


@dataclass(frozen=True)
class Published:
    recipe: str
    size: str
    golden: str
    from_: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    differs: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.size}"


def of_sizes(recipe: str, sizes: str, golden: str, **more: Any) -> list[Published]:
    """One entry for each letter of `sizes`, which stands for `{}` in `golden`."""
    return [Published(recipe, size, golden.format(size), **more) for size in sizes]


FACE = {
    "epochs": 60,
    "weak_epochs": 10,
    "evaluate_every": 1,
    "strong.half_body": 0.0,
    "weak.half_body": 0.0,
    "flat": 30,
    "judged": {"nme"},
}
SMALL_T = {"size": (0.167, 0.375), "weight_decay": 0.0, "ema": (0.0, 2000.0)}
SMALL_S = {"size": (0.33, 0.5), "weight_decay": 0.0}
LARGE_L = {"size": (1.0, 1.0)}
LARGE_X = {"size": (1.33, 1.25)}
BODY8 = {
    "judged": {"pck@0.1", "auc", "epe"},
    "pooled": {"coco17", "aic", "crowdpose", "mpii", "jhmdb", "halpe26", "posetrack18", "ochuman"},
}
HALPE_SMALL = {
    "batch": 8 * 1024, "clip": 35 / 1024, "strong.scale": 0.4, "strong.rotate": 80, "weak.scale": 0.4,
    "weak.rotate": 80,
}  # fmt: skip
LARGER = {"input": (288, 384), "sigma": (6.0, 6.93)}

FINETUNED: list[Published] = [
    *of_sizes("coco17", "tsml", "rtmpose-{}_aic-coco_256x192"),
    *of_sizes("body/aic_coco_384", "ml", "rtmpose-{}_aic-coco_384x288"),
    *of_sizes("body/coco", "tsml", "rtmpose-{}_coco_256x192"),
    *of_sizes("body/coco_384", "mlx", "rtmpose-{}_coco_384x288"),
    Published("body/body8", "m", "rtmpose-m_body8_256x192"),
    Published(
        "body/body8", "t", "rtmpose-m_body8_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-t_8xb256-420e_body8-256x192.py", SMALL_T | LIGHT,
    ),
    Published(
        "body/body8", "s", "rtmpose-m_body8_256x192", "as t; weight decay and EMA as s has in Table 6",
        SMALL_S | LIGHT,
    ),
    Published(
        "body/body8", "l", "rtmpose-m_body8_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-l_8xb256-420e_body8-256x192.py", LARGE_L,
    ),
    Published(
        "body/body8_384", "m", "rtmpose-m_body8_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-m_8xb256-420e_body8-384x288.py",
        LARGER | {"backbone": "udp-body8-384"},
    ),
    Published(
        "body/body8_384", "l", "rtmpose-m_body8_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-l_8xb256-420e_body8-384x288.py",
        LARGER | LARGE_L | {"backbone": "udp-body8-384"},
    ),
    Published(
        "body/body8_384", "x", "rtmpose-x_coco_384x288",
        "golden's x, whose weights the paper's Body8 table reports; judged as the other sizes",
        BODY8 | {"sets": SEVEN},
    ),
    Published("body/halpe26", "m", "rtmpose-m_body8-halpe26_256x192"),
    Published(
        "body/halpe26", "t", "rtmpose-m_body8-halpe26_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-t_8xb1024-700e_body8-halpe26-256x192.py",
        SMALL_T | HALPE_SMALL | {"backbone": "udp-body8"},
    ),
    Published(
        "body/halpe26", "s", "rtmpose-m_body8-halpe26_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-s_8xb1024-700e_body8-halpe26-256x192.py",
        SMALL_S | HALPE_SMALL,
    ),
    Published(
        "body/halpe26", "l", "rtmpose-m_body8-halpe26_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-l_8xb512-700e_body8-halpe26-256x192.py", LARGE_L,
    ),
    Published(
        "body/halpe26_384", "m", "rtmpose-m_body8-halpe26_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-m_8xb512-700e_body8-halpe26-384x288.py (its name; "
        "its other values as at 256x192)",
        LARGER | {"backbone": "body8-384"},
    ),
    Published(
        "body/halpe26_384", "l", "rtmpose-m_body8-halpe26_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-l_8xb512-700e_body8-halpe26-384x288.py",
        LARGER | LARGE_L | {"backbone": "body8-384"},
    ),
    Published(
        "body/halpe26_384", "x", "rtmpose-m_body8-halpe26_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/body8/rtmpose-x_8xb256-700e_body8-halpe26-384x288.py",
        LARGER | LARGE_X | {"weak_epochs": 20, "batch": 2048, "clip": 35 / 256, "backbone": "udp-body8-384"},
    ),
    *of_sizes("wholebody133", "ml", "rtmpose-{}_wholebody_256x192", differs={"backbone": OWN_BACKBONE}),
    *of_sizes("wholebody/coco_384", "lx", "rtmpose-{}_wholebody_384x288"),
    Published("body/crowdpose", "m", "rtmpose-m_crowdpose_256x192"),
    Published("body/mpii", "m", "rtmpose-m_mpii_256x256", differs={"seed": SEED}),
    Published(
        "body/humanart", "m", "rtmpose-m_coco_256x192",
        f"{MMPOSE}body_2d_keypoint/rtmpose/humanart/rtmpose-m_8xb256-420e_humanart-256x192.py, whose one "
        "file holds COCO and Human-Art",
        {"sets": {"humanart": 1, "coco17": 1}},
    ),
    Published("hand/hand5", "m", "rtmpose-m_hand5_256x256"),
    Published(
        "hand/coco_wholebody", "m", "rtmpose-m_hand5_256x256",
        f"{MMPOSE}hand_2d_keypoint/rtmpose/coco_wholebody_hand/rtmpose-m_8xb32-210e_coco-wholebody-hand-256x256.py",
        {"sets": {"coco_wholebody_hand": 1}, "batch": 256, "weak_epochs": 30, "weak.blurs": BLURS,
         "pooled": set()},
    ),
    Published("face/face6", "m", "rtmpose-m_face6_256x256"),
    Published(
        "face/face6", "t", "rtmpose-m_face6_256x256",
        f"{MMPOSE}face_2d_keypoint/rtmpose/face6/rtmpose-t_8xb256-120e_face6-256x256.py",
        SMALL_T | {"weak.scale": 0.25, "weak.rotate": 60},
    ),
    Published(
        "face/face6", "s", "rtmpose-m_face6_256x256",
        f"{MMPOSE}face_2d_keypoint/rtmpose/face6/rtmpose-s_8xb256-120e_face6-256x256.py",
        SMALL_S | {"weak.scale": 0.25, "weak.rotate": 60},
    ),
    Published("face/lapa", "m", "rtmpose-m_lapa_256x256"),
    Published(
        "face/wflw", "m", "rtmpose-m_mpii_256x256",
        f"{MMPOSE}face_2d_keypoint/rtmpose/wflw/rtmpose-m_8xb64-60e_wflw-256x256.py",
        FACE | {"sets": {"wflw": 1}, "points": 98, "seed": 21},
    ),
    Published(
        "face/coco_wholebody", "m", "rtmpose-m_mpii_256x256",
        f"{MMPOSE}face_2d_keypoint/rtmpose/coco_wholebody_face/rtmpose-m_8xb32-60e_coco-wholebody-face-256x256.py",
        FACE | {"sets": {"coco_wholebody_face": 1}, "points": 68, "seed": 21, "batch": 256},
    ),
    Published(
        "animal/ap10k", "m", "rtmpose-m_mpii_256x256",
        f"{MMPOSE}animal_2d_keypoint/rtmpose/ap10k/rtmpose-m_8xb64-210e_ap10k-256x256.py",
        {"sets": {"ap10k": 1}, "points": 17, "seed": 21, "judged": set()},
    ),
]  # fmt: skip

PRETRAINED: list[Published] = [
    *of_sizes("coco17", "sml", "cspnext-{}_udp_aic-coco_256x192"),
    Published("coco17", "t", "cspnext-tiny_udp_aic-coco_256x192"),
    Published("wholebody133", "m", "cspnext-m_udp_wholebody_256x192"),
    Published(
        "body/body8", "m", "cspnext-m_udp_aic-coco_256x192",
        "the pretraining on COCO and AI Challenger: its configuration on seven sets is not in golden",
        {"sets": SEVEN, "points": 17},
    ),
    Published(
        "body/body8_384", "m", "cspnext-m_udp_aic-coco_256x192", "as body/body8, at 288x384",
        {"sets": SEVEN, "points": 17, "input": (288, 384)},
    ),
]  # fmt: skip
