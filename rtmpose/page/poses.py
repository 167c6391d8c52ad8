"""From the bytes of a picture or a video to an answer: what the model's own thread does."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from rtmpose.data.raw.limits import claimed_size, unread_kind
from rtmpose.data.raw.photograph import PhotographError, decode_photograph
from rtmpose.geometry import Floats
from rtmpose.inference.flow import Frame, Picture, poses_of
from rtmpose.inference.pipeline import Pixels, PosePipeline
from rtmpose.inference.video import Unreadable, Video
from rtmpose.motion.person import Person
from rtmpose.motion.tracker import TrackOptions
from rtmpose.page.answers import FrameAnswer, ImageAnswer, ImageTimes, PersonAnswer, VideoAnswer, VideoTimes
from rtmpose.page.limits import Limits, Refused
from rtmpose.page.line import Gone

SENT = Path("image")  # what messages call a picture that has no name here
NUMBER = r"[0-9]{1,6}(\.[0-9]{1,4})?"
BOX = rf"^-?{NUMBER},-?{NUMBER},{NUMBER},{NUMBER}$"


def image_answer(
    pipeline: PosePipeline, content: bytes, boxes: Sequence[str], sure: float, limits: Limits, asked: float
) -> ImageAnswer:
    """The people of a picture's bytes; `asked` is when it was (`time.perf_counter`).

    `boxes` are of the form `x,y,w,h` px; without any the detector finds them. Refused: 400 and 415 for what
    is no picture or none that is read, 413 for too many pixels, 422 for boxes.
    """
    begun = time.perf_counter()
    pixels = decoded(content, limits.image_pixels)
    decode = time.perf_counter()
    found = given_boxes(boxes, pixels, limits) if boxes else pipeline.detected(pixels)
    detection = time.perf_counter()
    people = pipeline.persons(pixels, found)
    pose = time.perf_counter()
    detects = not boxes and pipeline.detector is not None
    return ImageAnswer(
        names=[*pipeline.names],
        size=(pixels.shape[1], pixels.shape[0]),
        people=people_answer(people, sure),
        ms=ImageTimes(
            waiting=milliseconds(asked, begun),
            decode=milliseconds(begun, decode),
            detection=milliseconds(decode, detection) if detects else None,
            pose=milliseconds(detection, pose),
        ),
    )


def decoded(content: bytes, most: int) -> Pixels:
    """A picture's bytes as RGB (H, W, 3), upright as viewers show it.

    Only what says its size in a header that is read beforehand is decoded: JPEG, PNG, WebP, BMP and GIF.
    """
    size, kind = claimed_size(content), unread_kind(content)
    if kind is not None:
        raise Refused(415, f"image: is {kind}, which is not read: convert it to JPEG or PNG")
    if size is None:
        raise Refused(400, "image: no JPEG, PNG, WebP, BMP or GIF, or cut off: send one")
    if size[0] * size[1] > most:
        text = f"its header claims {size[0]}x{size[1]} px, more than {most / 1e6:.0f} million"
        raise Refused(413, f"image: {text}: scale it down")
    try:
        return decode_photograph(content, SENT, "display")
    except PhotographError as error:
        raise Refused(400, str(error)) from None


def given_boxes(boxes: Sequence[str], pixels: Pixels, limits: Limits) -> Floats:
    """`x,y,w,h` px, as in `rtmpose predict --box`, → corners (N, 4); Refused (422) for what is none."""
    if len(boxes) > limits.boxes:
        raise Refused(422, f"boxes: {len(boxes)} are given; give at most {limits.boxes} at once")
    height, width = pixels.shape[:2]
    corners = np.empty((len(boxes), 4))
    for row, text in zip(corners, boxes, strict=True):
        if re.fullmatch(BOX, text) is None:
            raise Refused(422, f"boxes: {text[:60]!r} is not x,y,w,h in px, such as 120,40,200,380")
        x, y, w, h = (float(part) for part in text.split(","))
        if w <= 0 or h <= 0:
            raise Refused(422, f"boxes: {text[:60]!r} has no size; give x,y,w,h with w and h above 0")
        row[:] = x, y, x + w, y + h
        if not (x < width and y < height and x + w > 0 and y + h > 0):
            raise Refused(422, f"boxes: {text[:60]!r} lies outside the image, which is {width}x{height} px")
    return corners


def people_answer(people: Sequence[Person], sure: float) -> list[PersonAnswer]:
    """People as they are sent; points less sure are null, and a person without any other is left out."""
    return [_person(one, one.confidence >= sure) for one in people if (one.confidence >= sure).any()]


def _person(person: Person, shown: np.ndarray) -> PersonAnswer:
    x, y, right, bottom = person.box.tolist()
    points = np.round(person.keypoints, 2).tolist()
    return PersonAnswer(
        box=(round(x, 2), round(y, 2), round(right - x, 2), round(bottom - y, 2)),
        box_score=round(float(person.box_score), 4),
        identity=person.identity,
        keypoints=[(px, py) if kept else None for (px, py), kept in zip(points, shown.tolist(), strict=True)],
        scores=np.round(person.scores, 4).tolist(),
        confidence=np.round(person.confidence, 4).tolist(),
    )


def video_answer(
    pipeline: PosePipeline,
    path: Path,
    every: int,
    sure: float,
    limits: Limits,
    asked: float,
    stop: threading.Event,
) -> VideoAnswer:
    """The people of every frame of a video, with identities; the detector runs on each `every`-th frame.

    Refused: 400 where it cannot be read, 413 where it is too long or its frames are too large. Gone as soon
    as `stop` is set.
    """
    begun = time.perf_counter()
    try:
        with Video(path, limits.video_pixels) as video:
            _check_size(video.size, limits)
            _check_length(video, limits)
            within = _Within(video, limits, stop)
            with closing(poses_of(pipeline, within, TrackOptions(every=every))) as found:
                size, frames = _frames(found, sure)
            remark = video.remark()
    except Unreadable as error:
        raise Refused(400, _unnamed(str(error), path)) from None
    total = milliseconds(begun, time.perf_counter())
    times = VideoTimes(
        waiting=milliseconds(asked, begun), total=total, frame=round(total / max(len(frames), 1), 2)
    )
    return VideoAnswer(
        names=[*pipeline.names],
        size=size,
        frames=frames,
        remark=remark and _unnamed(remark, path),
        ms=times,
    )


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    if size[0] * size[1] > limits.video_pixels:
        most = f"{limits.video_pixels / 1e6:.1f} million"
        raise Refused(413, f"video: its frames are {size[0]}x{size[1]} px, more than {most}: scale it down")


def _check_length(video: Video, limits: Limits) -> None:
    """Refused (413) where the header already says that a video is too long."""
    if video.expected is None:
        return
    seconds = video.expected / video.rate
    if seconds > limits.video_seconds or video.expected > limits.video_frames:
        raise _too_long(f"has {video.expected} frames, {seconds:.0f} s", limits)


class _Within:
    """All pictures of a video, also what cannot be decoded, up to the limits and to the order to stop."""

    live = False
    dropped = 0

    def __init__(self, video: Video, limits: Limits, stop: threading.Event) -> None:
        self.video, self.limits, self.stop = video, limits, stop

    def __iter__(self) -> Iterator[Picture]:
        for picture in self.video:
            if self.stop.is_set():
                raise Gone
            if picture.time > self.limits.video_seconds or picture.index >= self.limits.video_frames:
                raise _too_long(f"goes on after {picture.index} frames, {picture.time:.0f} s", self.limits)
            if picture.pixels is not None:
                height, width = picture.pixels.shape[:2]
                _check_size((width, height), self.limits)
            yield picture


def _frames(found: Iterator[Frame], sure: float) -> tuple[tuple[int, int], list[FrameAnswer]]:
    """The size (w, h) of a video's last frame, and the people of all of them."""
    frames: list[FrameAnswer] = []
    size = (0, 0)
    for frame in found:
        size = frame.pixels.shape[1], frame.pixels.shape[0]
        people = people_answer(frame.persons, sure)
        frames.append(FrameAnswer(index=frame.index, time=round(frame.time, 4), people=people))
    return size, frames


def _too_long(found: str, limits: Limits) -> Refused:
    most = f"at most {limits.video_seconds:.0f} s and {limits.video_frames} frames"
    return Refused(413, f"video: {found}: cut it to {most}")


def _unnamed(line: str, path: Path) -> str:
    """A line without the temporary file's name, which means nothing to whoever sent it."""
    return line.replace(str(path), "video")


def milliseconds(start: float, end: float) -> float:
    """Between two times in s, rounded to hundredths."""
    return round((end - start) * 1000, 2)
