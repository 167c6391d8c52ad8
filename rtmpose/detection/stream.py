"""Whole photographs and the boxes of their people, as the training loop takes them.

Position b of an epoch depends on the seed alone: where an epoch goes on, it goes on with the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rtmpose.config import AugmentConfig
from rtmpose.data.stream.augment import jitter_hsv
from rtmpose.data.stream.batch import Batch
from rtmpose.detection.evaluate import Photograph, read_pixels
from rtmpose.detection.letterbox import GREY
from rtmpose.files import UserError
from rtmpose.geometry import Floats

LEAST_SIDE, LEAST_SHARE = 2.0, 0.3  # px, and share of its area, that of a box must be left to be learned


class PhotographStream:
    """Batches of photographs in inputs of `size` (w, h) px, in a new order in each epoch.

    Of an `AugmentConfig` count: `flip`; `scale`, up to which share an image is made smaller or larger than it
    fits; `shift`, whether it may lie anywhere then (above 0), or stays at the top left; `hue`, `saturation`,
    `value`. `threads` read and prepare images. UserError where there is no photograph with a person.
    """

    def __init__(
        self,
        photographs: Sequence[Photograph],
        size: tuple[int, int],
        *,
        batch_size: int,
        seed: int,
        threads: int = 1,
    ) -> None:
        self.photographs = [one for one in photographs if len(one.boxes)]
        if not self.photographs:
            raise UserError("no photograph with a person to train on; see the annotation file's categories")
        self.size, self.batch_size, self.seed, self.threads = size, batch_size, seed, threads
        self.steps_per_epoch = -(-len(self.photographs) // batch_size)

    def refuse_stronger(self, augment: AugmentConfig) -> None:
        """Whole photographs are there: none is too strong."""

    def epoch(self, epoch: int, augment: AugmentConfig, start_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from `start_step` on; the last one begins the order again."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.photographs))
        order = np.resize(order, self.steps_per_epoch * self.batch_size)

        def prepare(position: int) -> tuple[NDArray[np.uint8], Floats]:
            rng = np.random.default_rng([self.seed, epoch, position])
            return self.sample(self.photographs[order[position]], augment, rng)

        with ThreadPoolExecutor(self.threads) as pool:
            ahead: list[Iterator[tuple[NDArray[np.uint8], Floats]]] = []
            for step in range(start_step, self.steps_per_epoch + 1):
                if step < self.steps_per_epoch:  # one batch is prepared while the one before is computed
                    first = step * self.batch_size
                    ahead.append(pool.map(prepare, range(first, first + self.batch_size)))
                if step > start_step:
                    first = (step - 1) * self.batch_size
                    keys = [str(self.photographs[n].path) for n in order[first : first + self.batch_size]]
                    yield _batch(list(ahead.pop(0)), keys)

    def sample(
        self, photograph: Photograph, augment: AugmentConfig, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], Floats]:
        """One augmented image (h, w, 3) RGB and the boxes (n, 4) xyxy px that are still in it."""
        pixels = read_pixels(photograph)
        height, width = pixels.shape[:2]
        fit = min(self.size[0] / width, self.size[1] / height)
        scale = fit * (1.0 + augment.scale * rng.uniform(-1.0, 1.0))
        # Anywhere, so that a smaller image lies within the input, and a larger one fills it.
        free = np.array(self.size) - scale * np.array([width, height])
        shift = rng.uniform(0.0, 1.0, 2) * free * (augment.shift > 0)
        mirrored = rng.random() < augment.flip
        matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
        if mirrored:
            matrix[0] = [-scale, 0.0, scale * width + shift[0]]  # within its own place
        # Pixels are squares: their centres lie half a pixel from the corners that boxes refer to.
        centred = matrix.copy()
        centred[:, 2] += 0.5 * matrix[:, :2].sum(1) - 0.5
        image = cv2.warpAffine(
            pixels, centred, self.size, flags=cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY)
        )
        limits = augment.hue, augment.saturation, augment.value
        gains = [int(rng.integers(-limit, limit + 1)) for limit in limits]
        image = jitter_hsv(np.asarray(image, np.uint8), (gains[0], gains[1], gains[2]))
        return image, _moved(photograph.boxes, matrix, self.size)


def _moved(boxes: Floats, matrix: Floats, size: tuple[int, int]) -> Floats:
    """Boxes (n, 4) xyxy through a scaling matrix (2, 3), clipped to the input; without those of which too
    little is left.
    """
    ends = boxes.reshape(-1, 2, 2) * np.diag(matrix[:, :2]) + matrix[:, 2]  # (n, 2, 2)
    ends = np.concatenate([ends.min(1), ends.max(1)], axis=1)
    clipped = ends.clip(0.0, [*size, *size])
    sides, full = clipped[:, 2:] - clipped[:, :2], ends[:, 2:] - ends[:, :2]
    left = sides.prod(1) >= LEAST_SHARE * full.prod(1)
    return clipped[left & (sides >= LEAST_SIDE).all(1)]


def _batch(samples: list[tuple[NDArray[np.uint8], Floats]], keys: list[str]) -> Batch:
    """Images, stacked, and boxes as two points each, filled up with points that weigh nothing."""
    most = max([1, *(len(boxes) for _, boxes in samples)])
    corners = np.zeros((len(samples), most, 4), np.float32)
    there = np.zeros((len(samples), most), np.float32)
    for row, (_, boxes) in enumerate(samples):
        corners[row, : len(boxes)], there[row, : len(boxes)] = boxes, 1.0
    images = torch.from_numpy(np.stack([image for image, _ in samples]))
    weights = torch.from_numpy(there.repeat(2, axis=1))
    return Batch(images, torch.from_numpy(corners).view(len(samples), -1, 2), weights, keys, [])
