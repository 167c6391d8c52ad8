"""Streams and files over the network: a stream never lags and ends cleanly, a file loses no frame."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtmpose.files import UserError
from rtmpose.inference.flow import Frame, poses_of
from rtmpose.inference.video import Video
from rtmpose.motion.person import Person
from rtmpose.motion.tracker import TrackOptions
from tests.inference.clips import Still, clip, picture

FRAMES = 120
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """The address of an HTTP server that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:  # whoever asked has gone
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/stream"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", picture(min(255, 20 + number)))[1].tobytes()


def motion_jpeg(before: Callable[[int], None], count: int = FRAMES, *, broken: bool = False) -> Answer:
    """A camera's stream: `count` JPEGs, `before` each of which something is done; `broken` promises more."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for number in range(count):
            before(number)
            content = jpeg(number)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
            handler.wfile.write(head.encode() + content + b"\r\n")
            handler.wfile.flush()
        if broken:
            handler.wfile.write(
                b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 99999\r\n\r\n\xff\xd8"
            )
        handler.close_connection = True

    return answer


def whole_file(path: Path, *, cut: bool = False) -> Answer:
    """A file with its length; with `cut` half of it, then the line goes dead."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        content = path.read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if cut else content)
        handler.close_connection = True

    return answer


class Slow(Still):
    """A pipeline that takes a while for each picture."""

    def persons(self, pixels: np.ndarray, boxes: np.ndarray) -> list[Person]:
        time.sleep(0.02)
        return super().persons(pixels, boxes)


def seen(poses: Still, source: str, live: bool | None = None) -> tuple[list[Frame], Video]:
    with Video(source, live=live) as video:
        return list(poses_of(poses, video, TrackOptions(every=1))), video


def test_a_stream_that_is_faster_than_the_poses_loses_frames_and_never_lags() -> None:
    with served(motion_jpeg(lambda _: time.sleep(0.002))) as address:
        frames, video = seen(Slow(), address)
    assert video.live and video.read == FRAMES
    assert 0 < video.dropped == FRAMES - len(frames)
    order = [frame.index for frame in frames]
    assert order == sorted(set(order)) and order[-1] == FRAMES - 1, "the newest picture is never dropped"
    remark = video.remark()
    assert remark == f"{address}: {video.dropped} of {FRAMES} pictures were dropped to keep up"


def test_of_a_stream_that_is_slower_than_the_poses_no_frame_is_lost() -> None:
    first = 60  # what FFmpeg may want to see before it says what the stream is
    taken = threading.Semaphore(0)

    def wait(number: int) -> None:
        if number >= first:
            assert taken.acquire(timeout=60)

    with served(motion_jpeg(wait)) as address, Video(address) as video:
        found = []
        for frame in poses_of(Still(), video, TrackOptions(every=1)):
            found.append(frame.index)
            if frame.index >= first - 1:  # the picture before is done with: the next one may come
                taken.release()
    assert found[-(FRAMES - first) :] == [*range(first, FRAMES)]
    assert len(found) + video.dropped == FRAMES


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
def test_of_a_file_over_http_no_frame_is_dropped(tmp_path: Path, name: str) -> None:
    path = moving(tmp_path / name)
    with served(whole_file(path)) as address:
        frames, video = seen(Slow(), address)
        assert not video.live and video.dropped == 0 and video.remark() is None
        assert [frame.index for frame in frames] == [*range(40)]
        hurried, video = seen(Slow(), address, live=True)
    assert video.live and len(hurried) + video.dropped == 40


def moving(path: Path) -> Path:
    """Forty frames, as MP4 with its index at the end, or as MPEG's transport stream."""
    if path.suffix == ".mp4":
        return clip(path, [number / 25 for number in range(40)])
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture(20 + number), format="rgb24")))
        file.mux(stream.encode(None))
    return path


def test_a_broken_stream_is_one_line_and_what_was_read_is_kept(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    import av

    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            pixels = np.roll(noise, number, 1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
    with served(whole_file(path, cut=True)) as address:
        frames, video = seen(Still(), address)
    assert 0 < len(frames) < 40
    line = video.remark()
    assert line is not None and line.startswith(f"{address}: ") and "kept" in line and "\n" not in line


def test_a_stream_that_ends_in_the_middle_of_a_picture_ends() -> None:
    with served(motion_jpeg(lambda _: None, 50, broken=True)) as address:
        frames, video = seen(Still(), address)
    assert frames and video.read == 50 and video.remark() is not None


@pytest.mark.parametrize("answer", ["nothing", "page", "gone"])
def test_what_is_no_stream_is_one_line(answer: str) -> None:
    def wrong(handler: BaseHTTPRequestHandler) -> None:
        if answer == "gone":
            handler.send_error(404)
        handler.send_response(200)
        handler.end_headers()
        if answer == "page":
            handler.wfile.write(b"<html>log in</html>" * 99)
        handler.close_connection = True

    with served(wrong) as address, pytest.raises(UserError, match=rf"^{address}: [^\n]*$"):
        seen(Still(), address)


def test_a_stream_over_tcp_is_live(tmp_path: Path) -> None:
    content = moving(tmp_path / "a.ts").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(content)

        for live, expected in ((None, True), (False, False)):
            thread = threading.Thread(target=send)
            thread.start()
            frames, video = seen(Slow(), f"tcp://127.0.0.1:{server.getsockname()[1]}", live)
            thread.join()
            assert video.live is expected and len(frames) + video.dropped == 40
            assert frames[-1].index == 39 and (live is None or video.dropped == 0)
