"""Videos as FFmpeg's libraries read and write them: times, turns, sizes, and files that are not whole."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from rtmpose.files import UserError
from rtmpose.inference.flow import Picture
from rtmpose.inference.video import Unreadable, Video, VideoWriter
from tests.inference.clips import SINCE, SIZE, TIMES, clip, picture
from tests.inference.test_served import bomb


def read(path: Path) -> tuple[list[Picture], str | None]:
    with Video(path) as video:
        return list(video), video.remark()


def whole(pictures: list[Picture]) -> list[np.ndarray]:
    return [one.pixels for one in pictures if one.pixels is not None]


def boxes_of(content: bytes, kind: bytes) -> int:
    """Where the fields of an MP4's box begin."""
    return content.index(kind) + 4


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_frames_keep_their_own_times(tmp_path: Path, name: str) -> None:
    found, remark = read(clip(tmp_path / "deep" / name))
    assert [one.time for one in found] == pytest.approx(SINCE, abs=1e-3) and remark is None
    levels = [int(np.median(pixels)) for pixels in whole(found)]
    np.testing.assert_allclose(levels, [20 + 20 * number for number in range(len(TIMES))], atol=4)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [name]


@pytest.mark.parametrize(
    ("matrix", "turns", "mirrored"),
    [
        ((0, 1, -1, 0), 3, False), ((-1, 0, 0, -1), 2, False), ((0, -1, 1, 0), 1, False),
        ((-1, 0, 0, 1), 0, True), ((1, 0, 0, -1), 2, True), ((0, 1, 1, 0), 1, True),
        ((0, -1, -1, 0), 3, True),
    ],
)  # fmt: skip
def test_a_video_that_was_taken_sideways_or_in_a_mirror_is_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], turns: int, mirrored: bool
) -> None:
    path = clip(tmp_path / "a.mp4", TIMES[:2])
    (first, *_), _ = read(path)
    content = bytearray(path.read_bytes())
    start = boxes_of(bytes(content), b"tkhd") + 40
    for place, value in zip((0, 1, 3, 4), matrix, strict=True):
        at = start + 4 * place
        content[at : at + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    (turned, *_), _ = read(path)
    assert first.pixels is not None and turned.pixels is not None
    seen = first.pixels[:, ::-1] if mirrored else first.pixels
    np.testing.assert_array_equal(turned.pixels, np.rot90(seen, turns))


def test_no_frame_waits_for_the_collector(tmp_path: Path) -> None:
    """Of a 4K video two hundred that wait are 2 GB."""

    def frames() -> int:
        return sum(isinstance(one, av.VideoFrame) for one in gc.get_objects())

    path = clip(tmp_path / "a.mp4", [n / 25 for n in range(40)])
    gc.collect()
    gc.disable()
    try:
        before = frames()  # other tests may hold some
        with Video(path) as video:
            count = sum(1 for _ in video)
        left = frames() - before
    finally:
        gc.enable()
    assert count == 40 and left <= 2


@pytest.mark.parametrize(
    ("codec", "form", "name"),
    [
        ("libx264", "yuv420p10le", "deep.mp4"),
        ("qtrle", "argb", "clear.mov"),
        ("prores_ks", "yuva444p10le", "both.mov"),
        ("ffv1", "gray16le", "grey.mkv"),
        ("ffv1", "yuv420p", "odd.mkv"),
        ("apng", "rgba", "animated.apng"),
    ],
)
def test_deep_grey_clear_and_odd_pictures_are_rgb(tmp_path: Path, codec: str, form: str, name: str) -> None:
    import av

    shown = picture(90, (63, 47) if name == "odd.mkv" else SIZE)
    with av.open(str(tmp_path / name), "w") as file:
        stream: Any = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = shown.shape[1], shown.shape[0], form
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            file.mux(stream.encode(frame.reformat(format=form)))
        file.mux(stream.encode(None))
    found, remark = read(tmp_path / name)
    assert len(found) == 3 and remark is None
    for pixels in whole(found):
        assert pixels.shape == shown.shape and np.abs(pixels.astype(int) - shown).mean() < 5


def test_odd_and_changing_sizes_are_fitted_into_the_first(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4")
    writer.write(picture(100, (63, 47)), 0.0)
    assert not writer.fitted
    writer.write(picture(100, (63, 94)), 0.1)
    assert writer.close() and writer.fitted
    found, _ = read(tmp_path / "a.mp4")
    odd, tall = whole(found)
    assert odd.shape == tall.shape == (48, 64, 3)
    assert tall[24, 2].max() < 20 < 80 < tall[24, 32].min(), "black beside it, its aspect ratio kept"


def test_a_size_that_changes_within_a_video_is_read_as_it_is(tmp_path: Path) -> None:
    """Two MPEG streams one behind the other, as a recorder that was switched writes them."""
    parts = []
    for size in (SIZE, (80, 32)):
        path = tmp_path / "part.ts"
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for _ in range(4):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(90, size), format="rgb24")))
            file.mux(stream.encode(None))
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    found, _ = read(path)
    shapes = [pixels.shape[:2] for pixels in whole(found)]
    assert shapes == sorted(shapes, reverse=True) and set(shapes) == {(48, 64), (32, 80)}
    times = [one.time for one in found]
    assert times == sorted(set(times)), "times go on although the stamps begin anew"


