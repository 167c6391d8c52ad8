"""The networks of RTMPose, and the files their weights are kept in."""

from rtmpose.models.pose_net import MEAN, STD, PoseNet, build_pose_net, normalise
from rtmpose.models.weights import Mismatch, load_weights

__all__ = ["MEAN", "STD", "Mismatch", "PoseNet", "build_pose_net", "load_weights", "normalise"]
