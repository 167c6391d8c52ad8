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
from rtmpose.files import UserError, read_bytes, without_secret, write_atomic
from rtmpose.geometry import Floats
from rtmpose.inference.flow import Ahead, Frame
from rtmpose.inference.inputs import Input, is_animated
from rtmpose.inference.outputs import STDOUT, Points, Results, Seen, count_sure, open_results
from rtmpose.inference.photo import Box, boxes_within
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.inference.video import CONTAINERS, Unreadable, Video, VideoWriter, is_animated_webp
from rtmpose.motion.options import SURE
from rtmpose.motion.person import Person
from rtmpose.motion.tracker import TrackOptions

Pixels = NDArray[np.uint8]
Bar = Callable[[Iterable[Any], int | None, str], Iterable[Any]]  # items, how many, of what → the same items
ENDED = (KeyboardInterrupt, Signalled)
DRAWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
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
    targets = [] if asked.draw is None else drawn_names(asked.draw, inputs)
    _refuse_own(inputs, [*targets, *([] if asked.out == STDOUT else [asked.out])])
    points = Points(pipeline.skeleton.name, pipeline.names, asked.sure, pipeline.calibrated)
    results = open_results(asked.form, asked.out, points)
    one_run = _Run(pipeline, asked, results, say, bar, targets)
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
    try:
        results.close()
    except BaseException:
        results.discard()
        raise
    return one_run.done


class _Run:
    def __init__(
        self,
        pipeline: PosePipeline,
        asked: Asked,
        results: Results,
        say: Callable[[str], None],
        bar: Bar,
        targets: Sequence[Path],
    ) -> None:
        self.pipeline, self.asked, self.results, self.say, self.bar = pipeline, asked, results, say, bar
        self.targets = targets  # where each input is drawn; none where nothing is
        self.done = Done()
        self._next_id = 0  # of a video's first frame

    def all(self, inputs: Sequence[Input]) -> None:
        ids = _ids(inputs)
        self._next_id = 1 + max((ids[n] for n, one in enumerate(inputs) if one.kind == "picture"), default=-1)
        pictures = [one for one in inputs if one.kind == "picture"]
        with closing(Ahead(self._read(pictures))) as read:
            ready = iter(self.bar(read, len(pictures), "pictures") if len(pictures) > 1 else read)
            for number, one in enumerate(inputs):
                target = self.targets[number] if self.targets else None
                try:
                    if one.kind == "picture":
                        self._picture(one, ids[number], target, *next(ready))
                    else:
                        self._video(one, target)
                except Unreadable as error:
                    if len(inputs) < 2:
                        raise
                    self.done.refused.append(str(error))
                    self.say(f"left out: {error}")
        if self.done.refused and not self.done.pictures:
            raise UserError(f"none of the {len(inputs)} inputs could be read; {self.done.refused[0]}")

    def _read(self, pictures: Sequence[Input]) -> Iterator[tuple[Pixels | Unreadable, str | None]]:
        """The pixels of each picture, or why there are none, and what a user has to know of it."""
        for one in pictures:
            try:
                content = read_bytes(one.name, "give the path of a photograph")
                pixels = decode_photograph(content, Path(one.name), self.asked.exif)
                yield pixels, _remark(one.name, content, self.asked.exif)
            except UserError as error:
                yield Unreadable(str(error)), None

    def _rows(self, one: Input, pixels: Pixels) -> Floats:
        """The boxes of a picture, x1, y1, x2, y2 px: those asked for, or those found."""
        if not self.asked.boxes:
            return self.pipeline.detected(pixels)
        try:
            boxes = boxes_within(self.asked.boxes, pixels, Path(one.name))
        except UserError as error:
            raise Unreadable(str(error)) from None
        return np.array([[x, y, x + w, y + h] for x, y, w, h in boxes])

    def _picture(
        self, one: Input, image_id: int, target: Path | None, pixels: Pixels | Unreadable, remark: str | None
    ) -> None:
        if isinstance(pixels, Unreadable):
            raise pixels
        pipeline = self.pipeline
        persons = pipeline.persons(pixels, self._rows(one, pixels))
        height, width = pixels.shape[:2]
        with signals_later():
            self.results.add(Seen(image_id, one.name, (width, height), persons))
            self.done.add(persons, self.asked.sure)
            if target is not None:
                draw_people(pixels, persons, pipeline, self.asked.sure)
                write_atomic(target, encoded(pixels, target))
        if remark is not None:
            self.say(remark)

    def _video(self, one: Input, target: Path | None) -> None:
        with Video(one.name, live=self.asked.live) as video:
            writer = None if target is None else VideoWriter(target, video.rate)
            with closing(Ahead(self._drawn_frames(video, writer is not None))) as frames:
                try:
                    for frame in self.bar(frames, video.expected, "frames"):
                        with signals_later():
                            self._frame(video, frame, writer)
                except ENDED:
                    with signals_later():
                        if writer is not None:
                            writer.close()
                    raise
                except BaseException:
                    if writer is not None:
                        writer.discard()
                    raise
                finally:
                    self._next_id += video.read + video.damaged
            if writer is not None:
                writer.close()
            if writer is not None and writer.fitted:
                self.say(f"{one.name}: its pictures change their size; the drawn ones have that of the first")
            if remark := video.remark():
                self.say(remark)

    def _frame(self, video: Video, frame: Frame, writer: VideoWriter | None) -> None:
        height, width = frame.pixels.shape[:2]
        number = self._next_id + frame.index
        self.results.add(Seen(number, video.name, (width, height), frame.persons, frame.index, frame.time))
        self.done.add(frame.persons, self.asked.sure)
        if writer is not None:
            writer.aspect = video.aspect
            writer.write(frame.pixels, frame.time)

    def _drawn_frames(self, video: Video, draw: bool) -> Iterator[Frame]:
        with closing(self.pipeline.frames(video, self.asked.options)) as frames:
            for frame in frames:
                if draw:
                    draw_people(frame.pixels, frame.persons, self.pipeline, self.asked.sure)
                yield frame


