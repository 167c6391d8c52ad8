"""BlazePose's landmark model as MediaPipe runs it: a turned square around the person, 33 points and two for
the next frame's square (arXiv 2006.10204; BlazePose GHUM, arXiv 2206.11678).

The first square is the whole picture: the separate detector's file is not needed for pictures of one person.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.files import UserError
from rtmpose.judging.foreign import Array, open_foreign
from rtmpose.motion.person import Person

Floats = NDArray[np.float64]
VALUES = 5  # of a point: x, y, z px of the input, visibility and presence as logits
POINTS = 39  # 33 of the body, then six of which the first two are the next square's middle and reach
MIDDLE, REACH = 33, 34
WIDER = 1.25  # of the square, beyond twice the distance of those two
PRESENT = 0.5  # of the whole person, below which the next picture begins anew
#: COCO's 17 points among BlazePose's 33.
COCO17 = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)


@dataclass(frozen=True)
class Square:
    """A turned square of the picture."""

    center: Floats  # (2,) px
    side: float  # px
    turn: float  # rad, clockwise on the screen

    def matrix(self) -> Floats:
        """(2, 3): from shares of the square (0, 0 its first corner, 1, 1 its last) to px of the picture."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        axes = self.side * np.array([[c, -s], [s, c]])
        return np.column_stack([axes, self.center - axes @ (0.5, 0.5)])

    def place(self, shares: Floats) -> Floats:
        """Points (K, 2) in shares of the square as px of the picture."""
        matrix = self.matrix()
        return np.asarray(shares @ matrix[:, :2].T + matrix[:, 2])

    def cut(self, image: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
        """The square as a picture (pixels, pixels, 3); black beyond the picture."""
        to_image = self.matrix()
        axes = to_image[:, :2] / pixels
        # pixel corners are mapped on pixel corners: the centre of a pixel lies at half a pixel
        shift = to_image[:, 2] + axes @ (0.5, 0.5) - 0.5
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        found: NDArray[np.uint8] = cv2.warpAffine(
            image, np.column_stack([axes, shift]), (pixels, pixels), flags=flags
        )
        return found


def square_of(middle: Floats, reach: Floats) -> Square:
    """The square of two alignment points (2,) px: around the hips' middle, upright along the way to
    `reach`.
    """
    x, y = reach - middle
    turn = np.pi / 2 - np.arctan2(-y, x)
    return Square(middle, max(2 * float(np.hypot(x, y)) * WIDER, 1.0), float(turn))


class BlazePose:
    """One person in each picture; its 33 points as COCO's 17."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """UserError where the file is none of BlazePose's landmark models: (1, side, side, 3) → 39 points."""
        self.file = open_foreign(path, threads)
        self.side = self.file.square()
        self._square: Square | None = None

    def forget(self) -> None:
        """The next picture is another scene's."""
        self._square = None

    def __call__(self, image: NDArray[np.uint8]) -> list[Person]:
        """The person of an RGB picture (H, W, 3), in the square that the call before left."""
        height, width = image.shape[:2]
        whole = Square(np.array([width / 2, height / 2]), float(max(width, height)), 0.0)
        square = self._square or whole
        pixels = square.cut(image, self.side).astype(np.float32) / 255
        outputs = self.file.run(pixels[None])
        rows = self._rows(outputs)
        places = square.place(rows[:, :2] / self.side)
        present = self._present(outputs)
        self._square = square_of(places[MIDDLE], places[REACH]) if present >= PRESENT else None
        chosen = list(COCO17)
        scores = 1 / (1 + np.exp(-rows[chosen, 3]))
        points = places[chosen]
        box = np.concatenate([points.min(0), points.max(0)])
        return [Person(box, points, scores, scores, float(present))]

    def _rows(self, outputs: list[Array]) -> Floats:
        for output in outputs:
            if output.size == POINTS * VALUES:
                return output.reshape(POINTS, VALUES).astype(np.float64)
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise UserError(
            f"{self.file.path}: no output holds {POINTS} points of {VALUES} values (it has {shapes}); "
            "give BlazePose's landmark model"
        )

    def _present(self, outputs: list[Array]) -> float:
        """How sure it is that there is a person; 1 where the file does not say."""
        return next((float(output.ravel()[0]) for output in outputs if output.size == 1), 1.0)