def test_what_could_be_read_of_a_cut_file_is_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    writer = VideoWriter(tmp_path / "a.mkv")
    for number, pixels in enumerate(noise):
        writer.write(pixels, number / 25)
    writer.close()
    content = (tmp_path / "a.mkv").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(content[: len(content) * 6 // 10])
    with Video(path) as video:
        count = len(whole(list(video)))
        assert 5 < count < 40
        line = video.remark()
    assert line is not None and f"{path}: is cut off or damaged: {count} frames could be read" in line


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has 0 bytes"),
        (b"no video at all" * 99, "cannot be read as a video: it is none"),
        ("cut", "cut off before its index"),
        ("sound", "has no video stream"),
        (None, "no such file"),
        (bomb(), "its header claims 50000x50000 px"),
        (b"RIFF\x99\0\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(99), "is an animated WebP, which cannot be decoded"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path: Path, content: bytes | str | None, reason: str) -> None:
    path = tmp_path / "a.mp4"
    if content == "cut":
        whole_file = clip(path).read_bytes()
        path.write_bytes(whole_file[: len(whole_file) // 2])
    elif content == "sound":
        wave = b"RIFF\x84\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\x60\0\0\0"
        path.write_bytes(wave + bytes(96))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}: [^\n]*{reason}[^\n]*$"):
        read(path)


def test_a_writer_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4")
    writer.write(picture(0), 0.0)
    writer.discard()
    assert not VideoWriter(tmp_path / "b.mp4").close(), "no picture, no file"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"a\.gif: cannot be written: end its name in \.mp4"):
        VideoWriter(tmp_path / "a.gif")


def test_a_clock_that_began_long_ago_is_no_damage(tmp_path: Path) -> None:
    """Cameras and streams count from their own start, which may be days ago."""
    times = [90000 + since for since in SINCE]
    found, remark = read(clip(tmp_path / "a.mkv", times))
    assert [one.time for one in found] == pytest.approx(SINCE, abs=2e-3) and remark is None


def test_pixels_that_are_not_square_are_noted(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4")
    writer.aspect = Fraction(16, 9)
    writer.write(picture(90), 0.0)
    writer.close()
    with Video(tmp_path / "a.mp4") as video:
        assert [*video] and video.aspect == Fraction(16, 9)
    with Video(clip(tmp_path / "b.mp4", TIMES[:1])) as video:
        assert [*video] and video.aspect is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("readme.txt", "hello world\n" * 100),
        ("a.ffconcat", "ffconcat version 1.0\nfile b.mp4\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nb.mp4\n#EXT-X-ENDLIST\n"),
    ],
)
def test_text_is_no_video_and_leads_to_no_other_file(tmp_path: Path, name: str, content: str) -> None:
    clip(tmp_path / "b.mp4")
    (tmp_path / name).write_text(content)
    with pytest.raises(Unreadable, match=rf"^[^\n]*{name}: [^\n]*(no video|cannot be read)[^\n]*$"):
        read(tmp_path / name)


def test_larger_pictures_than_allowed_are_not_decoded(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    with Video(path, most_pixels=SIZE[0] * SIZE[1] // 2) as video, pytest.raises(Unreadable, match="decoded"):
        list(video)


def test_a_stream_that_breaks_off_keeps_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip(tmp_path / "a.mkv")
    with Video(path) as video:
        video._far, whole_file = True, video._container.demux

        def breaking(stream: object) -> Iterator[object]:
            yield from islice(whole_file(stream), 5)
            raise av.error.ExitError(1414092869, "Immediate exit requested")

        video._container = SimpleNamespace(demux=breaking, close=video._container.close)
        assert 0 < len([*video]) <= 5
        line = video.remark()
    assert line is not None and re.search(
        r"broke off after \d pictures, which are kept: nothing came for 10 s", line
    )


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(Unreadable) as caught:
        Video("rtsp://admin:secret@127.0.0.1:1/stream")
    assert "secret" not in str(caught.value) and "rtsp://127.0.0.1:1/stream: cannot be read" in str(
        caught.value
    )
