"""A run over pictures and videos: people found, written and drawn, also when it is ended early."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtmpose.data.raw.exif import TURNS, orientation
from rtmpose.data.raw.photograph import decode_photograph
from rtmpose.descriptors import Frame as WhichWay
from rtmpose.drawing import draw_label, draw_skeleton, identity_colour
from rtmpose.ending import Signalled, signals_later
from rtmpose.files import UserError, read_bytes, write_atomic
from rtmpose.inference.flow import Ahead, Frame
from rtmpose.inference.inputs import PICTURES, Input, is_animated
from rtmpose.inference.outputs import Points, Results, Seen, count_sure, open_results
from rtmpose.inference.photo import Box, boxes_within
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.inference.video import Video, VideoWriter, is_animated_webp
from rtmpose.motion.options import SURE
from rtmpose.motion.person import Person
from rtmpose.motion.tracker import TrackOptions

Pixels = NDArray[np.uint8]
Bar = Callable[[Iterable[Any], int | None, str], Iterable[Any]]  # items, how many, of what → the same items
ENDED = (KeyboardInterrupt, Signalled)
SUFFIXES = {"picture": ".png", "video": ".mp4"}


@dataclass(frozen=True)
class Asked:
    """What a run is to do. `out` is a file, `-` or a folder (OpenPose); `draw` a file, or a folder where
    there are several inputs. `sure` is the confidence from which a point is drawn and counted. `live` says
    whether videos cannot wait (`rtmpose.inference.video.Video`).
    """

    form: str
    out: Path
    draw: Path | None = None
    sure: float = SURE
    boxes: Sequence[Box] = ()
    exif: WhichWay = "display"
    options: TrackOptions = field(default_factory=TrackOptions)
    live: bool | None = None


@dataclass
class Done:
    """What a run has done so far."""

    pictures: int = 0
    people: int = 0
    points: int = 0  # those that are sure
    refused: list[str] = field(default_factory=list)  # one line for each input that could not be read

    def add(self, persons: Sequence[Person], sure: float) -> None:
        self.pictures += 1
        self.people += len(persons)
        self.points += sum(count_sure(person, sure) for person in persons)

    def line(self, sure: float) -> str:
        return (
            f"{self.pictures} pictures, {self.people} people, {self.points} points with a confidence of at "
            f"least {sure:g}"
        )


def run(
    pipeline: PosePipeline, inputs: Sequence[Input], asked: Asked, say: Callable[[str], None], bar: Bar
) -> Done:
    """Look at all inputs. `say` is told lines for the user; `bar` shows progress.

    A signal leaves what was done: whole files, playable videos. An error leaves nothing; but of several
    inputs one that cannot be read is told, and left out. UserError where nothing could be read.
    """
    if asked.boxes and any(one.kind == "video" for one in inputs):
        raise UserError("--box: boxes are for pictures; people in a video are found by --detector")
    if len(inputs) > 1 and asked.draw is not None and asked.draw.suffix:
        raise UserError(f"--draw {asked.draw}: there are {len(inputs)} inputs; name a folder")
    points = Points(pipeline.skeleton.name, pipeline.names, asked.sure, pipeline.calibrated)
    results = open_results(asked.form, asked.out, points)
    one_run = _Run(pipeline, asked, results, say, bar, several=len(inputs) > 1)
    try:
        one_run.all(inputs)
    except ENDED:
        with signals_later():
            results.close()
            say(f"ended early; what was done is kept: {one_run.done.line(asked.sure)}")
        raise
    except BaseException:
        results.discard()
        raise
    results.close()
    return one_run.done


class _Run:
    def __init__(
        self,
        pipeline: PosePipeline,
        asked: Asked,
        results: Results,
        say: Callable[[str], None],
        bar: Bar,
        several: bool,
    ) -> None:
        self.pipeline, self.asked, self.results, self.say, self.bar = pipeline, asked, results, say, bar
        self.several = several
        self.done = Done()
        self._next_id = 0
        self._drawn: set[Path] = set()

    def all(self, inputs: Sequence[Input]) -> None:
        ids = _ids(inputs)
        pictures = [one for one in inputs if one.kind == "picture"]
        with closing(Ahead(self._read(pictures))) as read:
            ready = iter(self.bar(read, len(pictures), "pictures") if len(pictures) > 1 else read)
            for number, one in enumerate(inputs):
                try:
                    if one.kind == "picture":
                        self._picture(one, ids[number], *next(ready))
                    else:
                        self._video(one)
                except UserError as error:
                    if not self.several:
                        raise
                    self.done.refused.append(str(error))
                    self.say(f"left out: {error}")
        if self.done.refused and not self.done.pictures:
            raise UserError(f"none of the {len(inputs)} inputs could be read; {self.done.refused[0]}")

    def _read(self, pictures: Sequence[Input]) -> Iterator[tuple[Pixels | UserError, str | None]]:
        """The pixels of each picture, or why there are none, and what a user has to know of it."""
        for one in pictures:
            try:
                content = read_bytes(one.name, "give the path of a photograph")
                pixels = decode_photograph(content, Path(one.name), self.asked.exif)
                yield pixels, _remark(one.name, content, self.asked.exif)
            except UserError as error:
                yield error, None

    def _picture(self, one: Input, image_id: int, pixels: Pixels | UserError, remark: str | None) -> None:
        if isinstance(pixels, UserError):
            raise pixels
        pipeline, path = self.pipeline, Path(one.name)
        if self.asked.boxes:
            rows = np.array(
                [[x, y, x + w, y + h] for x, y, w, h in boxes_within(self.asked.boxes, pixels, path)]
            )
        else:
            rows = pipeline.detected(pixels)
        persons = pipeline.persons(pixels, rows)
        height, width = pixels.shape[:2]
        with signals_later():
            self.results.add(Seen(image_id, one.name, (width, height), persons))
            self.done.add(persons, self.asked.sure)
            if self.asked.draw is not None:
                draw_people(pixels, persons, pipeline, self.asked.sure)
                target = self._target(one)
                suffix = target.suffix.lower() if target.suffix.lower() in PICTURES else ".png"
                write_atomic(target, cv2.imencode(suffix, pixels[..., ::-1])[1].tobytes())
        if remark is not None:
            self.say(remark)

    def _video(self, one: Input) -> None:
        with Video(one.name, self.asked.live) as video:
            writer = None if self.asked.draw is None else VideoWriter(self._target(one), video.rate)
            with closing(Ahead(self._drawn_frames(video, writer is not None))) as frames:
                try:
                    for frame in self.bar(frames, video.expected, "frames"):
                        with signals_later():
                            self._frame(one, frame, writer)
                except ENDED:
                    with signals_later():
                        if writer is not None:
                            writer.close()
                    raise
                except BaseException:
                    if writer is not None:
                        writer.discard()
                    raise
            self._next_id += video.read
            if writer is not None:
                writer.close()
            if writer is not None and writer.fitted:
                self.say(f"{one.name}: its pictures change their size; the drawn ones have that of the first")
            if remark := video.remark():
                self.say(remark)

    def _frame(self, one: Input, frame: Frame, writer: VideoWriter | None) -> None:
        height, width = frame.pixels.shape[:2]
        number = self._next_id + frame.index
        self.results.add(Seen(number, one.name, (width, height), frame.persons, frame.index, frame.time))
        self.done.add(frame.persons, self.asked.sure)
        if writer is not None:
            writer.write(frame.pixels, frame.time)

    def _drawn_frames(self, video: Video, draw: bool) -> Iterator[Frame]:
        with closing(self.pipeline.frames(video, self.asked.options)) as frames:
            for frame in frames:
                if draw:
                    draw_people(frame.pixels, frame.persons, self.pipeline, self.asked.sure)
                yield frame

    def _target(self, one: Input) -> Path:
        """Where an input is drawn: `--draw` itself, or a name of its own in that folder."""
        draw = self.asked.draw
        assert draw is not None
        if draw.suffix:
            return draw
        stem = Path(one.name.replace(":", "_")).stem or one.kind
        target, number = draw / f"{stem}{SUFFIXES[one.kind]}", 1
        while target in self._drawn:
            number += 1
            target = draw / f"{stem}_{number}{SUFFIXES[one.kind]}"
        self._drawn.add(target)
        return target


def draw_people(pixels: Pixels, persons: Sequence[Person], pipeline: PosePipeline, sure: float) -> None:
    """Draw the sure points of people onto RGB pixels in place; who has an identity gets its colour and
    number.
    """
    for person in persons:
        colour = None if person.identity is None else identity_colour(person.identity)
        draw_skeleton(pixels, person.keypoints, person.confidence >= sure, pipeline.skeleton, colour)
        if colour is not None:
            draw_label(pixels, str(person.identity), (person.box[0], person.box[1]), colour)


def _ids(inputs: Sequence[Input]) -> list[int]:
    """COCO's image ids: the numbers that the names of pictures are, where all are different numbers; else
    from 1 in order.
    """
    stems = [Path(one.name).stem for one in inputs]
    if all(stem.isdecimal() and stem.isascii() and len(stem) < 19 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(inputs) + 1))


def _remark(name: str, content: bytes, exif: WhichWay) -> str | None:
    """What has to be known of a picture: a turn, and that only its first picture was looked at."""
    if is_animated(content):
        all_of_them = "`rtmpose track` takes all"
        if is_animated_webp(content):
            all_of_them = "convert it to GIF or MP4 for `rtmpose track`"
        return f"{name}: holds several pictures; the first one counts here, {all_of_them}"
    turn = orientation(content)
    if turn not in TURNS:
        return None
    told = "is done: boxes and points are in the picture as viewers show it"
    if exif == "stored":
        told = "is not done: boxes and points are in the pixels as stored"
    turned = f"{TURNS[turn]} (orientation {turn})"
    return f"{name}: its EXIF says {turned}, which {told} (--exif {exif})"
