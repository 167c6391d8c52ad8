"""Zips that are broken or hostile."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from rtmpose.released.transfer import Failed
from rtmpose.released.unpack import extract
from tests.released.conftest import ONNX, ZIP, zipped


def broken(name: str) -> bytes:
    """A zip that must not be taken."""
    match name:
        case "cut":
            return ZIP[:-40]
        case "flipped":
            return ZIP[:200] + bytes([ZIP[200] ^ 0xFF]) + ZIP[201:]
        case "none":
            return zipped({"readme.txt": b"nothing"})
        case "two":
            return zipped({"a/end2end.onnx": ONNX, "b/end2end.onnx": ONNX})
        case "lzma":
            return zipped({"end2end.onnx": ONNX}, zipfile.ZIP_LZMA)
        case "offset":  # the directory says that the file begins before the archive
            at = ZIP.rindex(b"PK\x05\x06") + 16
            return ZIP[:at] + struct.pack("<I", 1 << 31) + ZIP[at + 4 :]
        case "page":
            return b" <html>log in</html>"
        case "encrypted":
            at = ZIP.index(b"PK\x01\x02") + 8
            return ZIP[:6] + struct.pack("<H", 1) + ZIP[8:at] + struct.pack("<H", 1) + ZIP[at + 2 :]
    return b"neither"


def test_the_one_onnx_file_is_written_under_the_name_given(tmp_path: Path) -> None:
    for content, member in (
        (ZIP, None),
        (zipped({"../../evil.onnx": ONNX}), None),
        (zipped({"x/det/end2end.onnx": ONNX, "x/pose/end2end.onnx": b"other"}), "det/end2end.onnx"),
    ):
        (tmp_path / "a.zip").write_bytes(content)
        extract(tmp_path / "a.zip", tmp_path / "out.onnx", member)
        assert (tmp_path / "out.onnx").read_bytes() == ONNX
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out.onnx"]
        assert not (tmp_path.parent.parent / "evil.onnx").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut", "not a whole zip"),
        ("flipped", "not a whole zip"),
        ("none", "holds 0 files"),
        ("two", "holds 2 files"),
        ("page", "a page instead of the file"),
        ("encrypted", "is encrypted"),
        ("other", "not a whole zip"),
        ("lzma", "is packed by method 14"),
        ("offset", "not a whole zip"),
    ],
)
def test_a_zip_that_is_none_or_holds_another_thing(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "a.zip").write_bytes(broken(name))
    with pytest.raises(Failed, match=reason):
        extract(tmp_path / "a.zip", tmp_path / "out.onnx")


def test_links_and_what_is_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("a.onnx")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(Failed, match="is a link"):
        extract(tmp_path / "a.zip", tmp_path / "out.onnx")
    (tmp_path / "a.zip").write_bytes(ZIP)
    monkeypatch.setattr("rtmpose.released.unpack.MOST", 100)
    with pytest.raises(Failed, match="bytes unpacked"):
        extract(tmp_path / "a.zip", tmp_path / "out.onnx")
