"""A stored sample: what a tar may hold and what is refused, damage that is found, parts of a JPEG."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtmpose.data.raw.photograph import decode
from rtmpose.data.shards.manifest import index_tar
from rtmpose.data.shards.sample import DamagedSample, decode_part, encode_jpeg, read_row, read_sample
from rtmpose.files import UserError
from tests.data.shards.test_crops import photograph


def tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


WHOLE = [("a.jpg", b"image"), ("a.json", b"{}")]


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "..", "a/.."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"s\.tar at byte 2048: the name .* leads out of its folder: refused"):
        index_tar(tar(tmp_path / "s.tar", *WHOLE, (name, b"")))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_devices_and_folders_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(UserError, match=r"s\.tar at byte 2048: 'b\.jpg' is no plain file; .*: refused"):
        index_tar(tar(tmp_path / "s.tar", *WHOLE, link("b.jpg", "/etc/passwd", kind)))


def test_what_makes_no_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two samples with the key a"):
        index_tar(tar(tmp_path / "s.tar", *WHOLE, *WHOLE))
    with pytest.raises(UserError, match="key b has no JSON"):
        index_tar(tar(tmp_path / "s.tar", *WHOLE, ("b.jpg", b"")))
    with pytest.raises(UserError, match="key b has no image"):
        index_tar(tar(tmp_path / "s.tar", *WHOLE, ("b.json", b"{}")))
    path = tar(tmp_path / "s.tar", ("a.jpg", b"x" * 2000), ("a.json", b"{}" * 400))
    path.write_bytes(path.read_bytes()[:3700])
    with pytest.raises(UserError, match=r"s\.tar at byte 512: the tar is cut off|not a whole tar"):
        index_tar(path)
    (tmp_path / "s.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match="not a whole tar"):
        index_tar(tmp_path / "s.tar")


def test_every_damage_is_found(tmp_path: Path) -> None:
    """Any flipped bit between a sample's first and last byte, and any cut."""
    image = encode_jpeg(photograph(60, 40), 95)
    path = tar(tmp_path / "s.tar", ("a.jpg", image), ("a.json", b'{"key": 1}'))
    rows = index_tar(path)
    path.with_suffix(".idx").write_bytes(rows.tobytes())
    content, row = path.read_bytes(), read_row(path, 0)
    fields, shown = read_sample(path, row)
    assert fields == {"key": 1} and bytes(shown) == image
    first, end = 512, int(row["json"] + row["json_bytes"])
    for at in np.random.default_rng(0).integers(first, end, 40).tolist():
        broken = bytearray(content)
        broken[at] ^= 1 << at % 8
        path.write_bytes(broken)
        with pytest.raises(DamagedSample, match=r"s\.tar at byte 512: sample damaged"):
            read_sample(path, row)
        path.write_bytes(content[:at])
        with pytest.raises(DamagedSample, match=r"s\.tar at byte 512: sample cut off"):
            read_sample(path, row)


def test_a_damaged_or_missing_index_is_a_damaged_sample(tmp_path: Path) -> None:
    path = tar(tmp_path / "s.tar", ("a.jpg", encode_jpeg(photograph(60, 40), 95)), ("a.json", b"{}"))
    index = path.with_suffix(".idx")
    rows = index_tar(path).tobytes()
    for at in range(8 * len(rows)):
        broken = bytearray(rows)
        broken[at // 8] ^= 1 << at % 8
        index.write_bytes(broken)
        with pytest.raises(DamagedSample, match=r"s\.tar"):
            read_sample(path, read_row(path, 0))
    for row in (bytes(len(rows)), b"\xff" * len(rows)):
        index.write_bytes(row)
        with pytest.raises(DamagedSample, match=r"s\.tar"):
            read_sample(path, read_row(path, 0))
    index.write_bytes(rows[:-1])
    with pytest.raises(DamagedSample, match=r"s\.idx at byte 0: cut off"):
        read_row(path, 0)
    index.write_bytes(rows)
    row = read_row(path, 0)
    path.unlink()
    with pytest.raises(DamagedSample, match=r"s\.tar at byte 512: cannot be read"):
        read_sample(path, row)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 700), st.integers(1, 500)),
    quality=st.integers(50, 100),
    corners=st.lists(st.floats(-100, 800), min_size=4, max_size=4),
)
def test_a_part_is_decoded_as_in_the_whole(size: tuple[int, int], quality: int, corners: list[float]) -> None:
    """A plain JPEG to any reader, from which the tiles of a part come out bit for bit; and no more than they
    are decoded.
    """
    image = photograph(704, 512)[: size[1], : size[0]]
    content = encode_jpeg(image, quality)
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert whole is not None and whole.shape == image.shape and np.abs(whole.astype(int) - image).mean() < 8
    low, high = np.sort(np.reshape(corners, (2, 2)), axis=0)
    part, (x, y) = decode_part(memoryview(content), low, high)
    within = np.clip(low, 0, size).astype(int), np.clip(np.ceil(high), 0, size).astype(int)
    if (within[0] < within[1]).all():
        assert (part == whole[y : y + part.shape[0], x : x + part.shape[1]]).all()
        assert x <= within[0][0] and y <= within[0][1]
        assert x + part.shape[1] >= within[1][0] and y + part.shape[0] >= within[1][1]
        assert part.shape[0] <= within[1][1] - within[0][1] + 16


def test_a_small_part_is_a_small_image() -> None:
    image = photograph(704, 512)
    part, _ = decode_part(
        memoryview(encode_jpeg(image, 88)), np.array([300.0, 200.0]), np.array([340.0, 230.0])
    )
    assert part.shape[0] <= 48 and part.shape[1] <= 2 * 9 * 8


def test_an_image_of_another_encoder_is_decoded_whole() -> None:
    _, content = cv2.imencode(".jpg", photograph(64, 48))
    part, begin = decode_part(memoryview(content.tobytes()), np.array([10.0, 10.0]), np.array([12.0, 12.0]))
    assert part.shape == (48, 64, 3) and begin == (0, 0)


def test_jpeg_is_rgb_and_keeps_chroma() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::2, 0] = 255  # red and black columns: halved chroma would mix them
    back = decode(encode_jpeg(image, 95))
    assert back is not None and back[:, ::2, 0].mean() > 200 and back[:, 1::2, 0].mean() < 40
    assert back[..., 2].mean() < 40
    assert len(encode_jpeg(image, 60)) < len(encode_jpeg(image, 95))