def drawn_names(draw: Path, inputs: Sequence[Input]) -> list[Path]:
    """Where each input is drawn: `draw` itself, or a name of its own in that folder. UserError where one file
    stands for several inputs, and for an ending that is not of the input's kind.
    """
    if not draw.suffix or draw.is_dir():
        names: list[Path] = []
        for one in inputs:
            stem = Path(without_secret(one.name).replace(":", "_")).stem or one.kind
            target, number = draw / f"{stem}{SUFFIXES[one.kind]}", 1
            while target in names:
                number += 1
                target = draw / f"{stem}_{number}{SUFFIXES[one.kind]}"
            names.append(target)
        return names
    if len(inputs) > 1:
        raise UserError(f"--draw {draw}: there are {len(inputs)} inputs; name a folder")
    if inputs[0].kind == "picture" and not (draw.suffix.lower() in DRAWN and cv2.haveImageWriter(draw.name)):
        raise UserError(f"--draw {draw}: {inputs[0].name} is a picture; end the name in {', '.join(DRAWN)}")
    if inputs[0].kind == "video" and draw.suffix.lower() not in CONTAINERS:
        raise UserError(
            f"--draw {draw}: {inputs[0].name} is a video; end the name in {', '.join(CONTAINERS)}"
        )
    return [draw]


def _refuse_own(inputs: Sequence[Input], written: Sequence[Path]) -> None:
    """UserError where something would be written over an input."""
    read = {Path(one.name).resolve(): one.name for one in inputs}
    for path in written:
        if (resolved := path.resolve()) in read:
            raise UserError(f"{path}: would be written over the input {read[resolved]}; name another place")


def encoded(pixels: Pixels, target: Path) -> bytes:
    """RGB pixels as a file of the kind that the name ends in; UserError where they do not fit into it."""
    try:
        done, content = cv2.imencode(target.suffix.lower(), pixels[..., ::-1])
    except cv2.error:
        done = False
    if not done:
        height, width = pixels.shape[:2]
        raise UserError(f"{target}: {width}x{height} px do not fit into such a file; end its name in .png")
    return content.tobytes()


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
