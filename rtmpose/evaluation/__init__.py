"""What a trained network is worth: prediction, COCO's figures, and pictures and tables for people."""

from rtmpose.evaluation.breakdown import breakdown, draw_predictions, per_keypoint_error
from rtmpose.evaluation.coco import (
    evaluate_keypoints,
    evaluate_whole_body,
    load_detections,
    load_ground_truth,
    person_annotations,
)
from rtmpose.evaluation.predict import Pose, mean_pose, mean_pose_predictions, predict_poses, to_results

__all__ = [
    "Pose",
    "breakdown",
    "draw_predictions",
    "evaluate_keypoints",
    "evaluate_whole_body",
    "load_detections",
    "load_ground_truth",
    "mean_pose",
    "mean_pose_predictions",
    "per_keypoint_error",
    "person_annotations",
    "predict_poses",
    "to_results",
]
