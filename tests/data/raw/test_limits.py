"""Images that claim more than they should, or that are damaged, are judged before they take memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtmpose.data.raw.limits import claimed_size, too_many_pixels
from rtmpose.data.raw.photograph import decode, decode_photograph
from rtmpose.files import UserError
from rtmpose.inference.photo import read_photo

PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def encoded(suffix: str, pixels: np.ndarray = PIXELS) -> bytes:
    done, content = cv2.imencode(suffix, pixels)
    assert done
    return content.tobytes()


def claiming_png(width: int, height: int, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def claiming_jpeg(width: int, height: int) -> bytes:
    content = bytearray(encoded(".jpg"))
    frame = content.index(b"\xff\xc0")
    struct.pack_into(">HH", content, frame + 5, height, width)
    return bytes(content)


def claiming(suffix: str, at: int, form: str, *values: int) -> bytes:
    content = bytearray(encoded(suffix))
    struct.pack_into(form, content, at, *values)
    return bytes(content)


CLAIMS = {
    "png": claiming_png(50_000, 50_000),
    "png of two billion": claiming_png(2**31 - 1, 2**31 - 1),
    "jpeg": claiming_jpeg(20_000, 20_000),
    "jpeg with a thumbnail before": claiming_jpeg(20_000, 20_000)[:2]
    + b"\xff\xe1\x00\x0a\xff\xc0\x00\x08\x00\x00\x00\x00"
    + claiming_jpeg(20_000, 20_000)[2:],
    "gif": claiming(".gif", 6, "<HH", 65535, 65535),
    "bmp": claiming(".bmp", 18, "<ii", 40_000, -40_000),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "huge.image"
    path.write_bytes(CLAIMS[name])
    for read in (lambda: decode_photograph(CLAIMS[name], path, "stored"), lambda: read_photo(path)):
        with pytest.raises(UserError, match="more than 134 million: scale it down") as caught:
            read()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert decode(CLAIMS[name]) is None


def test_claims_take_no_memory(tmp_path: Path) -> None:
    """A process that may grow by 200 MB reads all of them, and a TIFF, whose header only OpenCV reads."""
    tiff = bytearray(encoded(".tiff"))
    for at in range(8, len(tiff) - 12, 2):
        if struct.unpack_from("<HHII", tiff, at)[:3] in ((256, 3, 1), (257, 3, 1), (256, 4, 1), (257, 4, 1)):
            struct.pack_into("<HHII", tiff, at, struct.unpack_from("<H", tiff, at)[0], 4, 1, 30_000)
    for number, content in enumerate([*CLAIMS.values(), bytes(tiff)]):
        (tmp_path / f"{number}.image").write_bytes(content)
    code = (
        "import sys, pathlib, resource\n"
        "from rtmpose.config import setup_environment\n"
        "setup_environment()\n"
        "from rtmpose.data.raw.photograph import decode_photograph\n"
        "from rtmpose.files import UserError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in pathlib.Path(sys.argv[1]).glob('*.image'):\n"
        "    try:\n"
        "        decode_photograph(path.read_bytes(), path, 'stored')\n"
        "        sys.exit(f'{path} was read')\n"
        "    except UserError:\n"
        "        pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000  # kB


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".webp"])
def test_sizes_are_those_of_the_decoder(suffix: str) -> None:
    assert claimed_size(encoded(suffix)) == (64, 48)
    assert too_many_pixels(encoded(suffix)) is None


def test_sizes_of_every_kind_of_jpeg_and_webp() -> None:
    from PIL import Image

    picture = Image.fromarray(PIXELS)
    for options in (
        {"progressive": True},
        {"exif": b"Exif\0\0" + bytes(60_000)},
        {"icc_profile": bytes(200_000)},
    ):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", **options)
        assert claimed_size(buffer.getvalue()) == (64, 48), options
    for kinds in ({"lossless": True}, {"exif": b"Exif\0\0abc"}, {"quality": 50}):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", **kinds)
        assert claimed_size(buffer.getvalue()) == (64, 48), kinds


def test_unusual_images_are_read_as_eight_bit_colour() -> None:
    from PIL import Image

    grey = encoded(".png", (PIXELS[..., 0].astype(np.uint16)) * 257)
    found = decode(grey)
    assert found is not None and found.dtype == np.uint8 and (found == PIXELS[..., :1]).all()
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(buffer, "JPEG", quality=95)
    found = decode_photograph(buffer.getvalue(), Path("cmyk.jpg"), "stored")
    assert found.shape == PIXELS.shape
    frames = [Image.fromarray(np.full((48, 64, 3), level, np.uint8)) for level in (0, 255)]
    for kind in ("GIF", "PNG", "WEBP"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        found = decode_photograph(buffer.getvalue(), Path("film"), "stored")
        assert found.shape == PIXELS.shape and found.max() < 5, kind


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
def test_cut_images_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    content = encoded(suffix)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=f"cut{suffix}") as caught:
        read_photo(path)
    assert "\n" not in str(caught.value)
