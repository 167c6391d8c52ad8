"""The networks of RTMPose, and the files their weights are kept in."""

from rtmpose.models.pose_net import MEAN, STD, PoseNet, normalise
from rtmpose.models.weights import Mismatch, load_exactly, load_weights, save_tensors
from rtmpose.models.zoo import build_model, build_pose_net

__all__ = [
    "MEAN",
    "STD",
    "Mismatch",
    "PoseNet",
    "build_model",
    "build_pose_net",
    "load_exactly",
    "load_weights",
    "normalise",
    "save_tensors",
]
