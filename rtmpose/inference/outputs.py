"""People of pictures as files: COCO results, JSON by names, CSV, and OpenPose's folder of JSON files.

All but the last are written picture by picture under a temporary name, so that memory does not grow with a
video's length, and what was done until an interruption is a whole file.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO, cast, get_args

import numpy as np

from rtmpose.evaluation.scoring import Pose, pose_score
from rtmpose.files import UserError, destination, temporary_beside, write_atomic, writing
from rtmpose.inference.photo import named
from rtmpose.motion.person import Person

Format = Literal["lines", "coco", "json", "csv", "openpose"]
STDOUT = Path("-")
# OpenPose's BODY_25 in its order: each the name of a point, or of the two whose mean it is where a skeleton
# has no such point.
BODY_25: tuple[tuple[str, tuple[str, str] | None], ...] = (
    ("nose", None), ("neck", ("left_shoulder", "right_shoulder")),
    ("right_shoulder", None), ("right_elbow", None), ("right_wrist", None),
    ("left_shoulder", None), ("left_elbow", None), ("left_wrist", None),
    ("hip", ("left_hip", "right_hip")),
    ("right_hip", None), ("right_knee", None), ("right_ankle", None),
    ("left_hip", None), ("left_knee", None), ("left_ankle", None),
    ("right_eye", None), ("left_eye", None), ("right_ear", None), ("left_ear", None),
    ("left_big_toe", None), ("left_small_toe", None), ("left_heel", None),
    ("right_big_toe", None), ("right_small_toe", None), ("right_heel", None),
)  # fmt: skip
BODY = {"nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip"}  # a skeleton of people has these


@dataclass(frozen=True)
class Seen:
    """The people of one picture. `image_id` is unique in a run; `frame` and `time` (s) are None of photos."""

    image_id: int
    file: str
    size: tuple[int, int]  # (w, h) px
    persons: Sequence[Person]
    frame: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class Points:
    """What a file says of its points: the data set that has them, their names, from which confidence on a
    point counts, and whether confidence is a probability or, of a model without calibration, the raw score.
    """

    skeleton: str
    names: tuple[str, ...]
    sure: float
    calibrated: bool = True


class Results(Protocol):
    """Somewhere to write people to. `close` makes it whole and puts it in its place, `discard` leaves nothing
    that was not there.
    """

    def add(self, seen: Seen) -> None: ...
    def close(self) -> None: ...
    def discard(self) -> None: ...


def open_results(form: str, path: Path, points: Points) -> Results:
    """A writer of one of the formats. `path` is a file, `-` for stdout, or OpenPose's folder.

    UserError for a format that is none, and where nothing can be written there.
    """
    match cast(Format, form):
        case "coco":
            return CocoResults(_Growing(path), points)
        case "json":
            return NamedJson(_Growing(path), points)
        case "lines":
            return Lines(_Growing(path), points)
        case "csv":
            return CsvRows(_Growing(path), points)
        case "openpose":
            if path == STDOUT:
                raise UserError("--out: OpenPose's form is one file for each picture; name a folder")
            return OpenPoseFolder(path, points)
    raise UserError(f"--format: {form!r} is none of {', '.join(get_args(Format))}")


def person_score(person: Person) -> float:
    """The score COCO ranks a person by: the box's times the mean of its points' (`pose_score`)."""
    return pose_score(Pose(None, person.keypoints, person.scores, person.box_score, 0.0))


def count_sure(person: Person, sure: float) -> int:
    """How many points of a person count."""
    return int((person.confidence >= sure).sum())


def _sides(person: Person) -> list[float]:
    x1, y1, x2, y2 = person.box.tolist()
    return [round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)]


def _rounded(time: float | None) -> float | None:
    return None if time is None else round(time, 6)


def _flat(columns: Sequence[Any]) -> list[float]:
    """Columns (K,) or (K, n) side by side, row after row: px with two digits, the rest with four."""
    rows = np.column_stack(columns)
    rows[:, :2] = rows[:, :2].round(2)
    return cast(list[float], rows.round(4).ravel().tolist())


class _Growing:
    """A text file that is written bit by bit under a temporary name; `-` is stdout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stdout = path == STDOUT
        if self.stdout:
            self.file: TextIO = sys.stdout
            return
        self.target = destination(path)
        self.temporary = temporary_beside(self.target)
        with writing(path):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.temporary.open("w", encoding="utf-8", newline="")

    def write(self, text: str) -> None:
        if self.stdout:
            self.file.write(text)
            return
        with writing(self.path):
            self.file.write(text)

    def close(self) -> None:
        if self.stdout:
            self.file.flush()
            return
        with writing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.temporary, self.target)

    def discard(self) -> None:
        if self.stdout:
            return
        with suppress(OSError):  # the first error is the one to be told
            self.file.close()
        with suppress(OSError):
            self.temporary.unlink(missing_ok=True)


