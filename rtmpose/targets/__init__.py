"""Keypoints to training targets, and the network's output back to keypoints.

Everything here is vectorised torch on the device of the batch it is given.
"""

from rtmpose.targets.simcc import SimCC, at_least_float32
from rtmpose.targets.udp_heatmap import UDPHeatmap

Codec = SimCC | UDPHeatmap


def codec_for(head: str, input_size: tuple[int, int]) -> Codec:
    """How the outputs of a kind of head, such as "simcc", become points; input_size (w, h) px."""
    return UDPHeatmap(input_size) if head == "heatmap" else SimCC(input_size)


__all__ = ["Codec", "SimCC", "UDPHeatmap", "at_least_float32", "codec_for"]
