"""Pictures of every kind that people have, as the pipeline reads them, and `rtmpose predict` with them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from rtmpose.cli.app import app
from rtmpose.deploy.runtimes.base import ModelFiles
from rtmpose.files import UserError
from rtmpose.inference.photo import read_photo
from tests.inference.clips import TIMES, clip, picture
from tests.inference.test_served import bomb, jpeg, turned


def test_deep_grey_printed_and_see_through_pictures_are_read_as_rgb(tmp_path: Path) -> None:
    from PIL import Image

    shown = picture(90)
    cv2.imwrite(str(tmp_path / "deep.png"), shown.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "grey.png"), shown[..., 0])
    cv2.imwrite(str(tmp_path / "clear.png"), np.dstack([shown, np.full(shown.shape[:2], 7, np.uint8)]))
    Image.fromarray(shown).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    for name in ("deep.png", "grey.png", "clear.png", "print.jpg"):
        found = read_photo(tmp_path / name)
        assert found.shape == shown.shape and np.abs(found.astype(int) - shown).max() < 30, name
        assert np.abs(found.astype(int) - shown).mean() < 2, name


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_turn_in_every_form_is_as_viewers_show_it(tmp_path: Path, turn: int, ending: str) -> None:
    from PIL import Image, ImageOps

    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(picture(90)).save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    np.testing.assert_array_equal(read_photo(path, "stored"), picture(90))
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    np.testing.assert_array_equal(read_photo(path), shown)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "0 bytes|not an image"), (b"text", "not an image"), (bomb(), "50000x50000 px, more than")],
)
def test_what_is_no_picture_is_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"^[^\n]*a\.png: [^\n]*({reason})[^\n]*$"):
        read_photo(tmp_path / "a.png")


def test_predict_prints_a_line_for_each_box_and_says_which_way_up(files: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(turned(jpeg()))
    drawn = tmp_path / "drawn.png"
    given = ["predict", str(tmp_path / "a.jpg"), "--model", str(files.onnx), "--threads", "1"]
    done = CliRunner().invoke(
        app, [*given, "--box", "10,20,50,60", "--box", "1,2,30,40", "--draw", str(drawn)]
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and [row["box"] for row in rows] == [[10, 20, 50, 60], [1, 2, 30, 40]]
    assert len(rows[0]["keypoints"]) == 17 and len(rows[0]["keypoints"]["nose"]) == 3
    assert "orientation 6" in done.stderr and "(--exif display)" in done.stderr
    assert cv2.imread(str(drawn)) is not None


def test_track_writes_coco_results_of_a_video(files: ModelFiles, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    given = ["track", str(clip(tmp_path / "a.mp4")), "--model", str(files.onnx), "--threads", "1"]
    done = CliRunner().invoke(app, [*given, "--out", str(out), "--every", "1"])
    assert done.exit_code == 0 and f"{len(TIMES)} pictures" in done.stderr
    rows = json.loads(out.read_text())
    assert all(row["category_id"] == 1 and len(row["keypoints"]) == 51 for row in rows)