class _Listed:
    """A JSON list that is whole after `close`, with a text before and after it."""

    def __init__(self, file: _Growing, points: Points, before: str = "[", after: str = "]\n") -> None:
        self.file, self.points, self.after = file, points, after
        self.empty = True
        file.write(before)

    def row(self, value: Any) -> None:
        self.file.write("\n" if self.empty else ",\n")
        self.empty = False
        self.file.write(json.dumps(value, ensure_ascii=False, allow_nan=False))

    def close(self) -> None:
        self.file.write(f"\n{self.after}")
        self.file.close()

    def discard(self) -> None:
        self.file.discard()


class CocoResults(_Listed):
    """COCO's list of results, which pycocotools reads: one for each person, keypoints [x, y, score] · K.

    Beside what COCO knows: the points' names and confidences, `track_id`, and of a video frame and time.
    """

    def add(self, seen: Seen) -> None:
        for person in seen.persons:
            row: dict[str, Any] = {
                "image_id": seen.image_id,
                "category_id": 1,
                "keypoints": _flat((person.keypoints, person.scores)),
                "score": round(person_score(person), 4),
                "bbox": _sides(person),
                "track_id": person.identity,
                "keypoint_confidence": person.confidence.round(4).tolist(),
                "keypoint_names": list(self.points.names),
                "file_name": seen.file,
            }
            if seen.frame is not None:
                row |= {"frame": seen.frame, "time": _rounded(seen.time)}
            self.row(row)


class Lines:
    """A line of JSON for each person: file, box, keypoints {name: [x, y, score]}; of a video who and when."""

    def __init__(self, file: _Growing, points: Points) -> None:
        self.file, self.points = file, points

    def add(self, seen: Seen) -> None:
        for person in seen.persons:
            row: dict[str, Any] = {"file": seen.file, "box": _sides(person)}
            row["keypoints"] = named(self.points.names, person.keypoints, person.scores)
            if seen.frame is not None:
                row |= {"identity": person.identity, "frame": seen.frame, "time": _rounded(seen.time)}
            self.file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        self.file.close()

    def discard(self) -> None:
        self.file.discard()


class NamedJson(_Listed):
    """One object: what the points are, then for each picture its people by names, keypoints {name: [x, y,
    score, confidence]}.
    """

    def __init__(self, file: _Growing, points: Points) -> None:
        head = {
            "skeleton": points.skeleton,
            "keypoint_names": list(points.names),
            "keypoint": ["x", "y", "score", "confidence"],
            "sure": points.sure,
            "calibrated": points.calibrated,
        }
        before = json.dumps(head, ensure_ascii=False)[:-1] + ', "pictures": ['
        super().__init__(file, points, before, "]}\n")

    def add(self, seen: Seen) -> None:
        picture: dict[str, Any] = {"image_id": seen.image_id, "file": seen.file}
        if seen.frame is not None:
            picture |= {"frame": seen.frame, "time": _rounded(seen.time)}
        picture |= {"width": seen.size[0], "height": seen.size[1]}
        self.row(picture | {"people": [self._person(person) for person in seen.persons]})

    def _person(self, person: Person) -> dict[str, Any]:
        flat = _flat((person.keypoints, person.scores, person.confidence))
        rows = [flat[start : start + 4] for start in range(0, len(flat), 4)]
        return {
            "identity": person.identity,
            "box": _sides(person),
            "box_score": round(person.box_score, 4),
            "score": round(person_score(person), 4),
            "sure_points": count_sure(person, self.points.sure),
            "keypoints": dict(zip(self.points.names, rows, strict=True)),
        }


