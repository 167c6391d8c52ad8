"""People in pictures and videos: a detector, a pose model and a tracker as one object.

from rtmpose import PosePipeline

poses = PosePipeline.load("models:/rtmpose@champion", "rtmdet.onnx")("photo.jpg")
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rtmpose.config import setup_environment
from rtmpose.deploy.runtimes.base import NotPossible
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.confidence import Logistic
from rtmpose.files import UserError
from rtmpose.geometry import Floats
from rtmpose.inference.network import PoseNetwork, open_in, open_network
from rtmpose.inference.photo import confidence_of, curve_of, read_photo
from rtmpose.inference.sources import Source, model_file, model_source
from rtmpose.machine import cores
from rtmpose.motion.person import Person
from rtmpose.skeleton import Skeleton

if TYPE_CHECKING:
    from rtmpose.deploy.card import ModelCard
    from rtmpose.inference.flow import Frame, Pictures
    from rtmpose.motion.tracker import TrackOptions

LOG = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]
#: RGB (H, W, 3) → boxes of people (N, 5): x1, y1, x2, y2 px and a score, best first.
Detect = Callable[[Pixels], Floats]
THRESHOLD = 0.3  # the detector's score from which a box counts


class PosePipeline:
    """A pose model with what finds the people for it; open once, call for any number of pictures.

    A call is safe from one thread at a time.
    """

    def __init__(self, network: PoseNetwork, detector: Detect | None = None) -> None:
        """`network` is open; without a `detector` one person fills each picture."""
        self.network, self.detector = network, detector
        self._curve = curve_of(network.card)
        if self._curve is None:
            LOG.warning(
                "%s: has no calibration: confidence is the raw score, limited to 0 to 1; "
                "`rtmpose evaluate-pipeline --calibrate` fits one", network.path
            )  # fmt: skip

    @classmethod
    def load(
        cls,
        model: str | Path,
        detector: str | Path | Detect | None = None,
        *,
        skeleton: str | None = None,
        threads: int | None = None,
        threshold: float = THRESHOLD,
        precision: str | None = None,
    ) -> PosePipeline:
        """Open a pose model and a detector.

        Args:
            model: an ONNX file, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a released model's name.
            detector: an ONNX file or a released detector's name; also a function of RGB pixels that gives
                boxes (N, 5). None: one person fills each picture.
            skeleton: the data set whose points are wanted; a model with others is refused.
            threads: CPU threads of the model and of the detector; all cores by default.
            threshold: the detector's score from which a box counts.
            precision: of a registered version, the one to run in ONNX Runtime; by default it is run as was
                picked for the deploy target that this machine is.

        UserError where a file is not there, is none of ours, or has other points.
        """
        setup_environment()
        count = threads or cores()
        if count < 1:
            raise UserError(f"threads: {count} is no number of threads; give 1 or more")
        network = _opened(model_source(model, precision), count)
        if skeleton is not None:
            _refuse_other_points(network, skeleton)
        if isinstance(detector, str | Path):
            from rtmpose.detection.detector import open_detector

            file = model_file(detector, "--detector")
            return cls(network, open_detector(file, threshold=threshold, threads=count))
        return cls(network, detector)

    @property
    def card(self) -> ModelCard:
        """What the model's file says of itself."""
        return self.network.card

    @property
    def skeleton(self) -> Skeleton:
        """The model's points and limbs."""
        return self.network.skeleton

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the K points, in the order of every `Person`."""
        return self.network.card.keypoint_names

    @property
    def curve(self) -> Logistic | None:
        """The model's calibration."""
        return self._curve

    @property
    def calibrated(self) -> bool:
        """Whether confidence is a probability; without a calibration it is the raw score, cut to [0, 1]."""
        return self._curve is not None

    def __call__(self, image: str | Path | Pixels) -> list[Person]:
        """The people of one picture, a file's upright as viewers show it, or RGB pixels (H, W, 3) uint8.

        Of an animation the first picture counts. UserError for what is no picture.
        """
        pixels = read_photo(Path(image)) if isinstance(image, str | Path) else checked(image)
        return self.persons(pixels, self.detected(pixels))

    def detected(self, pixels: Pixels) -> Floats:
        """Boxes of people (N, 5), x1, y1, x2, y2 px and a score; without a detector the whole picture."""
        if self.detector is not None:
            return np.asarray(self.detector(pixels), np.float64).reshape(-1, 5)
        height, width = pixels.shape[:2]
        return np.array([[0.0, 0.0, width, height, 1.0]])

    def persons(self, pixels: Pixels, boxes: Floats) -> list[Person]:
        """The people in boxes (N, 4) x1, y1, x2, y2 px of a picture, or (N, 5) with scores, in that order and
        in one batch. UserError for a box without a size.
        """
        if not len(boxes):
            return []
        rows = np.asarray(boxes, np.float64)
        sides = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1)
        points, scores = self.network(pixels, sides)
        sure = self.confidence(scores)
        box_scores = rows[:, 4] if rows.shape[1] > 4 else np.ones(len(rows))
        return [
            Person(row[:4], points[n], scores[n], sure[n], float(box_scores[n])) for n, row in enumerate(rows)
        ]

    def confidence(self, scores: Floats) -> Floats:
        """Raw scores of any shape as probabilities, by the model's calibration."""
        return confidence_of(self._curve, scores)

    def video(
        self,
        source: str | Path,
        *,
        every: int = 5,
        options: TrackOptions | None = None,
        live: bool | None = None,
    ) -> Generator[Frame]:
        """The frames of a video file, a stream's URL or a camera (`camera:0`), with their people.

        Reading, detection and poses overlap in threads. The detector runs on each `every`-th frame and where
        the tracker asks for it; `options` replaces `every`. A live source drops old frames rather than lag,
        a file drops none; `live` says which it is where the source does not (`Video`). Close the iterator, or
        use it up, to end its threads. UserError where nothing can be read.
        """
        from rtmpose.inference.video import Video
        from rtmpose.motion.tracker import TrackOptions

        chosen = TrackOptions(every=every) if options is None else options
        with Video(source, live=live) as video:
            try:
                with closing(self.frames(video, chosen)) as frames:
                    yield from frames
            finally:
                if remark := video.remark():
                    LOG.warning(remark)

    def frames(self, pictures: Pictures, options: TrackOptions) -> Generator[Frame]:
        """The same of pictures that are read already, such as an open `rtmpose.inference.video.Video`."""
        from rtmpose.inference.flow import poses_of

        return poses_of(self, pictures, options)


