"""The networks of RTMPose, and the files their weights are kept in."""

from rtmpose.models.pose_net import MEAN, RGB, STD, PoseNet, PoseOutput, autocast, normalise
from rtmpose.models.weights import Mismatch, load_exactly, load_weights, read_weights, save_tensors
from rtmpose.models.zoo import build_model, build_pose_net, check_names

__all__ = [
    "MEAN",
    "RGB",
    "STD",
    "Mismatch",
    "PoseNet",
    "PoseOutput",
    "autocast",
    "build_model",
    "build_pose_net",
    "check_names",
    "load_exactly",
    "load_weights",
    "normalise",
    "read_weights",
    "save_tensors",
]