class CsvRows:
    """A row for each person of each picture; columns name_x, name_y, name_score, name_confidence."""

    def __init__(self, file: _Growing, points: Points) -> None:
        self.file = file
        each = [f"{name}_{what}" for name in points.names for what in ("x", "y", "score", "confidence")]
        box = ("box_x", "box_y", "box_w", "box_h", "box_score", "score")
        self._row(["image_id", "file", "frame", "time", "identity", *box, *each])

    def _row(self, values: Sequence[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self.file.write(text.getvalue())

    def add(self, seen: Seen) -> None:
        time = _rounded(seen.time)
        for person in seen.persons:
            scores = round(person.box_score, 4), round(person_score(person), 4)
            flat = _flat((person.keypoints, person.scores, person.confidence))
            who = (seen.image_id, seen.file, seen.frame, time, person.identity)
            self._row([*who, *_sides(person), *scores, *flat])

    def close(self) -> None:
        self.file.close()

    def discard(self) -> None:
        self.file.discard()


class OpenPoseFolder:
    """A file `<stem>_<frame>_keypoints.json` for each picture, as OpenPose writes them.

    Of a skeleton that has a body's points, `pose_keypoints_2d` is in BODY_25's order (x, y, confidence; 0 0 0
    where the skeleton lacks a point; neck and mid-hip are means where it has none). Of any other it is in the
    skeleton's own order. `part_names` names the points in either case.
    """

    def __init__(self, folder: Path, points: Points) -> None:
        self.folder = destination(folder, folder=True)
        self.stems: dict[str, str] = {}  # of each picture's or video's name: how its files begin
        index = {name: number for number, name in enumerate(points.names)}
        self.order: list[tuple[int, int] | None] = [(number, number) for number in index.values()]
        self.names = list(points.names)
        if set(index) >= BODY:
            self.order = [_found(index, name, pair) for name, pair in BODY_25]
            self.names = [name for name, _ in BODY_25]
        with writing(folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, seen: Seen) -> None:
        people = [self._person(person) for person in seen.persons]
        stem = self.stems.get(seen.file) or self._stem(seen)
        number = "" if seen.frame is None else f"_{seen.frame:012d}"
        content = {"version": 1.3, "part_names": self.names, "people": people}
        write_atomic(self.folder / f"{stem}{number}_keypoints.json", json.dumps(content, allow_nan=False))

    def _stem(self, seen: Seen) -> str:
        """How the files of a picture or video begin: another of the same name in another folder has a
        number.
        """
        stem = Path(seen.file).stem or "picture"
        if stem in self.stems.values():
            stem = f"{stem}_{seen.image_id}"
        self.stems[seen.file] = stem
        return stem

    def _person(self, person: Person) -> dict[str, Any]:
        rows = np.zeros((len(self.order), 3))
        for row, pair in zip(rows, self.order, strict=True):
            if pair is not None:
                row[:2] = person.keypoints[list(pair)].mean(0)
                row[2] = person.confidence[list(pair)].min()
        identity = -1 if person.identity is None else person.identity
        return {"person_id": [identity], "pose_keypoints_2d": _flat((rows,))}

    def close(self) -> None:
        """Each file was whole when it was written."""

    def discard(self) -> None:
        """What was written before an error is whole, and stays."""


def _found(index: dict[str, int], name: str, pair: tuple[str, str] | None) -> tuple[int, int] | None:
    if name in index:
        return index[name], index[name]
    if pair is not None and set(index) >= set(pair):
        return index[pair[0]], index[pair[1]]
    return None
