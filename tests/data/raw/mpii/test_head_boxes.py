"""Head boxes beside MPII's annotations: which person has which, and every wrong file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from rtmpose.data.raw.formats import ListedImage
from rtmpose.data.raw.mpii.head_boxes import head_sizes, with_head_sizes
from rtmpose.files import UserError

# The diagonals of the boxes (0, 0, 30, 40), (10, 10, 16, 18) and none: 50, 10 and 0 px.
BOXES = np.array([[[0, 10, 5], [0, 10, 5]], [[30, 16, 5], [40, 18, 5]]], np.float64)


def listed() -> list[ListedImage]:
    """Three persons, of whom the first and the third share an image."""
    points = np.zeros((16, 3))
    both = ListedImage(1, "1.jpg", poses=[({"id": 1}, points), ({"id": 3}, points)])
    return [both, ListedImage(2, "2.jpg", poses=[({"id": 2}, points)])]


def test_heads_are_dealt_by_the_order_of_the_annotations(tmp_path: Path) -> None:
    path = tmp_path / "heads.mat"
    savemat(path, {"headboxes_src": BOXES})
    np.testing.assert_allclose(head_sizes(path), [30, 6, 0])
    sizes = {
        annotation["id"]: annotation.get("head_size")
        for image in with_head_sizes(listed(), path, 3)
        for annotation, _ in image.poses
    }
    assert sizes == {1: pytest.approx(30), 2: pytest.approx(6), 3: None}  # a box without a size is none


def test_without_the_file_nothing_changes(tmp_path: Path) -> None:
    images = list(with_head_sizes(listed(), tmp_path / "absent.mat", 3))
    assert [list(annotation) for image in images for annotation, _ in image.poses] == [["id"]] * 3


def test_a_file_of_other_persons(tmp_path: Path) -> None:
    path = tmp_path / "heads.mat"
    savemat(path, {"headboxes_src": BOXES})
    with pytest.raises(UserError, match=r"heads\.mat: headboxes_src: 3 head boxes for 4 persons; [^\n]*$"):
        list(with_head_sizes(listed(), path, 4))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"headboxes_src": np.zeros((2, 3, 4))}, r"has the shape \(2, 3, 4\)"),
        ({"headboxes_src": np.array([["a", "b"]])}, "cannot be read"),
        ({"others": np.zeros(3)}, "cannot be read"),
        (b"no such file", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_no_head_boxes_are_one_line(
    content: dict[str, np.ndarray] | bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "heads.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        savemat(path, content)
    with pytest.raises(UserError, match=rf"heads\.mat: headboxes_src: {said}[^\n]*fetch it again[^\n]*$"):
        head_sizes(path)
