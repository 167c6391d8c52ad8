"""People in one photograph: boxes in, keypoints out, with an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rtmpose.data.raw.photograph import decode_photograph
from rtmpose.deploy.card import ModelCard
from rtmpose.deploy.runtimes.base import ModelFiles, Placement
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.deploy.runtimes.session import open_session
from rtmpose.descriptors import Frame, load_skeleton
from rtmpose.drawing import draw_skeleton
from rtmpose.evaluation.confidence import Logistic
from rtmpose.files import UserError, read_bytes, write_atomic
from rtmpose.geometry import Floats
from rtmpose.motion.options import SURE
from rtmpose.skeleton import Skeleton
from rtmpose.topdown import ThroughArrays, TopDown

Box = tuple[float, float, float, float]  # x, y, w, h px
AT_ONCE = 64  # persons in one batch: what a picture takes of memory does not grow with its people


def predict_image(
    image: Path, model: Path, boxes: Sequence[Box], draw: Path | None = None, frame: Frame = "display"
) -> list[dict[str, Any]]:
    """Keypoints of the person in each box (x, y, w, h) px, or of one who fills the image; optionally drawn to
    a PNG.

    Each result is {"box", "keypoints": {name: [x, y, score]}} in px of the image in `frame`: upright as
    viewers show it, unless its pixels are asked for as they are stored (`rtmpose.data.raw.photograph`).
    Raises UserError for unreadable files and for boxes that are none or lie outside the image.
    """
    pixels = read_photo(image, frame)
    chosen = boxes_within(boxes, pixels, image)
    card, way = open_model(model)
    found, scores = points_of(way, pixels, chosen, model)
    if draw is not None:
        for points, score in zip(found, scores, strict=True):
            draw_skeleton(pixels, points, confidence_of(curve_of(card), score) >= SURE, way.skeleton)
        write_atomic(draw, cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return [
        {"box": [float(side) for side in box], "keypoints": named(card.keypoint_names, points, score)}
        for box, points, score in zip(chosen, found, scores, strict=True)
    ]


def boxes_within(boxes: Sequence[Box], pixels: NDArray[np.uint8], image: Path) -> list[Box]:
    """The boxes of an image's pixels (H, W, 3), or without any the one that is the whole image; UserError
    naming `image` for a box that lies outside of it.
    """
    height, width = pixels.shape[:2]
    for box in boxes:
        if not (box[0] < width and box[1] < height and box[0] + box[2] > 0 and box[1] + box[3] > 0):
            raise UserError(f"{image}: box {list(box)} lies outside the image, which is {width}x{height} px")
    return [*boxes] or [(0.0, 0.0, float(width), float(height))]


def points_of(
    way: TopDown, pixels: NDArray[np.uint8], boxes: Sequence[Box], model: Path
) -> tuple[Floats, Floats]:
    """Points (N, K, 2) px and scores (N, K) of the persons in boxes of one image; UserError naming `model`
    where they are not finite.
    """
    parts = [
        way.points(way.crops(pixels, boxes[start : start + AT_ONCE]))
        for start in range(0, len(boxes), AT_ONCE)
    ]
    found, scores = (np.concatenate(one) for one in zip(*parts, strict=True))
    if not (np.isfinite(found).all() and np.isfinite(scores).all()):
        raise UserError(f"{model}: gives points that are not finite; export it again from whole weights")
    return found, scores


def read_photo(path: Path, frame: Frame = "display") -> NDArray[np.uint8]:
    """An image file as uint8 RGB (H, W, 3), as displayed; UserError where it is none or claims too much."""
    return decode_photograph(read_bytes(path, "give the path of a photograph"), path, frame)


def open_model(path: Path) -> tuple[ModelCard, TopDown]:
    """An exported file in ONNX Runtime, with everything around it as its card says."""
    card = read_card(path)
    skeleton = skeleton_of(card, path)
    threads = Placement(threads=torch.get_num_threads())
    network = ThroughArrays(open_session("onnxruntime", ModelFiles(path), placement=threads))
    return card, TopDown(network, card.codec(), skeleton, mean=card.mean, std=card.std)


def skeleton_of(card: ModelCard, path: Path) -> Skeleton:
    """The skeleton of an exported file's points, for flips and drawing; UserError where the data set that its
    card names has other points.
    """
    try:
        skeleton = load_skeleton(card.skeleton)
    except UserError as error:
        raise UserError(f"{path}: its card names the data set of its points: {error}") from None
    if skeleton.names != card.keypoint_names:
        raise UserError(
            f"{path}: its {len(card.keypoint_names)} points are not those of data set '{card.skeleton}' "
            f"({len(skeleton.names)} points); export it with the --skeleton that it was trained with"
        )
    return skeleton


def curve_of(card: ModelCard) -> Logistic | None:
    """How a model's raw scores become probabilities; None where it was not calibrated."""
    known = card.confidence
    return None if known is None else Logistic(known.slope, known.intercept)


def confidence_of(curve: Logistic | None, scores: Floats) -> Floats:
    """Raw scores of any shape as probabilities; without a curve they are cut to 0 to 1."""
    return np.clip(scores, 0.0, 1.0) if curve is None else curve(scores)


def named(
    names: Sequence[str], points: NDArray[np.floating], scores: NDArray[np.floating]
) -> dict[str, list[float]]:
    """Points (K, 2) and scores (K,) as {name: [x, y, score]}, rounded as JSON shows them."""
    rows = zip(names, points.tolist(), scores.tolist(), strict=True)
    return {name: [round(x, 2), round(y, 2), round(score, 4)] for name, (x, y), score in rows}
