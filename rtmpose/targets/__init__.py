"""Keypoints to training targets, and the network's output back to keypoints.

Everything here is vectorised torch on the device of the batch it is given.
"""

from rtmpose.targets.simcc import SimCC, at_least_float32
from rtmpose.targets.udp_heatmap import UDPHeatmap

Codec = SimCC | UDPHeatmap

__all__ = ["Codec", "SimCC", "UDPHeatmap", "at_least_float32"]
