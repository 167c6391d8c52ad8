"""Other trackers, and the judge of identities: runs in `.peers/trackers` and `.peers/rtmlib`, started by
`tracking.py`.

    python tracking.py (ocsort|rtmlib|score) QUESTION.json ANSWER.json

`ocsort` and `rtmlib` get `fps` and, for each frame, boxes (xyxy px), scores and keypoints; they answer with
an identity for each person, -1 for none. `score` gets, for each sequence and frame, the identities and boxes
of truth and tracks; it answers with trackeval's figures of all sequences together.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def ocsort(question: dict[str, Any]) -> list[list[int]]:
    """OC-SORT of the package `trackers`; `high` is its threshold for boxes it trusts."""
    import supervision as sv  # type: ignore[import-not-found]
    from trackers import OCSORTTracker  # type: ignore[import-not-found]

    tracker = OCSORTTracker(frame_rate=question["fps"], high_conf_det_threshold=question["high"])
    answer = []
    for frame in question["frames"]:
        boxes = np.array(frame["boxes"], float).reshape(-1, 4)
        given = sv.Detections(
            xyxy=boxes, confidence=np.array(frame["scores"], float), data={"row": np.arange(len(boxes))}
        )
        found = tracker.update(given)
        identities = [-1] * len(boxes)
        if len(found):
            for row, identity in zip(found.data["row"], found.tracker_id, strict=True):
                identities[int(row)] = int(identity)
        answer.append(identities)
    return answer


class Unused:
    """A solution in rtmlib's form; its rule for identities needs neither a detector nor a network."""

    det_model = pose_model = None

    def __init__(self, **_options: Any) -> None:
        """rtmlib says which backend and device it would use."""


def rtmlib(question: dict[str, Any]) -> list[list[int]]:
    """rtmlib's rule: each person's box around the points continues the box of the last frame that it overlaps
    most, in the order in which people come.

    Its class is not called as a whole. After the rule it puts the points in order by taking identities for
    places in a list; from the first identity above the number of people on this fails, and it forgets boxes.
    """
    from rtmlib import PoseTracker  # type: ignore[import-not-found]
    from rtmlib.tools.solution.pose_tracker import pose_to_bbox  # type: ignore[import-not-found]

    tracker = PoseTracker(Unused)
    answer = []
    for frame in question["frames"]:
        people = np.array(frame["keypoints"], float).reshape(-1, 17, 2)
        boxes = [pose_to_bbox(points) for points in people]
        identities = [int(tracker.track_by_iou(box)[0]) for box in boxes]
        kept = [row for row, identity in enumerate(identities) if identity >= 0]
        tracker.bboxes_last_frame = [boxes[row] for row in kept]
        tracker.track_ids_last_frame = [identities[row] for row in kept]
        answer.append(identities)
    return answer


def score(question: dict[str, Any]) -> dict[str, float]:
    """HOTA, IDF1 and switches over all sequences, by trackeval's own metrics."""
    from trackeval.metrics import CLEAR, HOTA, Identity  # type: ignore[import-not-found]

    quiet = {"PRINT_CONFIG": False}
    metrics = {"HOTA": HOTA(), "CLEAR": CLEAR(quiet), "Identity": Identity(quiet)}
    data = [_sequence(*pair) for pair in question["sequences"]]
    found = {}
    for name, metric in metrics.items():
        each = {str(index): metric.eval_sequence(sequence) for index, sequence in enumerate(data)}
        found[name] = metric.combine_sequences(each)
    return {
        "HOTA": float(np.mean(found["HOTA"]["HOTA"])),
        "AssA": float(np.mean(found["HOTA"]["AssA"])),
        "IDF1": float(found["Identity"]["IDF1"]),
        "MOTA": float(found["CLEAR"]["MOTA"]),
        "switches": int(found["CLEAR"]["IDSW"]),
        "missed": int(found["CLEAR"]["CLR_FN"]),
        "false": int(found["CLEAR"]["CLR_FP"]),
    }


def _sequence(truth: list[dict[str, Any]], tracks: list[dict[str, Any]]) -> dict[str, Any]:
    """A sequence as trackeval's metrics take it: identities counted from 0, IoU of all pairs of boxes."""
    data: dict[str, Any] = {"num_timesteps": len(truth)}
    for side, frames in (("gt", truth), ("tracker", tracks)):
        known = sorted({identity for frame in frames for identity in frame["ids"]})
        number = {identity: index for index, identity in enumerate(known)}
        data[f"{side}_ids"] = [np.array([number[i] for i in frame["ids"]], int) for frame in frames]
        data[f"num_{side}_ids"] = len(known)
        data[f"num_{side}_dets"] = sum(len(frame["ids"]) for frame in frames)
    data["similarity_scores"] = [_overlaps(_boxes(a), _boxes(b)) for a, b in zip(truth, tracks, strict=True)]
    return data


def _boxes(frame: dict[str, Any]) -> Any:
    return np.array(frame["boxes"], float).reshape(-1, 4)


def _overlaps(first: Any, second: Any) -> Any:
    a, b = first[:, None], second[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    common = sides.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - common
    return common / np.maximum(union, 1e-9)


def main() -> None:
    warnings.simplefilter("ignore")
    what, question, answer = sys.argv[1:]
    asked = json.loads(Path(question).read_text())
    Path(answer).write_text(json.dumps({"ocsort": ocsort, "rtmlib": rtmlib, "score": score}[what](asked)))


if __name__ == "__main__":
    main()
