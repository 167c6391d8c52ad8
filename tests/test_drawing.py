from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rtmpose.drawing import LEFT, RIGHT, draw_predictions
from rtmpose.skeleton import Skeleton

SKELETON = Skeleton(
    name="stick", names=("head", "left_hand", "right_hand"), limbs=((0, 1), (0, 2)), flip=(0, 2, 1),
    sigmas=(0.05, 0.05, 0.05), upper=(0,), lower=(1, 2),
)  # fmt: skip
POINTS = np.array([[50.0, 20], [80, 60], [20, 60]])


@dataclass(frozen=True)
class Photo:
    image_id: int
    image: np.ndarray = field(default_factory=lambda: np.full((100, 100, 3), 128, np.uint8))


def result(image_id: int, points: np.ndarray, score: float = 0.9) -> dict[str, Any]:
    flat = np.concatenate([points, np.full((len(points), 1), score)], axis=1).ravel().tolist()
    return {"image_id": image_id, "keypoints": flat, "score": score}


def near(image: np.ndarray, x: float, y: float, colour: tuple[int, int, int]) -> bool:
    patch = image[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].astype(int)
    return bool((np.abs(patch - colour).sum(-1) < 30).any())


def test_skeletons_are_drawn_in_their_sides_colours_where_they_are(tmp_path: Path) -> None:
    path = draw_predictions(
        [Photo(1), Photo(2), Photo(3)], [result(1, POINTS), result(2, POINTS, 0.1), result(9, POINTS)],
        SKELETON, tmp_path / "deep" / "grid.png", columns=2, cell=(300, 200),
    )  # fmt: skip
    grid = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert grid.shape == (2 * 208 + 8, 2 * 308 + 8, 3)
    # The square photograph fills the cell's height at zoom 2, centred.
    left, top = 8 + 50, 8
    assert near(grid, left + 2 * 65, top + 2 * 40, LEFT) and near(grid, left + 2 * 80, top + 2 * 60, LEFT)
    assert near(grid, left + 2 * 35, top + 2 * 40, RIGHT) and near(grid, left + 2 * 20, top + 2 * 60, RIGHT)
    unsure = grid[8:208, 316 + 50 : 316 + 250]
    assert (unsure == 128).all()  # scores below the threshold leave the photograph untouched
    assert not list(tmp_path.rglob("*.tmp"))


def test_wild_points_and_empty_lists_do_not_crash(tmp_path: Path) -> None:
    draw_predictions([Photo(1)], [result(1, POINTS * 1e7)], SKELETON, tmp_path / "wild.png")
    draw_predictions([], [], SKELETON, tmp_path / "empty.png")
    assert cv2.imread(str(tmp_path / "empty.png")) is not None
