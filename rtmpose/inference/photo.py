"""People in one image: boxes in, keypoints out, with an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from rtmpose.deploy.runtimes.base import ModelFiles, open_session
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.breakdown import draw_skeleton
from rtmpose.files import UserError, write_atomic
from rtmpose.geometry import box_to_center_scale, crop_matrix, crop_to_image, warp
from rtmpose.models import normalise
from rtmpose.targets import SimCC


def predict_image(
    image: Path, model: Path, boxes: Sequence[tuple[float, float, float, float]], draw: Path | None = None
) -> list[dict[str, Any]]:
    """Keypoints of the person in each box (x, y, w, h) px, or of one who fills the image; optionally drawn to
    a PNG.

    Each result is {"box", "keypoints": {name: [x, y, score]}} in image px. Raises UserError for unreadable
    files.
    """
    content = cv2.imread(str(image), cv2.IMREAD_COLOR)
    if content is None:
        raise UserError(f"{image}: not a readable image")
    pixels = np.ascontiguousarray(content[..., ::-1])  # RGB
    height, width = pixels.shape[:2]
    card = read_card(model)
    infer = open_session("onnxruntime", ModelFiles(model), "fp32", torch.get_num_threads(), 1)
    chosen = np.array(boxes or [(0, 0, width, height)], np.float64)
    center, scale = box_to_center_scale(chosen, card.input_size[0] / card.input_size[1])
    matrices = [crop_matrix(c, s, 0.0, card.input_size, False) for c, s in zip(center, scale, strict=True)]
    crops = [warp(pixels, matrix, card.input_size) for matrix in matrices]
    x, y = infer(np.ascontiguousarray(normalise(torch.from_numpy(np.stack(crops))).numpy()))
    points, scores = SimCC(card.input_size, split_ratio=card.split_ratio).decode(
        (torch.from_numpy(x), torch.from_numpy(y))
    )
    found = crop_to_image(points.double().numpy(), center, scale, card.input_size)  # (N, K, 2)
    if draw is not None:
        skeleton = load_skeleton(card.skeleton)
        for pose, score in zip(found, scores.numpy(), strict=True):
            draw_skeleton(pixels, pose, score > 0.2, skeleton)
        write_atomic(draw, cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return [
        {
            "box": box.tolist(),
            "keypoints": {
                name: [round(float(x), 2), round(float(y), 2), round(float(s), 4)]
                for name, (x, y), s in zip(card.keypoint_names, pose, score, strict=True)
            },
        }
        for box, pose, score in zip(chosen, found, scores.numpy(), strict=True)
    ]
