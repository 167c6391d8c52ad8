"""A tracked pipeline on films whose truth is known: AP, identities, trembling and lag."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rtmpose.data.mannequins.film_files import TRUTH, VIDEO
from rtmpose.descriptors import load_skeleton
from rtmpose.evaluation.coco import load_ground_truth
from rtmpose.files import UserError
from rtmpose.judging.identities import Identities, Moment, identities
from rtmpose.judging.poses import Judged, Row, in_skeleton, pairs_to
from rtmpose.motion.boxes import Floats
from rtmpose.motion.measures import jitter, lag
from rtmpose.motion.options import TrackOptions
from rtmpose.motion.person import Person

if TYPE_CHECKING:
    from rtmpose.inference.pipeline import PosePipeline

DATASET = "coco17"
CLEAR = 0.9  # share of somebody that must be seen for steadiness to count
LEAST = 15  # frames in a row that say something of steadiness
MOST_LAG = 5  # frames


@dataclass(frozen=True)
class FilmRow:
    """One number of frames from one detection to the next: the poses' figures, and those over time."""

    row: Row
    every: int
    switches: int  # of identities
    idf1: float  # of 1
    jitter: float  # mean acceleration of the points' error, sizes of the person per s²
    lag_ms: float  # that the points come after the truth, of people who move

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        over_time = {key: value for key, value in asdict(self).items() if key != "row"}
        return self.row.as_json() | {
            key: None if isinstance(value, float) and np.isnan(value) else value
            for key, value in over_time.items()
        }


def judge_film(
    pipeline: PosePipeline,
    folder: Path,
    every: Sequence[int],
    *,
    options: TrackOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[FilmRow]:
    """A row of a film of mannequins for each number of frames from one detection to the next: the tracked
    people of each frame against the truth. The interval of AP takes frames for independent, which neighbours
    are not: it is too narrow.

    Args:
        options: of the tracker; `every` replaces theirs.
        progress: called with the number of frames done.

    Raises:
        UserError: the folder holds no film, or the model lacks points of COCO.
    """
    if not (folder / VIDEO).is_file():
        raise UserError(f"{folder / VIDEO}: no such file; write a film with `rtmpose film {folder}`")
    truth, _ = load_ground_truth(folder / TRUTH)
    skeleton = load_skeleton(DATASET)
    pairs = pairs_to(pipeline.skeleton, skeleton, str(pipeline.network.path))
    ids = {image["frame_index"]: image["id"] for image in truth["images"]}
    rows = []
    for count in every:
        judged = Judged(f"{folder.name}: detector every {count}", truth)
        found: dict[Any, list[Person]] = {}
        chosen = TrackOptions(**asdict(options or TrackOptions()) | {"every": count})
        for frame in pipeline.video(folder / VIDEO, options=chosen):
            people = found[ids[frame.index]] = in_skeleton(frame.persons, pairs)
            judged.add(ids[frame.index], people)
            if progress is not None:
                progress(len(found))
        rows.append(_row(Row.of(judged, skeleton), count, truth, found))
    return rows


def _row(row: Row, every: int, truth: dict[str, Any], found: dict[Any, list[Person]]) -> FilmRow:
    people: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for each in truth["annotations"]:
        people[each["image_id"]].append(each)
    seen = [found.get(image, []) for image in people]
    who = identities(
        [_true_moment(some) for some in people.values()],
        [
            Moment(np.array([one.identity or 0 for one in some], np.int64), boxes_of(some))
            for some in seen
        ],
    )  # fmt: skip
    times = np.array([image["timestamp"] for image in truth["images"]])
    trembling, late = steadiness(list(people.values()), seen, who, times)
    return FilmRow(row, every, who.switches, who.idf1, trembling, late)


def _true_moment(people: Sequence[dict[str, Any]]) -> Moment:
    boxes = np.array([each["bbox"] for each in people], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Moment(np.array([each["track_id"] for each in people], np.int64), boxes)


def boxes_of(people: Sequence[Person]) -> NDArray[np.float64]:
    """Boxes (N, 4) xyxy px."""
    return np.array([one.box for one in people], np.float64).reshape(-1, 4)


def steadiness(
    people: Sequence[Sequence[dict[str, Any]]],
    found: Sequence[Sequence[Person]],
    who: Identities,
    times: Floats,
) -> tuple[float, float]:
    """Trembling (`rtmpose.motion.measures.jitter` of the error, sizes/s²) and lag (ms), over everybody who is
    seen well in many frames on end: means by frames, and by how much the points move. NaN where nobody is.

    Args:
        people: annotations of each frame, with `track_id` and `seen`. found: people of each frame.
        who: which of them belong together. times: of the frames, s.
    """
    parts = list(_stretches(people, found, who))
    shakes = [(jitter(points, times[where], size, true), len(points)) for where, size, points, true in parts]
    step = float(np.diff(times).mean()) if len(times) > 1 else float("nan")
    delays = [
        (
            1000 * step * lag(points, true, MOST_LAG),
            float((np.diff(true, axis=0) ** 2).sum()) / size**2,
        )
        for _, size, points, true in parts
    ]
    return _mean(shakes), _mean(delays)


def _mean(parts: Sequence[tuple[float, float]]) -> float:
    """The weighted mean of the values that are numbers; NaN without any."""
    usable = [(value, weight) for value, weight in parts if np.isfinite(value) and weight > 0]
    total = sum(weight for _, weight in usable)
    return sum(value * weight for value, weight in usable) / total if usable else float("nan")


def _stretches(
    people: Sequence[Sequence[dict[str, Any]]], found: Sequence[Sequence[Person]], who: Identities
) -> Iterator[tuple[slice, float, Floats, Floats]]:
    """Frames on end in which somebody is seen well and found: which, the mean size px, the found points and
    the true ones (T, K, 2) px that are seen all the while.
    """
    tracks: dict[int, dict[int, tuple[dict[str, Any], Person]]] = {}
    for index, (some, seen, pairs) in enumerate(zip(people, found, who.pairs, strict=True)):
        for row, column in pairs:
            if some[row]["seen"] >= CLEAR:
                tracks.setdefault(some[row]["track_id"], {})[index] = some[row], seen[column]
    for track in tracks.values():
        indices = np.array(sorted(track))
        for run in np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1):
            if len(run) < LEAST:
                continue
            marked = np.array([track[index][0]["keypoints"] for index in run], np.float64)
            marked = marked.reshape(len(run), -1, 3)
            shown = (marked[..., 2] == 2).all(0)
            if not shown.any():
                continue
            points = np.array([track[index][1].keypoints for index in run])[:, shown]
            size = float(np.mean([np.sqrt(np.prod(track[index][0]["bbox"][2:])) for index in run]))
            yield slice(int(run[0]), int(run[-1]) + 1), size, points, marked[:, shown, :2]


def film_table(rows: Sequence[FilmRow]) -> str:
    """What happens over time, as text."""
    lines = [f"{'':34s} switches  IDF1  jitter, sizes/s²  lag, ms"]
    for one in rows:
        lines.append(
            f"{one.row.name:34s} {one.switches:8d} {100 * one.idf1:5.1f} {one.jitter:17.2f} {one.lag_ms:8.1f}"
        )
    return "\n".join(lines)