def checked(image: Pixels) -> Pixels:
    """The same pixels; UserError where they are not RGB (H, W, 3) uint8, or none."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        told = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"image: is {told}; give a path, or RGB pixels (H, W, 3) of type uint8")
    if not image.size:
        raise UserError(f"image: has no pixels: its shape is {image.shape}")
    return np.ascontiguousarray(image)


def _opened(source: Source, threads: int) -> PoseNetwork:
    """The network as its source says; in fp32 where this machine cannot run what was picked. Either is told
    in one line.
    """
    if source.why is not None:
        LOG.warning(source.why)
    try:
        return open_in(source.files, source.runtime, source.precision, threads)
    except NotPossible as reason:
        LOG.warning(
            "%s: %s in %s cannot be run here (%s): fp32 is run in ONNX Runtime",
            source.files.onnx, source.runtime, source.precision, reason,
        )  # fmt: skip
        return open_network(source.files.onnx, threads)


def _refuse_other_points(network: PoseNetwork, skeleton: str) -> None:
    """UserError where the model's points are not those of a data set, in that order."""
    wanted, found = load_skeleton(skeleton).names, network.card.keypoint_names
    if wanted == found:
        return
    more, less = [*set(found) - set(wanted)], [*set(wanted) - set(found)]
    other = f", such as {sorted(more or less)[0]!r}" if more or less else " in another order"
    raise UserError(
        f"{network.path}: its {len(found)} points are not the {len(wanted)} of --skeleton {skeleton}{other}; "
        f"it was made for {network.card.skeleton}: leave --skeleton out, or give another model"
    )
