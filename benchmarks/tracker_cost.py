"""What one frame costs the tracker: processor time of `boxes` and `update` for people of 17 and 133 points.

    python benchmarks/tracker_cost.py [--people 8] [--frames 300]

The people stand side by side and tremble; the detector runs on every fifth frame. Given are the median over
the frames and the lowest twentieth, which another program on the machine disturbs less; beside them what one
sum of two small arrays costs, to compare machines by. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from rtmpose.descriptors import load_skeleton
from rtmpose.machine import cpu_line
from rtmpose.motion.person import Person
from rtmpose.motion.tracker import PoseTracker

SIZE = (1920, 1080)


def frames(skeleton: str, people: int, count: int) -> list[float]:
    """ms of each frame but the first ten."""
    points = load_skeleton(skeleton).num_keypoints
    rng = np.random.default_rng(0)
    places = np.arange(people)[:, None, None] * (1800 / people, 5)
    base = rng.uniform(0, 1, (people, points, 2)) * (80, 200) + places
    tracker, taken = PoseTracker(load_skeleton(skeleton)), []
    sure = np.full(points, 0.8)
    for index in range(count):
        shaken = base + rng.normal(0, 1, base.shape)
        found = [Person(np.r_[each.min(0) - 5, each.max(0) + 5], each, sure, sure, 0.9) for each in shaken]
        start = time.process_time_ns()
        tracker.boxes(index / 30, SIZE)
        tracker.update(found, index / 30, SIZE, index % 5 == 0)
        taken.append((time.process_time_ns() - start) / 1e6)
    return taken[10:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    small = np.zeros((8, 17, 2))
    start = time.process_time_ns()
    for _ in range(20000):
        small + small
    add = (time.process_time_ns() - start) / 20000 / 1e3
    print(f"machine: {cpu_line()}; {options.people} people; one sum of 272 numbers {add:.2f} µs")
    found = {}
    for skeleton in ("coco17", "coco_wholebody"):
        taken = frames(skeleton, options.people, options.frames)
        middle, lowest = float(np.median(taken)), float(np.percentile(taken, 5))
        found[skeleton] = {"median": middle, "lowest": lowest}
        print(f"{skeleton}: median {middle:.2f} ms, lowest {lowest:.2f} ms")
    print(json.dumps({"name": "tracker_cost", "ours": found, "peer": None, "ratio": None, "unit": "ms",
                      "machine": cpu_line()}))  # fmt: skip


if __name__ == "__main__":
    main()
