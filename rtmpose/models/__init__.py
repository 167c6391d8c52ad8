"""The networks of RTMPose, and the files their weights are kept in."""

from rtmpose.models.pose_net import PoseNet, build_pose_net
from rtmpose.models.weights import Mismatch, load_weights

__all__ = ["Mismatch", "PoseNet", "build_pose_net", "load_weights"]
