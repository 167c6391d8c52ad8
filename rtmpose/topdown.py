"""The one way from boxes to points: crop each box, normalise, run a network or a runtime, decode, and lay the
points back into the image.

Evaluation, single photographs, deployment's samples and the benchmarks all go this way, so what is measured
is what runs. The network is any callable: a `PoseNet`, one under autocast (`in_precision`), or a runtime that
takes and gives arrays (`ThroughArrays`, `ThroughCrops`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from rtmpose.files import UserError
from rtmpose.geometry import Floats, box_to_center_scale, crop_matrix, crop_to_image, warp
from rtmpose.models.pose_net import MEAN, RGB, STD, PoseOutput, autocast, normalise
from rtmpose.skeleton import Skeleton
from rtmpose.targets import Codec, at_least_float32

#: Normalised RGB (N, 3, H, W) float32 -> SimCC vectors (x (N, K, 2W), y (N, K, 2H)) or heatmaps (N, K, h, w).
Network = Callable[[Tensor], PoseOutput]

MARGIN = 3  # px around the part of an image that crops look at: bilinear, cut to whole px, and rounding
LARGEST = 4_000_000  # px of an image: memory for a larger one is new each time, and its pages cost more
WIDENED = 6  # filling a pixel's fourth channel costs a sixth of what it saves for a pixel of a crop


@dataclass(frozen=True, eq=False)
class Crop:
    """What a network sees of one box."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB
    center: Floats  # (2,) image px
    scale: Floats  # (2,) image px: the sides of the part of the image that fills the crop


@dataclass(frozen=True, eq=False)
class Crops:
    """What a network sees of several boxes, which need not be of one image, in one block of memory."""

    pixels: NDArray[np.uint8]  # (N, H, W, 3) RGB
    center: Floats  # (N, 2) image px
    scale: Floats  # (N, 2) image px

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def of(cls, crops: Sequence[Crop]) -> Crops:
        """Single crops, stacked."""
        pixels, center, scale = (
            np.stack([getattr(crop, name) for crop in crops]) for name in ("pixels", "center", "scale")
        )
        return cls(pixels, center, scale)


def crop_box(image: NDArray[np.uint8], box: ArrayLike, size: tuple[int, int], *, udp: bool) -> Crop:
    """The crop of `size` (w, h) px around a box xywh px of an RGB image, padded by 1.25; black beyond the
    image.

    `udp`: whether pixel centres or pixel corners are mapped, as the codec says (see `geometry`). Raises
    UserError for a box that has no size or is not finite.
    """
    crops = crop_boxes(image, np.asarray(box)[None], size, udp=udp)
    return Crop(crops.pixels[0], crops.center[0], crops.scale[0])


