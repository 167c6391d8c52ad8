"""A damaged photograph is noticed before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from rtmpose.data.raw.annotations import RawImage
from rtmpose.data.raw.photograph import decode_photograph, is_whole_jpeg, read_photograph
from rtmpose.data.shards.sample import encode_jpeg
from rtmpose.files import UserError
from tests.data.shards.test_crops import photograph


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_cut_anywhere_is_noticed(progressive: int, tmp_path: Path) -> None:
    image = photograph(160, 128)
    _, buffer = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    content = buffer.tobytes()
    assert is_whole_jpeg(content) and is_whole_jpeg(content + b"\0" * 1000)
    for share in (0.3, 0.5, 0.9, 0.999):
        assert not is_whole_jpeg(content[: int(len(content) * share)])
    # a thumbnail in the header has an end marker of its own
    header = content[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + content[2:]
    assert is_whole_jpeg(header) and not is_whole_jpeg(header[: len(header) * 3 // 4])
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.jpg: the JPEG is cut off"):
        read_photograph(RawImage(1, path, None, None, [], []))


def test_an_empty_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.jpg: not an image"):
        read_photograph(RawImage(1, tmp_path / "empty.jpg", None, None, [], []))


def test_other_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(b"no image at all")
    with pytest.raises(UserError, match=r"odd\.jpg: not an image"):
        read_photograph(RawImage(1, path, None, None, [], []))
    path.write_bytes(encode_jpeg(photograph(160, 128), 90))
    with pytest.raises(UserError, match=r"odd\.jpg: is 160x128 px, its annotations say 99x128"):
        read_photograph(RawImage(1, path, 99, 128, [], []))
    assert read_photograph(RawImage(1, path, 160, 128, [], []))[1].shape == (128, 160, 3)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "a camera's RAW file"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a film"),
        (b"II*\0\x10\0\0\0CR\2\0", "TIFF or a camera's RAW file"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's RAW file"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\xff\x0a\0\0\0\0", "JPEG XL"),
    ],
)
def test_a_picture_in_a_form_that_is_not_read_is_to_be_converted(content: bytes, kind: str) -> None:
    with pytest.raises(UserError, match=rf"IMG_1: is {kind}, which is not read: convert it to JPEG or PNG"):
        decode_photograph(content * 9, Path("IMG_1"), "display")


@pytest.mark.parametrize("content", [b"<html>" * 9, b"\0\0\0\x18ftyp" * 9, b"\x89PNG\r\n\x1a\n"])
def test_what_is_unknown_or_damaged_is_to_be_fetched_again(content: bytes) -> None:
    with pytest.raises(UserError, match="not an image that can be decoded: download it again"):
        decode_photograph(content, Path("IMG_1"), "display")
