"""What goes into and comes out of the network: normalised pixels, training targets, decoded keypoints.

Everything here is vectorised torch on the device of the batch it is given.
"""

from rtmpose.targets.normalise import MEAN, STD, normalise
from rtmpose.targets.simcc import SimCC
from rtmpose.targets.udp_heatmap import UDPHeatmap

Codec = SimCC | UDPHeatmap

__all__ = ["MEAN", "STD", "Codec", "SimCC", "UDPHeatmap", "normalise"]