def crop_boxes(image: NDArray[np.uint8], boxes: ArrayLike, size: tuple[int, int], *, udp: bool) -> Crops:
    """The crops of all boxes (N, 4) of one image, each as `crop_box` cuts it, and its errors."""
    boxes = np.asarray(boxes).reshape(-1, 4)
    with np.errstate(over="ignore", invalid="ignore"):  # said below, in one line
        center, scale = box_to_center_scale(boxes, size[0] / size[1])
        fine = np.isfinite(center).all(-1) & np.isfinite(scale).all(-1) & (scale.min(-1) > 0)
    if not fine.all():
        raise UserError(
            f"box {boxes[~fine][0].tolist()}: give x, y, w, h in px, finite, with w and h above 0"
        )
    pixels = np.empty((len(boxes), size[1], size[0], 3), np.uint8)
    source = _widened(image, center, scale, pixels.size // 3)
    for row, middle, sides in zip(pixels, center, scale, strict=True):
        matrix = crop_matrix(middle, sides, 0.0, size, udp)
        if source is image:
            warp(image, matrix, size, out=row)
        else:
            cv2.cvtColor(warp(source, matrix, size), cv2.COLOR_RGBA2RGB, dst=row)
    return Crops(pixels, center, scale)


def _widened(image: NDArray[np.uint8], center: Floats, scale: Floats, pixels: int) -> NDArray[np.uint8]:
    """The image with a fourth channel, filled where crops of so many `pixels` in all look at it: OpenCV warps
    four channels in half the time of three, to the same values. The image itself where they look at so much
    of it that this takes longer.
    """
    sides = image.shape[1], image.shape[0]
    low = np.clip((center - scale / 2).min(axis=0, initial=max(sides)) - MARGIN, 0, sides)
    high = np.clip((center + scale / 2).max(axis=0, initial=0) + MARGIN, 0, sides)
    (left, top), (right, bottom) = low.astype(int), high.astype(int)
    looked_at = (right - left) * (bottom - top)
    if not 0 < looked_at <= WIDENED * pixels or image.shape[0] * image.shape[1] > LARGEST:
        return image
    wide = np.empty((*image.shape[:2], 4), np.uint8)
    part = slice(top, bottom), slice(left, right)
    cv2.cvtColor(image[part], cv2.COLOR_RGB2RGBA, dst=wide[part])
    return wide


def planes_of(pixels: NDArray[np.uint8], mean: RGB, std: RGB) -> NDArray[np.float32]:
    """Crops (N, H, W, 3) as a runtime takes them: the values of `input_of` (N, 3, H, W), plane after plane in
    memory.
    """
    bytes_ = np.empty((len(pixels), 3, *pixels.shape[1:3]), np.uint8)
    for planes, image in zip(bytes_, pixels, strict=True):
        cv2.split(image, list(planes))
    found = bytes_.astype(np.float32)
    found -= np.array(mean, np.float32)[:, None, None]
    found /= np.array(std, np.float32)[:, None, None]
    return found


def input_of(
    crops: Sequence[Crop] | Crops, mean: RGB, std: RGB, device: torch.device | str = "cpu"
) -> Tensor:
    """Crops as a network takes them: normalised float32 (N, 3, H, W) on `device`, channels-last in memory."""
    batch = crops if isinstance(crops, Crops) else Crops.of(crops)
    return normalise(torch.from_numpy(batch.pixels).to(device), mean, std)


@dataclass(frozen=True)
class TopDown:
    """A network and all that stands between a person's box and its points.

    The network's first K outputs are the skeleton's K points. `flip_test` averages with the prediction on the
    mirrored crop, where the skeleton can be mirrored. `mean` and `std` are those of the RGB channels, in grey
    levels, that the network was trained with: an exported file's card says them. Crops are moved to `device`
    before they are normalised.
    """

    network: Network
    codec: Codec
    skeleton: Skeleton
    flip_test: bool = False
    mean: RGB = MEAN
    std: RGB = STD
    device: torch.device | str = "cpu"

    def crop(self, image: NDArray[np.uint8], box: ArrayLike) -> Crop:
        """The crop of one box xywh px, as this network wants it."""
        return crop_box(image, box, self.codec.input_size, udp=self.codec.udp)

    def crops(self, image: NDArray[np.uint8], boxes: ArrayLike) -> Crops:
        """The crops of all boxes (N, 4) xywh px of one image: one batch for the network."""
        return crop_boxes(image, boxes, self.codec.input_size, udp=self.codec.udp)

    def points(self, crops: Sequence[Crop] | Crops) -> tuple[Floats, Floats]:
        """Keypoints (N, K, 2) in px of the images that the crops come from, and scores (N, K)."""
        batch = crops if isinstance(crops, Crops) else Crops.of(crops)
        found, scores = self._decoded(batch)
        return crop_to_image(found, batch.center, batch.scale, self.codec.input_size), scores

    @torch.inference_mode()
    def _decoded(self, crops: Crops) -> tuple[Floats, Floats]:
        """Keypoints (N, K, 2) in input px and scores (N, K)."""
        arrays = self.network if isinstance(self.network, ThroughArrays) else None
        aside = nullcontext if arrays is None else one_thread
        with aside():
            columns = -1
            if arrays is None:
                images = input_of(crops, self.mean, self.std, self.device)
            else:
                images, columns = arrays.inputs(crops, self.mean, self.std), arrays.columns
            mirrored = images.flip(columns) if self.flip_test and self.skeleton.mirrors else None
        outputs = self.network(images)
        again = None if mirrored is None else self.network(mirrored)
        codec: Any = self.codec  # each codec takes the outputs of its own kind of head
        with aside():
            found = self._first(outputs)
            if again is not None:
                found = codec.flip_average(found, self._first(again), self.skeleton.flip)
            points, scores = codec.decode(found)
        return points.double().cpu().numpy(), scores.double().cpu().numpy()

    def _first(self, outputs: PoseOutput) -> PoseOutput:
        """The skeleton's points among the outputs, at least float32: averages and maxima of bfloat16 would
        lose the bin.
        """
        if not isinstance(outputs, Tensor):
            x, y = outputs
            return self._some(x), self._some(y)
        return self._some(outputs)

    def _some(self, outputs: Tensor) -> Tensor:
        count = self.skeleton.num_keypoints
        if outputs.shape[1] < count:
            raise UserError(
                f"the model has {outputs.shape[1]} keypoints, the skeleton {count}; give the model's own"
            )
        return at_least_float32(outputs[:, :count])


def in_precision(model: nn.Module, device: torch.device | str, precision: str) -> Network:
    """The network under autocast to `precision` on `device`; "fp32" leaves it as it is."""
    kind = torch.device(device).type

    def network(images: Tensor) -> PoseOutput:
        with autocast(kind, precision):
            outputs: PoseOutput = model(images)
        return outputs

    return network


@dataclass(frozen=True)
class ThroughArrays:
    """A runtime as a network: it takes contiguous arrays, and gives SimCC's two, or one of heatmaps.

    PyTorch keeps to one thread around it: its waiting threads would hold the cores that the runtime's need.
    """

    infer: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    columns: ClassVar[int] = -1  # the axis along which an image is mirrored

    def inputs(self, crops: Crops, mean: RGB, std: RGB) -> Tensor:
        """What the runtime takes of crops: normalised planes (N, 3, H, W)."""
        return torch.from_numpy(planes_of(crops.pixels, mean, std))

    def __call__(self, images: Tensor) -> PoseOutput:
        with one_thread():
            array = images.contiguous().numpy()
        # Copies: a runtime may reuse its output buffers.
        outputs = [torch.from_numpy(part.copy()) for part in self.infer(array)]
        return outputs[0] if len(outputs) == 1 else (outputs[0], outputs[1])


@dataclass(frozen=True)
class ThroughCrops(ThroughArrays):
    """A runtime that normalises by itself: it takes the crops' bytes (N, H, W, 3)."""

    columns: ClassVar[int] = -2

    def inputs(self, crops: Crops, mean: RGB, std: RGB) -> Tensor:
        return torch.from_numpy(crops.pixels)


@dataclass
class _Aside:
    """How many blocks of `one_thread` are open, and PyTorch's number of threads without them."""

    inside: int = 0
    before: int = 1
    lock: Lock = field(default_factory=Lock)


_ASIDE = _Aside()


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's operations use no other thread during the block, which costs a microsecond.

    The number is the process's: threads whose first operation falls into the block keep to one as well.
    """
    with _ASIDE.lock:
        if not _ASIDE.inside:  # else another thread's block has changed it
            _ASIDE.before = torch.get_num_threads()
        _ASIDE.inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _ASIDE.lock:
            _ASIDE.inside -= 1
            torch.set_num_threads(_ASIDE.before)
