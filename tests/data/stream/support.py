"""The skeleton, the size and the augmentation that the tests of the stream share."""

from __future__ import annotations

from rtmpose.config import AugmentConfig
from rtmpose.descriptors import load_skeleton

COCO = load_skeleton("coco17")
AUGMENT = AugmentConfig.model_validate(
    {"pixels": [{"name": "MotionBlur", "p": 0.3}, {"name": "AdditiveNoise", "p": 0.3}]}
)
SIZE = (96, 128)
