"""What a pipeline's confidence is worth on labelled photographs, and a model that gets a calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rtmpose.evaluation.confidence import (
    Bin,
    Logistic,
    Scored,
    calibrate,
    calibration_error,
    diagram,
    fit,
    reliability,
)
from rtmpose.files import UserError
from rtmpose.judging.poses import Judged, boxed
from rtmpose.skeleton import Skeleton

if TYPE_CHECKING:
    from rtmpose.inference.pipeline import PosePipeline

RAW, OWN = "raw score, cut to 0…1", "the model's calibration"


@dataclass(frozen=True)
class Reliability:
    """Claimed confidence beside what came true, of labelled points in ground-truth boxes."""

    points: int
    right: float  # share of the points
    calibrated: bool  # whether the model has a calibration
    error: float | None  # expected calibration error of its confidence; None without points
    error_raw: float | None  # of raw scores, cut to 0 to 1
    error_refitted: float | None  # of a curve fitted on half of the images, on the other half
    curve: Logistic | None  # fitted on all of these points; None where they are too few
    rows: list[Bin]  # of its confidence
    rows_raw: list[Bin]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def line(self) -> str:
        """The figures as text."""
        if self.error is None or self.error_raw is None:
            return "confidence: no labelled points"
        said = "the model's calibration" if self.calibrated else "no calibration: raw scores, cut to 0 to 1"
        refitted = "" if self.error_refitted is None else f", {self.error_refitted:.3f} if fitted here"
        return (
            f"confidence: expected calibration error {self.error:.3f} ({said}), raw scores "
            f"{self.error_raw:.3f}{refitted}; {self.points} points, {100 * self.right:.1f} % right"
        )

    def picture(self) -> bytes:
        """The reliability diagram, a PNG."""
        curves = {RAW: self.rows_raw}
        return diagram(curves | {OWN: self.rows} if self.calibrated else curves)


def reliability_of(judged: Judged, skeleton: Skeleton, curve: Logistic | None) -> Reliability:
    """Of what was found in ground-truth boxes. `curve`: the model's own, None where it has none."""
    points, halves = _scored(judged, skeleton)
    raw = np.clip(points.scores, 0.0, 1.0)
    claimed = raw if curve is None else curve(points.scores)
    refitted = calibrate(*halves)
    return Reliability(
        points=len(points.right),
        right=float(points.right.mean()) if len(points.right) else 0.0,
        calibrated=curve is not None,
        error=_number(calibration_error(claimed, points.right)),
        error_raw=_number(calibration_error(raw, points.right)),
        error_refitted=None if refitted is None else _number(refitted.error),
        curve=fit(points),
        rows=reliability(claimed, points.right),
        rows_raw=reliability(raw, points.right),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _scored(judged: Judged, skeleton: Skeleton) -> tuple[Scored, tuple[Scored, Scored]]:
    """The labelled points of all images, and those of every second image apart from those of the others."""
    annotations: dict[Any, list[dict[str, Any]]] = {}
    for each in boxed(judged.truth["annotations"]):
        annotations.setdefault(each["image_id"], []).append(each)
    turn = {image: iter(some) for image, some in annotations.items()}
    poses = [replace(pose, annotation_id=next(turn[pose.image_id])["id"]) for pose in judged.poses]
    half = {image["id"]: number % 2 for number, image in enumerate(judged.truth["images"])}

    def some(which: Sequence[int]) -> Scored:
        return Scored.of(
            judged.truth, [pose for pose in poses if half[pose.image_id] in which], skeleton.sigmas
        )

    return some((0, 1)), (some((0,)), some((1,)))


def write_calibrated(pipeline: PosePipeline, found: Reliability, path: Path) -> Path:
    """A copy of the pipeline's model whose card has the calibration that was fitted here.

    UserError where there are too few points, where the model is an end-to-end file, whose graph has its own
    calibration, and where the copy would take the model's own place.
    """
    from rtmpose.deploy.card import Confidence
    from rtmpose.deploy.graphs import save_card
    from rtmpose.inference.network import E2E

    if found.curve is None:
        raise UserError(
            f"{path}: not written: {found.points} labelled points are too few for a calibration; give more "
            "photographs"
        )
    source = pipeline.network.path
    if source.name.endswith(E2E):
        raise UserError(f"{source}: is an end-to-end file; calibrate the exported one that it was made from")
    if path.exists() and path.samefile(source):
        raise UserError(f"{path}: is the model itself; give the calibrated one another name")
    curve = Confidence(slope=found.curve.slope, intercept=found.curve.intercept)
    return save_card(source, pipeline.card.with_more(confidence=curve), path)
