"""A small network with decided maxima, exported once for all tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from rtmpose.deploy.card import ModelCard
from rtmpose.descriptors import load_skeleton
from rtmpose.models import MEAN, STD, PoseNet, build_pose_net
from tests.support import det_tensor

SIZE = (96, 128)


def formula_net() -> PoseNet:
    """The t network at 96x128 with the reference vectors' weights, which depend on the keys alone."""
    model = build_pose_net("t", input_size=SIZE).eval()
    weights = {
        key: torch.from_numpy(det_tensor(key, tuple(t.shape))) for key, t in model.state_dict().items()
    }
    model.load_state_dict(weights)
    return model


def card() -> ModelCard:
    """Always the same, also when the checkout changes between two calls."""
    made = ModelCard.of(
        size="t",
        kernel=7,
        hidden=256,
        gau=True,
        input_size=SIZE,
        skeleton="coco17",
        keypoint_names=load_skeleton("coco17").names,
        mean=MEAN,
        std=STD,
        split_ratio=2.0,
    )
    return replace(made, git_commit="0123abc")


def save_weights(folder: Path) -> Path:
    torch.save(formula_net().state_dict(), folder / "rtmpose.pt")
    return folder / "rtmpose.pt"
