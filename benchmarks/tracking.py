"""Who is who: identities of the product's tracker beside those of OC-SORT (package `trackers`) and rtmlib's
PoseTracker, on films of mannequins whose truth is known.

`python benchmarks/tracking.py [--seeds N] [--seconds S] [--quick] [--json PATH]`

Every tracker gets the same people of each frame: boxes, scores and points of a simulated detector and network
with the faults of real ones (`motion/simulated.py`). With K=5 the detector sees every fifth frame, and the
boxes between follow from the product's own tracker: the others get those people too. Identities are judged by
`trackeval` (HOTA, IDF1, switches at an IoU of 0.5) against all people of whom a tenth is seen. OC-SORT runs
as its package has it, and once more with its threshold for boxes lowered to that of the detector. The other
trackers' boxes are those they were given; the product's are its own.

Below the table stand the share of the poses with swapped sides, the jitter of people who stand still, and the
lag of those who walk, before and after the tracker.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from motion.simulated import COCO17, GRID, Simulated, Truth, film_truth
from motion.steadiness import Steadiness, steadiness
from peers.environment import peer_python

from rtmpose.data.mannequins.film import FilmOptions
from rtmpose.machine import cpu_line
from rtmpose.motion.person import Person
from rtmpose.motion.tracker import PoseTracker, TrackOptions

PROGRAM = Path(__file__).resolve().parent / "peers" / "tracking.py"
TRACKERS_STEPS = (("trackers==2.6.1", "trackeval==1.3.0"),)
RTMLIB_STEPS = (
    ("numpy==2.4.6", "opencv-contrib-python-headless==5.0.0.93", "onnxruntime==1.31.1", "tqdm"),
    ("rtmlib==0.0.16", "--no-deps"),
)
RATES, EVERY = (15, 30, 60), (1, 5)
OURS, OCSORT, OCSORT_LOW, RTMLIB = "rtmpose", "OC-SORT", "OC-SORT, 0.3", "rtmlib"
ARMS = {OCSORT: 0.6, OCSORT_LOW: 0.3}


@dataclass
class Sequence:
    """One film at one rate: its truth, what all trackers got, and what they made of it."""

    fps: float
    truth: list[Truth]
    given: list[list[Person]] = field(default_factory=list)
    ours: list[list[Person]] = field(default_factory=list)
    seconds: float = 0.0  # that the product's tracker took


def track(simulated: Simulated, fps: float, every: int) -> Sequence:
    """The product's tracker on a film at `fps`, the detector on each `every`-th frame."""
    step = round(GRID / fps)
    indices = range(0, len(simulated.frames), step)
    sequence = Sequence(fps, [simulated.frames[index] for index in indices])
    tracker = PoseTracker(COCO17, TrackOptions(every=every))
    for index in indices:
        now = index / GRID
        start = time.perf_counter()
        boxes = tracker.boxes(now, simulated.size)
        spent = time.perf_counter() - start
        detected = boxes is None
        if boxes is None:
            boxes, scores = simulated.detect(index)
        else:
            scores = np.ones(len(boxes))
        people = simulated.poses(index, boxes, scores)
        start = time.perf_counter()
        sequence.ours.append(tracker.update(people, now, simulated.size, detected))
        sequence.seconds += spent + time.perf_counter() - start
        sequence.given.append(people)
    return sequence


def peer(environment: str, what: str, question: dict[str, Any]) -> Any:
    """A peer's answer, from its own environment."""
    steps = RTMLIB_STEPS if environment == "rtmlib" else TRACKERS_STEPS
    python = peer_python(environment, steps)
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "question.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(question))
        subprocess.run(
            [str(python), str(PROGRAM), what, str(asked), str(told)], check=True, stdout=sys.stderr
        )
        return json.loads(told.read_text())


