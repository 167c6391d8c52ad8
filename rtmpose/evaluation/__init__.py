"""What a trained network is worth: prediction, COCO's figures, and tables for people."""

from rtmpose.evaluation.breakdown import breakdown, per_keypoint_error
from rtmpose.evaluation.coco import (
    evaluate_keypoints,
    evaluate_whole_body,
    load_detections,
    load_ground_truth,
    person_annotations,
)
from rtmpose.evaluation.mean_pose import mean_pose, mean_pose_predictions
from rtmpose.evaluation.predict import predict_poses
from rtmpose.evaluation.scoring import Pose, to_results

__all__ = [
    "Pose",
    "breakdown",
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
