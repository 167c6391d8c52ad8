"""A film of mannequins as files: the video, COCO annotations with track ids, and MOT Challenge's text."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2

from rtmpose.data.mannequins.film import Film, Filmed, FilmFrame, FilmOptions
from rtmpose.data.mannequins.layouts import coco_person
from rtmpose.descriptors import load_skeleton
from rtmpose.files import UserError, destination, temporary_beside, writing

VIDEO, TRUTH, MOT_TRUTH, MOT_INFO = "film.mp4", "film.json", "gt/gt.txt", "seqinfo.ini"
QUALITY = "18"  # x264's constant rate factor: no artefact that a detector would notice
_drawn: dict[FilmOptions, Film] = {}  # of a worker: the film whose frames it draws


def write_film(
    folder: Path,
    options: FilmOptions,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Draw a film into a new `folder` and say what is in it.

    The folder holds `film.mp4` (H.264), `film.json` (COCO's form: an image for each frame with `frame_index`
    from 0 and `timestamp` in s, annotations with `track_id` and `seen`), and `gt/gt.txt` with `seqinfo.ini`,
    as MOT Challenge and the tools that read it have them.

    Args:
        folder: must not exist, or be empty.
        workers: processes; None takes all cores, 1 draws in this process.
        progress: called with (frames done, frames in all).

    Returns:
        frames, people, persons (over all frames), and mean_seen of a person's silhouette.

    Raises:
        UserError: the folder is in use or cannot be written.
    """
    folder = destination(Path(folder), folder=True)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; give the film a folder of its own")
    temporary = temporary_beside(folder)
    with writing(folder):
        temporary.mkdir(parents=True)
        try:
            persons = _write_video(temporary / VIDEO, options, workers, progress)
            (temporary / TRUTH).write_text(json.dumps(coco_form(options, persons)))
            write_mot(temporary, options, persons)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    seen = [each.seen for frame in persons for each in frame]
    return {
        "frames": len(persons),
        "people": len({each.identity for frame in persons for each in frame}),
        "persons": len(seen),
        "mean_seen": round(sum(seen) / max(len(seen), 1), 4),
    }


def frames(options: FilmOptions, workers: int | None = None) -> Iterator[FilmFrame]:
    """All frames of a film in order, drawn by so many processes (None: all cores; 1: this one)."""
    count = len(Film(options))
    workers = min(workers or os.cpu_count() or 1, max(1, count // 8))
    if workers == 1:
        film = Film(options)
        yield from map(film.frame, range(count))
        return
    # spawned, not forked: the caller may have threads of torch or OpenMP running
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(0,)
    ) as pool:
        yield from pool.map(_frame, [options] * count, range(count), chunksize=4)


def _frame(options: FilmOptions, index: int) -> FilmFrame:
    if options not in _drawn:
        _drawn[options] = Film(options)
    return _drawn[options].frame(index)


def _write_video(
    path: Path, options: FilmOptions, workers: int | None, progress: Callable[[int, int], None] | None
) -> list[list[Filmed]]:
    """Encode all frames; the people of each."""
    count, persons = len(Film(options)), []
    rate = Fraction(options.fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        stream.width, stream.height = options.size
        stream.pix_fmt = "yuv420p"
        for frame in frames(options, workers):
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame.image, format="rgb24")):
                container.mux(packet)
            persons.append(frame.persons)
            if progress is not None:
                progress(len(persons), count)
        for packet in stream.encode():
            container.mux(packet)
    return persons


def coco_form(options: FilmOptions, persons: list[list[Filmed]]) -> dict[str, Any]:
    """The people of each frame as a COCO annotation file; image ids count frames from 1."""
    skeleton = load_skeleton("coco17")
    w, h = options.size
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, found in enumerate(persons):
        images.append(
            {
                "id": index + 1,
                "file_name": f"{VIDEO}#{index}",
                "width": w,
                "height": h,
                "frame_index": index,
                "timestamp": index / options.fps,
            }
        )
        for each in found:
            identity = {"id": len(annotations) + 1, "image_id": index + 1, "track_id": each.identity}
            annotations.append({**identity, **coco_person(each.person), "seen": round(each.seen, 4)})
    category = {
        "id": 1,
        "name": "person",
        "keypoints": list(skeleton.names),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }
    info = {"description": "a film of mannequins", "options": asdict(options)}
    return {"info": info, "images": images, "categories": [category], "annotations": annotations}


def write_mot(folder: Path, options: FilmOptions, persons: list[list[Filmed]]) -> None:
    """`gt/gt.txt` (frame from 1, identity, x, y, w, h px, 1, class 1, share seen) and `seqinfo.ini`."""
    rows = []
    for index, found in enumerate(persons, start=1):
        for each in found:
            box = ",".join(f"{value:.2f}" for value in each.person.box)
            rows.append(f"{index},{each.identity},{box},1,1,{each.seen:.3f}\n")
    (folder / MOT_TRUTH).parent.mkdir(parents=True, exist_ok=True)
    (folder / MOT_TRUTH).write_text("".join(rows))
    w, h = options.size
    (folder / MOT_INFO).write_text(
        f"[Sequence]\nname=film\nimDir=img1\nframeRate={options.fps:g}\n"
        f"seqLength={len(persons)}\nimWidth={w}\nimHeight={h}\nimExt=.jpg\n"
    )
