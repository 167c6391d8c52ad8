"""What the tests of the networks share: models filled with the weights the reference vectors were computed
from.
"""

from __future__ import annotations

import json
import re

import torch

from rtmpose.models import PoseNet, build_pose_net
from rtmpose.models.cspnext import STRIDE, CSPNeXt, Scale
from rtmpose.models.heads.simcc import SimCCHead
from tests.support import ROOT, SHARED, det_tensor, golden

# Facts of the reference configurations by what their names say.
KEYPOINTS = {
    "wholebody": 133,
    "hand5": 21,
    "face6": 106,
    "lapa": 106,
    "halpe26": 26,
    "mpii": 16,
    "crowdpose": 14,
}


def golden_names(pattern: str) -> list[str]:
    """The reference files at hand, committed and shared, whose names match `pattern` (one group: the model's
    name).
    """
    folders = (ROOT / "tests" / "golden", SHARED / "golden")
    matches = (re.fullmatch(pattern, path.name) for folder in folders for path in folder.glob("*"))
    return sorted({match[1] for match in matches if match})


def build_named(name: str) -> PoseNet:
    """The network of a reference file, such as `rtmpose-m_aic-coco_384x288` or
    `cspnext-tiny_udp_coco_256x192`.
    """
    match = re.fullmatch(r"(rtmpose|cspnext)-(\w+?)_(.+?)_(\d+)x(\d+)(_projects)?", name)
    assert match, name
    family, size, data, height, width = match.groups()[:5]
    heatmap = family == "cspnext"
    keypoints = next((count for part, count in KEYPOINTS.items() if part in data), 17)
    keypoints = 19 if data == "udp_aic-coco" else keypoints
    return build_pose_net(size[0], "heatmap" if heatmap else "simcc", keypoints, (int(width), int(height)))


def light_net(points: int, input_size: tuple[int, int]) -> PoseNet:
    """RTMPose-t's layers at a third of their width: for tests of what holds for any network."""
    features = CSPNeXt(Scale(0.167, 0.125))
    head = SimCCHead(features.channels, points, input_size, STRIDE, kernel=7, hidden=32, gau=True)
    return PoseNet(features, head, points, input_size)


def fill(model: PoseNet) -> PoseNet:
    """`model` with the reference weights, in evaluation mode."""
    state = model.state_dict()
    weights = {key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}
    filled = {key: torch.from_numpy(det_tensor(key, shape)) for key, shape in weights.items()}
    model.load_state_dict(state | filled)
    return model.eval()


def golden_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The reference's state dict: key to shape."""
    content = json.loads(golden(f"state_dict_{name}.json").read_text())
    return {key: tuple(shape) for key, shape in content.items()}
