"""Whole videos: our pipeline beside rtmlib's PoseTracker, from the file to the drawn picture.

    python benchmarks/pipeline.py --pose S.onnx [--with-peer] [--quick] [--detector D.onnx] [--every 5]
        [--picked S.int8.onnx] [--video FILE …] [--memory 10000] [--no-draw]

Both sides get the same detector, the same pose model and the same number of frames between two detections, on
all cores this process may use. rtmlib reads with OpenCV, ours with FFmpeg's libraries; what is written of the
frames is left out. Without --video: those of ../shared/realdata/video, and one with eight people, which is
the person of a real video cut out and set there eight times, each at another moment. Sides take turns;
a ratio of frames per second is the median over rounds with its 95 % bootstrap interval. People in a frame are
counted on both sides, as who is lost costs no time; ours gives nobody up for points that it is unsure of.
--picked is a row more for ours: the precision that was picked for this CPU. Jitter is the median change of a
point's velocity between three frames, in thousandths of the person's height. --memory prints how the resident
memory of ours goes on over so many frames. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from inference import RTMLIB_STEPS
from peers.environment import Peer, peer_python

from rtmpose.config import setup_environment
from rtmpose.deploy.e2e import export_e2e
from rtmpose.deploy.machine import machine
from rtmpose.deploy.runtimes.onnxruntime import read_card
from rtmpose.evaluation.bootstrap import percentile_interval
from rtmpose.files import UserError
from rtmpose.inference.video import Video, VideoWriter
from rtmpose.machine import cores, cpu_line

PEERS = Path(__file__).resolve().parent / "peers"
REAL = Path(__file__).resolve().parents[2] / "shared/realdata"
DETECTOR = REAL / "detectors/rtmdet-nano_320_person.onnx"
ONE_PERSON = REAL / "video/pose2sim_single_cam01.mp4"
PEER, OURS, PICKED = "rtmlib", "ours", "ours, picked"
PEOPLE = 8
CUT_OUT = (140, 280, 760, 1200)  # px, where that person is for its first 30 frames


@dataclass
class Row:
    """What was measured on one video."""

    video: str
    speed: dict[str, list[float]] = field(default_factory=dict)  # frames per second of each round, by side
    people: dict[str, float] = field(default_factory=dict)  # in a frame, on average
    jitter: dict[str, float] = field(default_factory=dict)
    identities: dict[str, int] = field(default_factory=dict)

    def ratio(self, side: str) -> tuple[float, float, float]:
        """How many times rtmlib's speed, with its interval."""
        ratios = np.array(self.speed[side]) / np.array(self.speed[PEER])
        draws = np.random.default_rng(0).integers(0, len(ratios), (2000, len(ratios)))
        return (float(np.median(ratios)), *percentile_interval(np.median(ratios[draws], axis=1)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pose", type=Path, required=True, help="an exported model in fp32")
    parser.add_argument("--picked", type=Path, help="the same model in the picked precision")
    parser.add_argument("--detector", type=Path, default=DETECTOR)
    parser.add_argument("--video", type=Path, action="append")
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--no-draw", action="store_true")
    parser.add_argument("--with-peer", action="store_true", help="set up rtmlib in .peers/ (once) and run it")
    parser.add_argument("--quick", action="store_true", help="two rounds of 20 frames, eight people only")
    parser.add_argument("--memory", type=int, default=0, help="frames")
    options = parser.parse_args()
    setup_environment()
    print(f"machine: {cpu_line()}; load average before: {os.getloadavg()[0]:.2f}", flush=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        models = {OURS: with_e2e(options.pose, Path(name))}
        if options.picked is not None:
            models[PICKED] = with_e2e(options.picked, Path(name))
        videos = options.video or [*([] if options.quick else sorted(REAL.glob("video/*.mp4")))]
        if options.video is None:
            videos.append(eight_people(Path(name), frames_of(options)))
        ours = stack.enter_context(Peer(Path(sys.executable), PEERS / "own_track.py"))
        peer = None
        if options.with_peer:
            peer = stack.enter_context(Peer(peer_python("rtmlib", RTMLIB_STEPS), PEERS / "rtmlib_track.py"))
        rows = [measure(video, models, ours, peer, options) for video in videos]
        memory = remember(ours, videos[-1], models[OURS], options) if options.memory else []
    print(f"\nload average after: {os.getloadavg()[0]:.2f}")
    print(json.dumps(summary(rows, memory, options)))


def frames_of(options: argparse.Namespace) -> int:
    """The most that are looked at of a video in one turn."""
    return 20 if options.quick else 240


def with_e2e(source: Path, folder: Path) -> Path:
    """A copy of an exported file with its end-to-end form beside it, as a deployment has them."""
    if not source.is_file():
        raise UserError(f"{source}: no such file; export a model")
    path = folder / source.name
    path.write_bytes(source.read_bytes())
    export_e2e(path)
    return path


def eight_people(folder: Path, frames: int) -> Path:
    """A video in which the person of a real one stands eight times, each at another moment of a movement that
    goes there and back.
    """
    with Video(ONE_PERSON) as video:
        pictures = [one.pixels for one in islice(video, 30) if one.pixels is not None]
    left, top, right, bottom = CUT_OUT
    cut = [one[top:bottom, left:right] for one in pictures]
    small = [cv2.resize(one, (388, 576), interpolation=cv2.INTER_AREA) for one in cut]
    small += small[-2:0:-1]
    writer = VideoWriter(folder / "eight_people.mp4", 30)
    for number in range(frames):
        moments = [small[(number + 7 * who) % len(small)] for who in range(PEOPLE)]
        sides = [one[:, ::-1] if who % 2 else one for who, one in enumerate(moments)]
        rows = [np.concatenate(sides[start : start + 4], axis=1) for start in (0, 4)]
        writer.write(np.ascontiguousarray(np.concatenate(rows)), number / 30)
    writer.close()
    return writer.path


def measure(
    video: Path, models: dict[str, Path], ours: Peer, peer: Peer | None, options: argparse.Namespace
) -> Row:
    """Rounds in which each side has its turn, then what each sees; printed."""
    size = list(read_card(models[OURS]).input_size)
    asked = {"video": str(video), "detector": str(options.detector), "size": size, "every": options.every}
    sides: dict[str, tuple[Peer, Path]] = {name: (ours, path) for name, path in models.items()}
    if peer is not None:
        sides = {PEER: (peer, models[OURS]), **sides}
    row = Row(video.name)
    frames = frames_of(options)
    for turn in range(3 if options.quick else 8):
        for side, (process, pose) in sides.items():
            found = process.ask(what="time", pose=str(pose), frames=frames, draw=not options.no_draw, **asked)
            if turn:  # the first one warms up
                row.speed.setdefault(side, []).append(found["frames"] / found["seconds"])
            row.people[side] = found["people"] / found["frames"]
    for side, (process, pose) in sides.items():
        seen = process.ask(what="points", pose=str(pose), frames=frames, **asked)["seen"]
        row.jitter[side] = jitter(seen)
        row.identities[side] = len({who for people in seen for who, _ in people})
    show(row)
    return row


def jitter(seen: list[list[tuple[int, Any]]]) -> float:
    """The median change of velocity of the points of whoever is there in three frames in a row, in
    thousandths of the person's height.
    """
    changes: list[float] = [0.0]
    frames = [{who: np.array(points) for who, points in people} for people in seen]
    for before, now, after in zip(frames, frames[1:], frames[2:], strict=False):
        for who in before.keys() & now.keys() & after.keys():
            height = max(1.0, float(np.ptp(now[who][:, 1])))
            change = np.linalg.norm(before[who] - 2 * now[who] + after[who], axis=-1)
            changes += (1000 * change / height).tolist()
    return float(np.median(changes))


def show(row: Row) -> None:
    print(f"\n| {row.video} | frames/s | × rtmlib | people in a frame | identities | jitter |")
    print("|---|---|---|---|---|---|")
    for side, speeds in row.speed.items():
        ratio = ""
        if PEER in row.speed and side != PEER:
            ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*row.ratio(side))
        print(
            f"| {side} | {median(speeds):.1f} | {ratio} | {row.people[side]:.2f} | {row.identities[side]} | "
            f"{row.jitter[side]:.1f} |",
            flush=True,
        )


def remember(ours: Peer, video: Path, pose: Path, options: argparse.Namespace) -> list[list[int]]:
    """Resident memory over a long video, printed."""
    found: list[list[int]] = ours.ask(
        what="memory", video=str(video), pose=str(pose), detector=str(options.detector),
        every=options.every, frames=options.memory,
    )["rss"]  # fmt: skip
    print("\n| frames | resident, MB |\n|---|---|")
    for frames, rss in found:
        print(f"| {frames} | {rss / 1e6:.0f} |", flush=True)
    return found


def summary(rows: list[Row], memory: list[list[int]], options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the JSON line; its head is the last video."""
    last = rows[-1]
    best = max((side for side in last.speed if side != PEER), key=lambda side: median(last.speed[side]))
    return {
        "name": "pipeline",
        "ours": round(median(last.speed[best]), 2),
        "peer": round(median(last.speed[PEER]), 2) if PEER in last.speed else None,
        "ratio": round(last.ratio(best)[0], 3) if PEER in last.speed else None,
        "unit": f"frames/s, {last.video}, every {options.every}, {cores()} cores",
        "rows": [
            {
                "video": row.video,
                "frames_per_s": {side: round(median(found), 2) for side, found in row.speed.items()},
                "ratio": {side: row.ratio(side) for side in row.speed if side != PEER and PEER in row.speed},
                "people": row.people,
                "jitter": row.jitter,
                "identities": row.identities,
            }
            for row in rows
        ],
        "rss": memory,
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
