"""The predictions that are furthest from what was labelled, drawn beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.drawing import Picture, draw_skeleton
from rtmpose.evaluation.mistakes.judged import Judged
from rtmpose.skeleton import Skeleton

SHOWN = 24
AROUND = 1.4  # of the box's longer side
SIDE = 200  # px of each of the two panels
GAP = 4  # px between them
QUALITY = 82
OUTSIDE = (112, 112, 118)  # the grey beyond the photograph: at ease on light pages and on dark ones


@dataclass(frozen=True)
class Worst:
    """One of them: a JPEG of the person as labelled (left) and as predicted (right)."""

    dataset: str
    image: str
    person: str
    oks: float
    kinds: dict[str, int]  # points of each
    jpeg: str  # base64

    @classmethod
    def of(
        cls,
        dataset: str,
        judged: Judged,
        picture: NDArray[np.uint8],
        result: Mapping[str, Any],
        skeleton: Skeleton,
    ) -> Worst:
        """`picture` is the person's photograph (H, W, 3) RGB."""
        annotation = judged.person.annotation
        return cls(
            dataset=dataset,
            image=str(annotation["image_id"]),
            person=str(annotation["id"]),
            oks=judged.oks,
            kinds=judged.counts(),
            jpeg=_jpeg(_panels(judged, picture, result, skeleton)),
        )


def worst_of(judged: Iterable[Judged], count: int = SHOWN) -> list[Judged]:
    """The `count` poses of the least OKS, the worst first; of equal ones those with more labelled points."""
    return sorted(judged, key=lambda one: (one.oks, -int(one.person.labelled.sum())))[:count]


def drawn(
    dataset: str,
    chosen: Sequence[Judged],
    images: Iterable[Picture],
    results: Sequence[Mapping[str, Any]],
    skeleton: Skeleton,
) -> list[Worst]:
    """The chosen poses in their order, each cut out of its photograph; those whose photograph is not among
    `images` are left out.
    """
    by_image: dict[Any, list[int]] = {}
    for number, one in enumerate(chosen):
        by_image.setdefault(one.person.annotation["image_id"], []).append(number)
    found: dict[int, Worst] = {}
    for image in images:
        for number in by_image.get(image.image_id, ()):
            one = chosen[number]
            found[number] = Worst.of(dataset, one, image.image, results[one.place], skeleton)
    return [found[number] for number in sorted(found)]


def _panels(
    judged: Judged, picture: NDArray[np.uint8], result: Mapping[str, Any], skeleton: Skeleton
) -> NDArray[np.uint8]:
    """The square around the person's box twice, with its labelled and with its predicted points."""
    x, y, width, height = map(float, judged.person.annotation["bbox"])
    reach = max(width, height, 8.0) * AROUND
    zoom = SIDE / reach
    corner = np.array([x + width / 2 - reach / 2, y + height / 2 - reach / 2])
    # Pixel centres: the photograph's corner lies half a pixel before its first one.
    shift = (0.5 - corner) * zoom - 0.5
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    mode = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    square = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=mode, borderValue=OUTSIDE)
    sheet = np.full((SIDE, 2 * SIDE + GAP, 3), OUTSIDE, np.uint8)
    predicted = np.asarray(result["keypoints"], np.float64).reshape(-1, 3)[:, :2]
    every = np.ones(len(predicted), bool)
    for place, points, shown in (
        (0, judged.person.points[:, :2], judged.person.labelled),
        (SIDE + GAP, predicted, every),
    ):
        panel = square.copy()
        draw_skeleton(panel, points * zoom + shift, shown, skeleton)
        sheet[:, place : place + SIDE] = panel
    return sheet


def _jpeg(sheet: NDArray[np.uint8]) -> str:
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    return base64.b64encode(encoded.tobytes()).decode()