def peer_tracks(environment: str, what: str, sequence: Sequence, **extra: float) -> list[dict[str, Any]]:
    """The people that a peer gave an identity, in the form of `score`."""
    frames = [
        {
            "boxes": [person.box.tolist() for person in people],
            "scores": [person.box_score for person in people],
            "keypoints": [person.keypoints.tolist() for person in people],
        }
        for people in sequence.given
    ]
    answer = peer(environment, what, {"fps": sequence.fps, "frames": frames, **extra})
    tracks = []
    for frame, identities in zip(frames, answer, strict=True):
        kept = [row for row, identity in enumerate(identities) if identity >= 0]
        tracks.append(
            {"ids": [identities[row] for row in kept], "boxes": [frame["boxes"][row] for row in kept]}
        )
    return tracks


def own_tracks(sequence: Sequence) -> list[dict[str, Any]]:
    """The product's people in the form of `score`."""
    return [
        {"ids": [person.identity for person in people], "boxes": [person.box.tolist() for person in people]}
        for people in sequence.ours
    ]


def scored(sequences: list[Sequence], tracks: list[list[dict[str, Any]]]) -> dict[str, float]:
    """trackeval's figures over all sequences."""
    pairs = []
    for sequence, found in zip(sequences, tracks, strict=True):
        truth = [{"ids": each.identity.tolist(), "boxes": each.boxes.tolist()} for each in sequence.truth]
        pairs.append([truth, found])
    answer: dict[str, float] = peer("trackers", "score", {"sequences": pairs})
    return answer


def compared(sequences: list[Sequence]) -> dict[str, dict[str, float]]:
    """Every tracker's figures on the same sequences."""
    found = {OURS: scored(sequences, [own_tracks(each) for each in sequences])}
    for name, high in ARMS.items():
        tracks = [peer_tracks("trackers", "ocsort", each, high=high) for each in sequences]
        found[name] = scored(sequences, tracks)
    found[RTMLIB] = scored(sequences, [peer_tracks("rtmlib", "rtmlib", each) for each in sequences])
    return found


def row(fps: float, every: int, name: str, each: dict[str, float]) -> str:
    return (
        f"{fps:4g}  {every}  {name:13s} {100 * each['HOTA']:5.1f} {100 * each['AssA']:5.1f} "
        f"{100 * each['IDF1']:5.1f} {100 * each['MOTA']:5.1f} {each['switches']:8d} {each['missed']:6d} "
        f"{each['false']:5d}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--quick", action="store_true", help="one film of five seconds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seeds, seconds = (1, 5.0) if arguments.quick else (arguments.seeds, arguments.seconds)
    films = []
    for seed in range(seeds):
        options = FilmOptions(seconds=seconds, fps=GRID, seed=seed)
        films.append(Simulated(film_truth(options), options.size, seed, options.people))
    print(f"{seeds} films of {seconds:g} s, 8 people each; {cpu_line()}")
    print(" fps  K  tracker        HOTA  AssA  IDF1  MOTA switches missed false")
    results: list[dict[str, Any]] = []
    for fps in RATES:
        for every in EVERY:
            sequences = [track(film, fps, every) for film in films]
            figures = compared(sequences)
            for name, each in figures.items():
                print(row(fps, every, name, each), flush=True)
            least = min(each["switches"] for name, each in figures.items() if name != OURS)
            steady = [steadiness(each.truth, each.given, each.ours, fps) for each in sequences]
            whole = Steadiness.mean(steady)
            frames = sum(len(each.truth) for each in sequences)
            spent = 1e3 * sum(each.seconds for each in sequences) / frames
            print(f"         {whole.line()}; {spent:.2f} ms/frame", flush=True)
            holds = figures[OURS]["switches"] <= least
            results.append({"fps": fps, "every": every, "figures": figures, "holds": holds, **asdict(whole)})
    failed = [f"{each['fps']} fps, K={each['every']}" for each in results if not each["holds"]]
    verdict = f"fails at {'; '.join(failed)}" if failed else "holds"
    print(f"no more switches than the best of them: {verdict}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
